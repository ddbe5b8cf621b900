package nils

import "testing"

func TestIs(t *testing.T) {
	var pointer *int
	var function func()
	var inner error
	for _, v := range []any{nil, pointer, function, inner, map[int]int(nil), []int(nil), (chan int)(nil)} {
		if !Is(v) {
			t.Errorf("%T is something", v)
		}
	}
	for _, v := range []any{0, "", struct{}{}, new(int), []int{}, func() {}} {
		if Is(v) {
			t.Errorf("%T is nil", v)
		}
	}
}

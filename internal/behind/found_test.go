package behind

import "testing"

// A log has every write of a hot key until they are over: what later ones took the places
// of is room that it takes, and that reading it takes.
func TestWhatTheLogHasIsBounded(t *testing.T) {
	o := New[string, int](Config{
		MaxWrites: 1000, MaxBytes: 100, MaxWaiting: 10, MaxRows: 10, MaxSegmentBytes: 1000,
		Log: func([]Logged) error { return nil },
	})
	logged := 0
	for range 10 {
		waits, err := o.Submit(&Write[string, int]{Items: []Item[string, int]{{Key: "hot", Bytes: 30}}})
		if err != nil {
			t.Fatal(err)
		}
		if !waits {
			logged += 30
		}
	}
	if logged > 100 || logged < 70 {
		t.Errorf("the log has %d bytes, and may have 100", logged)
	}
	if turn, ok, _ := o.next(); !ok || turn.Segment == nil {
		t.Fatal("nothing is taken")
	}
	o.Over(0)
	if bytes := o.State().Bytes; bytes != 0 {
		t.Errorf("%d bytes of nothing", bytes)
	}
}

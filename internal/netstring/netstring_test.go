package netstring

import "testing"

// FuzzNext: what is read is what is written of it.
func FuzzNext(f *testing.F) {
	for _, s := range []string{"", "0:,", "3:Ann,", "3:Ann", "03:Ann,", "00:,", ":,", "-1:,", "+1:a,", "99999999999999999999:a,", "1:a;", "1", "1:", "2:a,", "12:abcdefghijkl,x"} {
		f.Add(s, 0)
		f.Add("1:x,"+s, 4)
	}
	f.Fuzz(func(t *testing.T, s string, i int) {
		if i < 0 || i > len(s) {
			return
		}
		text, end := Next(s, i)
		if end < 0 {
			return
		}
		if again := string(Append(nil, text)); again != s[i:end] || len(again) != Size(len(text)) {
			t.Fatalf("%q at %d is %q until %d, and is written %q, of which the size is %d", s, i, text, end, again, Size(len(text)))
		}
		if next, e := Next(string(Append(nil, s)), 0); next != s || e != Size(len(s)) {
			t.Fatalf("%q comes back as %q, %d", s, next, e)
		}
	})
}

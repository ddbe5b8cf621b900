package rows

import (
	"slices"
	"testing"
)

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		parts []string
		key   Key
	}{
		{[]string{"42"}, "42"},
		{[]string{`a:b\c`}, `a:b\c`},
		{[]string{"a", "b"}, "a:b"},
		{[]string{"", ""}, ":"},
		{[]string{"a:b", `c\`, ""}, `a\:b:c\\:`},
	} {
		if got := JoinKey(c.parts...); got != c.key {
			t.Errorf("%q: %q", c.parts, got)
		}
		if got, err := c.key.Split(len(c.parts)); err != nil || !slices.Equal(got, c.parts) {
			t.Errorf("%q: %q, %v", c.key, got, err)
		}
	}
	for key, n := range map[Key]int{"a": 2, "a:b:c": 2, `a\:b`: 2, `a\`: 2, `a\b:c`: 2, "": 2} {
		if got, err := key.Split(n); err == nil {
			t.Errorf("%q of %d: %q", key, n, got)
		}
	}
}

// FuzzKey: a key that can be split is the one that its parts make.
func FuzzKey(f *testing.F) {
	f.Add("a:b", 2)
	f.Add(`a\:b:c\\`, 2)
	f.Add(`\`, 1)
	f.Fuzz(func(t *testing.T, key string, n int) {
		if n < 1 || n > 10 {
			return
		}
		parts, err := Key(key).Split(n)
		if err == nil && (JoinKey(parts...) != Key(key) || len(parts) != n) {
			t.Fatalf("%q is split into %q, which make %q", key, parts, JoinKey(parts...))
		}
		if again, err := JoinKey(key, "", key).Split(3); err != nil || again[0] != key || again[1] != "" || again[2] != key {
			t.Fatalf("%q comes back as %q, %v", key, again, err)
		}
	})
}

// FuzzRow: what is read is what is written of it.
func FuzzRow(f *testing.F) {
	for _, row := range []string{"", "h", "h2:id,2:42,", "h2:id,2:42", "h2:id,", "x2:id,2:42,"} {
		f.Add(row)
	}
	f.Fuzz(func(t *testing.T, row string) {
		fields, err := Row(row).Fields()
		if err == nil && Make(fields...) != Row(row) {
			t.Fatalf("%q is read as %q, which make %q", row, fields, Make(fields...))
		}
	})
}

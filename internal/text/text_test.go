package text

import (
	"slices"
	"testing"
	"time"
)

func TestFigures(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Count(0), "0"},
		{Count(999), "999"},
		{Count(1000), "1,000"},
		{Count(uint64(1234567)), "1,234,567"},
		{Count(-1234), "-1,234"},
		{Count(-123), "-123"},
		{Percent(0.8037), "80.4 %"},
		{Plural(1, "row"), "1 row"},
		{Plural(0, "row"), "0 rows"},
		{Plural(1500, "row"), "1,500 rows"},
		{Span(0), "0 ns"},
		{Span(87), "87 ns"},
		{Span(999), "999 ns"},
		{Span(1000), "1.00 µs"},
		{Span(12345), "12.3 µs"},
		{Span(999_600), "1.00 ms"},
		{Span(123_456 * time.Microsecond), "123 ms"},
		{Span(1500 * time.Millisecond), "1.50 s"},
		{Span(90 * time.Second), "90.0 s"},
		{Span(2 * time.Hour), "7200 s"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestWrapCountsCharactersAndNotBytes(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"one", []string{"one"}},
		{"äöü äöü  äöü", []string{"äöü äöü", "äöü"}},
		{"muchlongerthanaline a", []string{"muchlongerthanaline", "a"}},
	} {
		if got := Wrap(c.text, 7); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

func TestGridAlignsColumns(t *testing.T) {
	got := Grid("lr", [][]string{{"rows", "7"}, {"Größe", "1,200"}, {"last", ""}})
	want := []string{"rows        7", "Größe   1,200", "last"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

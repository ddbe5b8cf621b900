package demo

import (
	"slices"
	"testing"
	"time"
)

func TestFigures(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{count(0), "0"},
		{count(999), "999"},
		{count(1000), "1,000"},
		{count(uint64(1234567)), "1,234,567"},
		{count(-1234), "-1,234"},
		{count(-123), "-123"},
		{money(5), "0.05"},
		{money(123456), "1,234.56"},
		{money(-250_00), "-250.00"},
		{percent(ratio(0.0, 0.0)), "0.0 %"},
		{percent(ratio(time.Second, 2*time.Second)), "50.0 %"},
		{percent(0.8037), "80.4 %"},
		{plural(1, "row"), "1 row"},
		{plural(0, "row"), "0 rows"},
		{plural(1500, "row"), "1,500 rows"},
		{span(0), "0 ns"},
		{span(87), "87 ns"},
		{span(999), "999 ns"},
		{span(1000), "1.00 µs"},
		{span(12345), "12.3 µs"},
		{span(999_600), "1.00 ms"},
		{span(123_456 * time.Microsecond), "123 ms"},
		{span(1500 * time.Millisecond), "1.50 s"},
		{span(90 * time.Second), "90.0 s"},
		{span(2 * time.Hour), "7200 s"},
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
		if got := wrap(c.text, 7); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

func TestGridAlignsColumns(t *testing.T) {
	got := grid("lr", [][]string{{"rows", "7"}, {"Größe", "1,200"}, {"last", ""}})
	want := []string{"rows        7", "Größe   1,200", "last"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLatencyOfNothingIsNothing(t *testing.T) {
	if got := latencyOf(nil); got != (Latency{}) {
		t.Errorf("%+v", got)
	}
	durations := make([]time.Duration, 0, 100)
	for i := 100; i > 0; i-- {
		durations = append(durations, time.Duration(i))
	}
	if got := latencyOf(durations); got != (Latency{Count: 100, P50: 50, P99: 99}) {
		t.Errorf("%+v", got)
	}
}

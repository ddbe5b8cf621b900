package demo

import (
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/text"
)

func TestFigures(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{money(5), "0.05"},
		{money(123456), "1,234.56"},
		{money(-250_00), "-250.00"},
		{text.Percent(ratio(0.0, 0.0)), "0.0 %"},
		{text.Percent(ratio(time.Second, 2*time.Second)), "50.0 %"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
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

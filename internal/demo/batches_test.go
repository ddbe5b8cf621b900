package demo

import (
	"strings"
	"testing"
	"time"
)

func TestGroupCommitIsComparedInTimesThatPeopleKnow(t *testing.T) {
	const price = "A lone writer gains nothing, and pays for the queue."
	figure := func(perSecond float64, p99 time.Duration) *WriteFigure {
		return &WriteFigure{PerSecond: perSecond, Latency: Latency{P99: p99 * time.Millisecond}}
	}
	for _, c := range []struct {
		name                  string
		loneDirect, loneCache float64
		pays                  bool
	}{
		{"a lone writer is slower through the cache", 300, 280, true},
		{"a lone writer is faster through the cache", 280, 300, false},
	} {
		var out strings.Builder
		s := &stage{page: page{out: &out, unwanted: wanted}}
		f := &BatchFigures{
			Direct: []*WriteFigure{figure(200, 900), figure(250, 458)}, Cache: figure(4000, 34),
			LoneDirect: figure(c.loneDirect, 9), LoneCache: figure(c.loneCache, 9),
		}
		f.show(s)
		unwrapped := strings.Join(strings.Fields(out.String()), " ")
		if want := "16.0 times as much as the best pool of connections, and answered 99 % of its writes within 34.0 ms, where the pool with the most writes needed 458 ms."; !strings.Contains(unwrapped, want) {
			t.Errorf("%s: %q is not in it:\n%s", c.name, want, out.String())
		}
		if strings.Contains(unwrapped, price) != c.pays {
			t.Errorf("%s, and it reads:\n%s", c.name, out.String())
		}
	}
}

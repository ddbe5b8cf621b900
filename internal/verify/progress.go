package verify

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep/internal/text"
)

// progress says how far a run is: a bar that is drawn over itself, or a line now and
// then where there is no terminal.
type progress struct {
	j       *judge
	began   time.Time
	stop    chan struct{}
	running sync.WaitGroup
}

func startProgress(j *judge, began time.Time) *progress {
	p := &progress{j: j, began: began, stop: make(chan struct{})}
	if j.Progress == nil {
		return p
	}
	every := 15 * time.Second
	if j.Terminal {
		every = 200 * time.Millisecond
	}
	p.running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.draw()
			case <-p.stop:
				if j.Terminal {
					fmt.Fprint(j.Progress, "\r\x1b[K")
				}
				return
			}
		}
	})
	return p
}

func (p *progress) end() {
	close(p.stop)
	p.running.Wait()
}

func (p *progress) draw() {
	gone := min(time.Since(p.began), p.j.Duration)
	left := (p.j.Duration - gone).Round(time.Second)
	text := fmt.Sprintf("%s operations, %s faults, %v left",
		text.Count(int(p.j.operations.Load())), text.Count(int(p.j.struck.Load())), left)
	if !p.j.Terminal {
		fmt.Fprintln(p.j.Progress, text)
		return
	}
	const width = 24
	full := int(width * gone / max(p.j.Duration, 1))
	fmt.Fprintf(p.j.Progress, "\r\x1b[K[%s%s] %s", strings.Repeat("=", full), strings.Repeat(" ", width-full), text)
}

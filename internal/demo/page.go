package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep/internal/text"
)

const (
	pageWidth = 78
	margin    = "   "
)

// page is what people read. It takes nothing after the first error, be it its
// writer's or that nobody wants the demo any more: what a scene says that was cut
// short is not true.
type page struct {
	out      io.Writer
	terminal bool         // colours and a line that shows progress
	unwanted func() error // why nothing more shall be written
	ticking  bool         // the last line was a tick
	err      error
}

func (p *page) line(text string) {
	p.ticking = false
	if p.err == nil {
		p.err = p.unwanted()
	}
	if p.err == nil {
		_, p.err = io.WriteString(p.out, strings.TrimRight(text, " ")+"\n")
	}
}

// Escape sequences of every terminal since the VT100.
const (
	bold   = "\x1b[1m"
	green  = "\x1b[32m"
	red    = "\x1b[1;31m"
	faint  = "\x1b[2m"
	normal = "\x1b[0m"
	erase  = "\r\x1b[K"
)

func (p *page) styled(style, text string) string {
	if !p.terminal {
		return text
	}
	return style + text + normal
}

func (p *page) headline(text string) {
	p.line("")
	p.line(p.styled(bold, text))
}

// say is a paragraph.
func (p *page) say(format string, args ...any) {
	p.line("")
	for _, line := range text.Wrap(fmt.Sprintf(format, args...), pageWidth-len(margin)) {
		p.line(margin + line)
	}
}

// show is a table; see grid.
func (p *page) show(align string, rows ...[]string) {
	p.line("")
	for _, line := range text.Grid(align, rows) {
		p.line(margin + "  " + line)
	}
}

// quote is what somebody else has said.
func (p *page) quote(said string) {
	p.line("")
	for _, line := range text.Wrap(said, pageWidth-len(margin)-4) {
		p.line(margin + "  │ " + line)
	}
}

// tick is one expectation and whether it was met.
func (p *page) tick(met bool, claim string) {
	if !p.ticking {
		p.line("")
	}
	mark := p.styled(green, "ok   ")
	if !met {
		mark = p.styled(red, "WRONG")
	}
	for i, line := range text.Wrap(claim, pageWidth-len(margin)-len("WRONG ")) {
		if i > 0 {
			mark = "     "
		}
		p.line(margin + mark + " " + line)
	}
	p.ticking = true
}

// progress shows what is being done, and for how long, until the function that
// it returns is called. It does so on a terminal only, where the line can be
// taken back.
func (p *page) progress(what string) (done func()) {
	if !p.terminal || p.err != nil {
		return func() {}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		began := time.Now()
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				fmt.Fprint(p.out, erase, margin, faint, what, fmt.Sprintf(" … %.1f s", time.Since(began).Seconds()), normal)
			case <-stop:
				fmt.Fprint(p.out, erase)
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		close(stop)
		wg.Wait()
	})
}

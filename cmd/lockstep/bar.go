package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// bar says how far something is: drawn over itself in a terminal, and else a line for
// each thing that is begun.
type bar struct {
	out      io.Writer
	terminal bool
	began    time.Time
	what     string
}

func newBar(out io.Writer) *bar {
	return &bar{out: out, terminal: isTerminal(out), began: time.Now()}
}

const barWidth = 24

// draw is told what is being done, and how far everything is: a part of one.
func (b *bar) draw(what string, done float64) {
	if !b.terminal {
		if what != b.what {
			b.what = what
			fmt.Fprintf(b.out, "%s (%.0f %% done)\n", what, 100*done)
		}
		return
	}
	left := ""
	if passed := time.Since(b.began); done > 0.05 {
		left = fmt.Sprintf(", %v left", time.Duration(float64(passed)*(1-done)/done).Round(time.Second))
	}
	full := int(barWidth * done)
	fmt.Fprintf(b.out, "\r\x1b[K[%s%s] %s%s", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), what, left)
}

func (b *bar) end() {
	if b.terminal {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// page is what is written: a bar while a sale goes on, on a terminal, and a table in the
// end. No line is longer than 80 columns.
type page struct {
	out      io.Writer
	terminal bool
}

// result is a sale in figures.
type result struct {
	name      string
	sale      *Sale
	inventory Inventory
	faults    []string
	took      time.Duration

	conflicts, writes uint64
	hits              float64 // of a hundred looks
	prices            int     // changes of it
	ahead, waited     int64   // loads of it, in the background and not
}

// progress draws a bar until stop is called.
func (p *page) progress(name string, sale *Sale) (stop func()) {
	if !p.terminal {
		return func() {}
	}
	const cells = 40
	draw := func() {
		sold := int(sale.Sold.Load())
		filled := min(cells, sold*cells/sale.Units)
		fmt.Fprintf(p.out, "\r  %-14s%s%s %d of %d sold", name, strings.Repeat("█", filled), strings.Repeat("░", cells-filled), sold, sale.Units)
	}
	var drawing sync.WaitGroup
	ended := make(chan struct{})
	drawing.Go(func() {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
				draw()
			}
		}
	})
	return func() {
		close(ended)
		drawing.Wait()
		draw()
		fmt.Fprintln(p.out)
	}
}

// results is the table. Its error is that something was oversold, or could not be said.
func (p *page) results(results []result) error {
	var b strings.Builder
	row := func(what string, cell func(r result) string) {
		fmt.Fprintf(&b, "  %-44s", what)
		for _, r := range results {
			fmt.Fprintf(&b, "%15s", cell(r))
		}
		b.WriteByte('\n')
	}
	count := func(what string, n func(r result) int64) {
		row(what, func(r result) string { return fmt.Sprint(n(r)) })
	}
	b.WriteByte('\n')
	row(fmt.Sprintf("%d buyers, %d units of one item", results[0].sale.Buyers, results[0].sale.Units), func(r result) string { return r.name })
	b.WriteByte('\n')
	count("units sold", func(r result) int64 { return int64(r.inventory.Sold) })
	count("left on the shelf", func(r result) int64 { return int64(r.inventory.OnHand) })
	count("held, and given back", func(r result) int64 { return r.sale.Waived.Load() })
	count("buyers who came too late", func(r result) int64 { return r.sale.TooLate.Load() })
	count("looks at the shelf and the price", func(r result) int64 { return r.sale.Looks.Load() })
	row("reads of the shelf answered from memory", func(r result) string { return fmt.Sprintf("%.1f %%", r.hits) })
	count("writes of the row", func(r result) int64 { return int64(r.writes) })
	count("conflicts, and tried again", func(r result) int64 { return int64(r.conflicts) })
	count("changes of the price by another program", func(r result) int64 { return int64(r.prices) })
	count("loads of it that nobody waited for", func(r result) int64 { return r.ahead })
	count("loads of it that buyers waited for", func(r result) int64 { return r.waited })
	row("earned", func(r result) string { return r.inventory.Earned.String() })
	row("took", func(r result) string { return fmt.Sprintf("%.2f s", r.took.Seconds()) })
	b.WriteByte('\n')
	var faults []string
	for _, r := range results {
		for _, f := range r.faults {
			faults = append(faults, fmt.Sprintf("WRONG, %s: %s", r.name, f))
		}
	}
	if len(faults) == 0 {
		b.WriteString("Nothing was oversold: what was sold and what is left is what there was.\n")
	} else {
		b.WriteString(strings.Join(faults, "\n") + "\n")
	}
	if _, err := io.WriteString(p.out, b.String()); err != nil {
		return err
	}
	if len(faults) > 0 {
		return errors.New("the inventory is wrong")
	}
	return nil
}

// isTerminal: a character device, which /dev/null is too, and does not mind.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

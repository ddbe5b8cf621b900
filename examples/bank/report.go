package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Report tells what goes on in the bank, while it does: on a terminal as a page that is
// written over, and elsewhere as a line now and then.
type Report struct {
	Out      io.Writer
	Terminal bool
	Bank     *Bank
	Books    *Books
	Clients  *Clients
	Began    time.Time
	For      time.Duration

	height int  // of the page that is there
	away   bool // it ends with a line that says so
}

// shown is how many accounts a page has. No line is longer than 80 columns.
const shown = 8

// missed says why there is nothing new to tell.
func (r *Report) missed(err error) {
	line := fmt.Sprintf("  the database does not answer: %.40s\n", strings.ReplaceAll(err.Error(), "\n", " "))
	switch {
	case !r.Terminal:
		fmt.Fprintf(r.Out, "%3.0f s%s", time.Since(r.Began).Seconds(), line)
	case !r.away:
		fmt.Fprint(r.Out, line)
		r.height++
		r.away = true
	}
}

// Follow writes until ctx ends. The faults that it returns were found on the way.
func (r *Report) Follow(ctx context.Context) (faults []string, err error) {
	every := time.Second
	if r.Terminal {
		every /= 4
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return faults, nil
		}
		s, err := r.Books.Statement(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return faults, nil
			}
			// The database may be back by the next time; until then there is nothing to tell.
			r.missed(err)
			continue
		}
		faults = append(faults, s.Faults()...)
		if r.Terminal {
			err = r.page(ctx, s)
		} else {
			err = r.line(s)
		}
		if err != nil && ctx.Err() == nil {
			return faults, err
		}
	}
}

func (r *Report) line(s Statement) error {
	t := &r.Clients.tally
	_, err := fmt.Fprintf(r.Out, "%3.0f s  made %s  unknown %s  money %v  books %s\n", time.Since(r.Began).Seconds(),
		grouped(t.Made.Load()), grouped(t.Unknown.Load()), s.Total, inOrder(s.Faults()))
	return err
}

func (r *Report) page(ctx context.Context, s Statement) error {
	var b strings.Builder
	t, now := &r.Clients.tally, time.Since(r.Began)
	stats := r.Bank.accounts.Stats()
	row := func(name, what string, args ...any) {
		fmt.Fprintf(&b, "  %-11s%s\n", name, fmt.Sprintf(what, args...))
	}
	fmt.Fprintf(&b, "\n  BANK  %d clients, %d accounts%*s\n\n", r.Clients.Number, s.Accounts, 45-len(fmt.Sprint(r.Clients.Number, s.Accounts)),
		fmt.Sprintf("%.0f s of %.0f s", now.Seconds(), r.For.Seconds()))
	row("transfers", "%10s  made, %s a second", grouped(t.Made.Load()), grouped(int64(float64(t.Made.Load())/now.Seconds())))
	row("", "%10s  refused for want of money", grouped(t.Refused.Load()))
	row("", "%10s  unknown outcomes: asked for again under their keys", grouped(t.Unknown.Load()))
	row("", "%10s  too late, not made: asked for again", grouped(t.Late.Load()))
	row("balances", "%10s  looked at, %.1f %% of them in memory", grouped(t.Looks.Load()), 100*stats.HitRate)
	row("books", "%10v  in the accounts: %s", s.Total, verdict(s.Total == s.PaidIn, "what was paid in", "NOT WHAT WAS PAID IN"))
	row("", "%10s  entries in the trail: %s", grouped(s.Entries), verdict(s.Apart == 0, "they add up to the balances", "THEY DO NOT ADD UP"))
	row("", "%10s  transfers entered twice", grouped(s.Repeated))
	b.WriteByte('\n')
	ids := make([]int64, min(shown, r.Clients.Accounts))
	for i := range ids {
		ids[i] = int64(i + 1)
	}
	accounts, err := r.Bank.accounts.GetMany(ctx, ids)
	if err != nil {
		return err
	}
	most := Cents(1)
	for _, a := range accounts {
		most = max(most, a.Balance)
	}
	for _, id := range ids {
		a := accounts[id]
		fmt.Fprintf(&b, "  %-11s%10v  %s\n", a.Owner, a.Balance, strings.Repeat("█", int(a.Balance*50/most)))
	}
	page := b.String()
	if r.height > 0 {
		page = fmt.Sprintf("\x1b[%dA\x1b[J", r.height) + page
	}
	r.height, r.away = strings.Count(page, "\n"), false
	_, err = io.WriteString(r.Out, page)
	return err
}

// Close is the last word, which anybody can check with the database's own shell.
func (r *Report) Close(s Statement, faults []string, copies, behind int) error {
	t := &r.Clients.tally
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s transfers. %s outcomes were unknown, and asked for again.", grouped(t.Made.Load()), grouped(t.Unknown.Load()))
	fmt.Fprintf(&b, "\nIn the books: %v in %d accounts, %s entries in the trail.\n", s.Total, s.Accounts, grouped(s.Entries))
	if fmt.Fprintf(&b, "In memory: %d accounts, ", copies); behind == 0 {
		fmt.Fprintln(&b, "all of them as in the books.")
	} else {
		fmt.Fprintf(&b, "%d of them behind what another program has written.\n", behind)
	}
	for _, f := range faults {
		fmt.Fprintln(&b, "WRONG:", f)
	}
	if len(faults) == 0 {
		fmt.Fprintln(&b, "The sum is what was paid in, the trail adds up to the balances, nothing was made twice.")
	}
	_, err := io.WriteString(r.Out, b.String())
	return err
}

func verdict(good bool, yes, no string) string {
	if good {
		return yes
	}
	return no
}

func inOrder(faults []string) string {
	return verdict(len(faults) == 0, "in order", "WRONG: "+strings.Join(faults, "; "))
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
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

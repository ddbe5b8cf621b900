package lockstep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
)

// The end of a transaction that does not travel in a batch, from when its outcome
// begins to matter to the caches that take part until it is known: of a joint one,
// which is ours, and of one that the program began and that caches have joined.

// stake is what one cache has in such a transaction, its types forgotten.
type stake interface {
	host() host
	// release makes the keys free. Memory keeps nothing of what was written, nothing
	// older than what was read, and after a conflict nothing of that.
	release(err error)
	// block makes the cache's own writes of these keys wait, until unblock. abandon,
	// before that, is for a doubt without an answer: they are dropped.
	block()
	abandon()
	unblock()
	leave()

	// The states of a write, for the hooks.
	unknown(err error)
	finished(err error, wasDoubted bool)
}

// host is what there is of a cache without its types.
type host struct {
	life, closing, commits context.Context
	limits                 *limits
	logger                 *slog.Logger
	counts                 *counters
	tasks                  *tasks
}

// ending is such a transaction.
type ending struct {
	verdict
	stakes  []stake
	lead    host // the first one's: its deadline, and its statistics, are the transaction's
	purpose purpose
	changes bool // false: it only checks what was read
	// ctx ends when the transaction is called off.
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	open []stake // those that want the outcome; guarded by mu
}

func newEnding(stakes []stake, purpose purpose) ending {
	return ending{
		stakes: stakes, open: slices.Clone(stakes), lead: stakes[0].host(), purpose: purpose, changes: true,
	}
}

// doubt answers the caller, who has left, or has waited for long enough. What has
// not been sent by now never will be, and is not applied, because of unsent.
func (e *ending) doubt(why, unsent error) {
	if !e.changes {
		// An unknown outcome of nothing is no unknown outcome.
		e.end(unsent)
		e.cancel()
		return
	}
	if e.callOff(unsent, func(bool) { e.report(unsent, false) }) {
		e.cancel()
		return
	}
	e.verdict.doubt(why, func(err error) {
		e.lead.counts.doubted()
		for _, p := range e.stakes {
			p.block()
			p.unknown(err)
		}
	})
}

// end makes the verdict final, and tells whether it had been in doubt.
func (e *ending) end(err error) (wasDoubted bool) {
	e.finish(0, err, func(doubted bool) {
		wasDoubted = doubted
		e.report(err, doubted)
	})
	return wasDoubted
}

// report counts the end, with the first of the caches, and tells it to all that
// are open.
func (e *ending) report(err error, wasDoubted bool) {
	e.lead.counts.ended(e.purpose, err, wasDoubted)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.open {
		p.finished(err, wasDoubted)
	}
}

func (e *ending) supervise() *supervision {
	others := make([]context.Context, 0, len(e.stakes)-1)
	for _, p := range e.stakes[1:] { // the first is the lead
		others = append(others, p.host().life)
	}
	s := e.lead.limits.supervise(e.ctx, others, e.doubt)
	s.endWithin(e.ctx)
	return s
}

// conclude ends the transaction, whose outcome is err.
func (e *ending) conclude(txn Txn, err error) {
	if !e.changes {
		err = certain(err)
	}
	if errors.Is(err, ErrUnknownOutcome) {
		e.doubt(err, err)
		err = e.settle(txn.Settle)
	}
	e.mu.Lock()
	open := slices.Clone(e.open)
	e.mu.Unlock()
	for _, p := range open {
		if errors.Is(err, errUnsettled) {
			p.abandon()
		}
		p.release(err)
	}
	doubted := e.end(err)
	for _, p := range open {
		if doubted {
			p.unblock()
		}
		p.leave()
	}
}

// certain is an error of a transaction that was never committed: whatever it
// says, nothing was applied.
func certain(err error) error {
	if errors.Is(err, ErrUnknownOutcome) {
		return fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	return err
}

// settle asks until it is answered, or until the last of the caches is closed, and
// returns what the outcome is then. A cache that is closed before is let go: its
// keys are nobody's any more, and those of the others are still in doubt.
func (e *ending) settle(ask func(context.Context) (applied bool, err error)) error {
	wanted, cancel := context.WithCancel(context.Background())
	defer cancel()
	letGo := func(p stake) func() {
		return func() {
			if e.letGo(p) {
				cancel()
			}
		}
	}
	var stops []func() bool
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for _, p := range e.stakes {
		stops = append(stops, context.AfterFunc(p.host().life, letGo(p)))
	}
	patience := patience{life: wanted, timeout: e.lead.limits.timeout, logger: e.lead.logger, hopeless: func() {
		for _, p := range e.stakes {
			stops = append(stops, context.AfterFunc(p.host().closing, letGo(p)))
		}
		<-wanted.Done()
	}}
	applied, lost := false, error(nil)
	err := patience.until(func(ctx context.Context) error {
		return aside("Settle", nil, func() (err error) {
			if applied, err = ask(ctx); errors.Is(err, ErrUnknownOutcome) {
				lost, err = err, nil // a Txn's word for "nobody will ever know"
			}
			return err
		})
	})
	switch {
	case err != nil:
		return err
	case lost != nil:
		return fmt.Errorf("%w: settled, but it cannot be told which way: %w", ErrUnknownOutcome, lost)
	case !applied:
		return fmt.Errorf("%w: the database did not commit it", ErrUnavailable)
	}
	return nil
}

// letGo ends the part of a cache that is closed while the outcome is unknown, and
// tells whether it is the last one: the transaction's goroutine ends that, so
// that it does not outlive its caches.
func (e *ending) letGo(p stake) (last bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.Index(e.open, p)
	if i < 0 || len(e.open) == 1 {
		return i == 0
	}
	e.open = slices.Delete(e.open, i, i+1)
	p.abandon()
	p.release(errUnsettled)
	p.finished(errUnsettled, true)
	p.unblock()
	p.leave()
	return false
}

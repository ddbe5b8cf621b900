package lockstep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lockstep-cache/lockstep/internal/commit"
)

const (
	firstSettleDelay = 20 * time.Millisecond
	lastSettleDelay  = 5 * time.Second
)

// errUnsettled is the final word on a write that the cache could not settle.
var errUnsettled = fmt.Errorf("%w: the cache was closed before the write was settled", ErrUnknownOutcome)

// settleBatch puts a batch whose outcome is unknown in doubt and settles it on a
// goroutine of its own, so that its place is free for batches on other keys. Its
// own keys stay busy, for readers and for writers, until the database has
// settled: a write that passed an earlier one in doubt could be undone by it.
//
// cause is an unknown outcome. It is not retried; the store says what became of
// it, and only after it has made sure that nothing more can.
func (c *Cache[K, V]) settleBatch(ops []*commit.Op[K, *write[K, V]], sets []ChangeSet[K, V], cause error) {
	var held []*commit.Op[K, *write[K, V]]
	for _, op := range ops {
		c.doubt(op.Item, cause)
		switch {
		case !op.Item.readsOnly():
			op.Hold()
			held = append(held, op)
		case op.Item.free != nil:
			c.release(op) // it was set aside, so no batch will
		}
	}
	c.inDoubt(func() {
		settlement, err := c.settle(cause, len(sets))
		for i, op := range ops {
			w := op.Item
			if w.readsOnly() {
				continue
			}
			// Others may have written meanwhile. Memory takes nothing from a
			// settlement; the next reader asks.
			c.publish(w, &Outcome[V]{}, 0)
			o := settled(settlement, &w.set, i, err)
			if o.Err == nil {
				c.observe(&w.set)
			}
			w.result = &o
			c.finish(w, o.Rows, o.Err)
		}
		for _, op := range held {
			if errors.Is(err, errUnsettled) {
				// Nobody has made sure that it cannot arrive any more.
				c.queue.Abandon(op.Keys, op.All)
			}
			c.release(op)
		}
	})
}

// settled is what set i's verdict is by a settlement, or by the error that took
// its place. A settlement whose outcomes are lost says that the transaction was
// committed, and not whether a set with conditions was left out of it.
func settled[K comparable, V any](s Settlement[V], set *ChangeSet[K, V], i int, err error) Outcome[V] {
	switch {
	case err != nil:
		return Outcome[V]{Err: err}
	case !s.Applied:
		return Outcome[V]{Err: fmt.Errorf("%w: the database did not commit it", ErrUnavailable)}
	case s.Outcomes != nil:
		return s.Outcomes[i]
	case conditional(set):
		return Outcome[V]{Err: fmt.Errorf("%w: settled, but it cannot be told whether the conditions held", ErrUnknownOutcome)}
	}
	return Outcome[V]{}
}

// conditional: the database may leave the set out for what its rows are.
func conditional[K comparable, V any](set *ChangeSet[K, V]) bool {
	return len(set.Checks) > 0 || slices.ContainsFunc(set.Changes, func(c Change[K, V]) bool {
		return c.Expect.Kind != ExpectAnything
	})
}

// inDoubt runs f, which ends a doubt, in the background.
func (c *Cache[K, V]) inDoubt(f func()) {
	if !c.tasks.begin() {
		// Close has given up. Its context is over, so f does not wait.
		f()
		return
	}
	go func() {
		defer c.tasks.end()
		f()
	}()
}

// settle asks the store until it has settled the commit. The error is
// ErrUnknownOutcome, and final.
func (c *Cache[K, V]) settle(cause error, sets int) (s Settlement[V], err error) {
	p := patience{life: c.life, timeout: c.options.CommitTimeout, logger: c.options.Logger, hopeless: func() { <-c.closing.Done() }}
	err = p.until(func(ctx context.Context) (err error) {
		s, err = c.askStore(ctx, cause, sets)
		return err
	})
	if err == nil && s.Err != nil {
		err = fmt.Errorf("%w: settled, but it cannot be told which way: %w", ErrUnknownOutcome, s.Err)
	}
	return s, err
}

// patience is how a doubt is waited for.
type patience struct {
	life    context.Context // ends when nobody wants the answer any more
	timeout time.Duration   // of one attempt
	logger  *slog.Logger
	// hopeless is called when nothing will ever settle it, and returns when nobody
	// wants the answer any more. The keys are read from the database until then.
	hopeless func()
}

// until asks, with back-off, until ask returns nil, or nobody wants the answer any
// more, which is errUnsettled. An error of ask's, whatever it wraps, says that it
// has not been answered.
func (p patience) until(ask func(context.Context) error) error {
	for delay := firstSettleDelay; ; delay = min(2*delay, lastSettleDelay) {
		if p.life.Err() != nil {
			return errUnsettled
		}
		ctx, cancel := context.WithTimeout(p.life, p.timeout)
		err := ask(ctx)
		cancel()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrUnsupported), errors.Is(err, ErrInvalid):
			p.logger.Error("lockstep: an unknown outcome cannot be settled", "error", err)
			p.hopeless()
			return errUnsettled
		}
		p.logger.Warn("lockstep: settling an unknown outcome failed, will try again", "error", err, "after", delay)
		timer := time.NewTimer(delay/2 + rand.N(delay/2))
		select {
		case <-timer.C:
		case <-p.life.Done():
			timer.Stop()
		}
	}
}

// askStore calls the store's Settle.
func (c *Cache[K, V]) askStore(ctx context.Context, cause error, sets int) (s Settlement[V], err error) {
	if c.can.Settle == nil {
		return s, fmt.Errorf("%w: store %q cannot settle", ErrUnsupported, c.can.Name)
	}
	err = aside("Settle", nil, func() (err error) {
		s, err = c.can.Settle(ctx, cause)
		return err
	})
	if err == nil && s.Applied && s.Outcomes != nil && len(s.Outcomes) != sets {
		err = fmt.Errorf("the store settled %d sets of %d", len(s.Outcomes), sets)
	}
	return s, err
}

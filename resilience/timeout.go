package resilience

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/events"
)

// Timeout returns a store whose calls have a deadline: Load and Commit, and Scan
// where the inner store has it. An error names the field of the policy that is at
// fault, and is lockstep.ErrInvalid.
//
// The deadline is set on the context of the call, and it is the inner store that
// returns, as every store does soon after its context has ended. What it then says
// holds: nil for a commit that went through after all, lockstep.ErrUnknownOutcome for
// one that was sent. An error by which nothing was done, as the end of the context
// before the commit was sent, is lockstep.ErrUnavailable from here on, and may be
// tried again. The call is not left behind on a goroutine: Settle must not be asked
// before the commit has returned.
//
// A store that cannot be interrupted, as an embedded database in the middle of a
// commit, returns when it is done (see lockstep.Patient).
//
// Transactions, from Begin to their end, have no deadline here: the context with
// which one is begun is its own until it ends. It is CommitTimeout's, or the
// program's.
//
// A call costs about 1 µs more than without.
func Timeout[K comparable, V any](store lockstep.Store[K, V], policy TimeoutPolicy) (lockstep.Store[K, V], error) {
	if err := refuseNil("Timeout", store); err != nil {
		return nil, err
	}
	policy, err := policy.normal()
	if err != nil {
		return nil, err
	}
	return surround(store, newTimer(policy)), nil
}

// Defaults of TimeoutPolicy.
const (
	DefaultReadTimeout  = 3 * time.Second
	DefaultWriteTimeout = 5 * time.Second
)

// TimeoutPolicy says how long a call may take. The zero value is patient: a commit
// that is cut off costs a connection and a settlement.
type TimeoutPolicy struct {
	// Read is for a Load, and for one page of a Scan. Zero means DefaultReadTimeout.
	Read time.Duration

	// Write is for a Commit. It bounds also how long a write waits for a row that
	// somebody else holds locked. With retries around, it should leave room for a
	// second attempt within lockstep.Options.CommitTimeout. Zero means
	// DefaultWriteTimeout.
	Write time.Duration

	// OnTimeout is told of each call that was cut off. See the package document for
	// hooks.
	OnTimeout func(TimeoutEvent)
}

// TimeoutEvent is a call that Timeout has cut off.
type TimeoutEvent struct {
	Operation Operation
	// Duration is how long it took, until the store returned.
	Duration time.Duration
	// Err is what the caller gets.
	Err error
}

// normal returns the policy with its defaults, or why it cannot be followed.
func (p TimeoutPolicy) normal() (TimeoutPolicy, error) {
	refuse := func(format string, args ...any) (TimeoutPolicy, error) {
		return p, fmt.Errorf("resilience: TimeoutPolicy.%s: %w", fmt.Sprintf(format, args...), lockstep.ErrInvalid)
	}
	switch {
	case p.Read < 0:
		return refuse("Read is %v, below zero", p.Read)
	case p.Write < 0:
		return refuse("Write is %v, below zero", p.Write)
	}
	if p.Read == 0 {
		p.Read = DefaultReadTimeout
	}
	if p.Write == 0 {
		p.Write = DefaultWriteTimeout
	}
	return p, nil
}

// timer is a part that sets deadlines.
type timer struct {
	read, write bound
	hook        func(TimeoutEvent)
	events      *events.Queue
	ended       atomic.Uint64
}

// bound is how long a call may take, and the cause of its context's end then.
type bound struct {
	after time.Duration
	cause error
}

func newTimer(p TimeoutPolicy) *timer {
	of := func(after time.Duration, field string) bound {
		return bound{after, fmt.Errorf("resilience: no answer within %v (TimeoutPolicy.%s): %w", after, field, context.DeadlineExceeded)}
	}
	return &timer{read: of(p.Read, "Read"), write: of(p.Write, "Write"), hook: p.OnTimeout, events: newEvents()}
}

// forAnother is a timer for another store.
func (t *timer) forAnother() *timer {
	return &timer{read: t.read, write: t.write, hook: t.hook, events: t.events}
}

func (t *timer) around(ctx context.Context, op Operation, call func(context.Context) error) error {
	bound := t.read
	switch op {
	case OpBegin:
		return call(ctx)
	case OpCommit:
		bound = t.write
	}
	began := time.Now()
	limited, cancel := context.WithTimeoutCause(ctx, bound.after, bound.cause)
	defer cancel()
	err := call(limited)
	if err == nil || context.Cause(limited) != bound.cause {
		return err
	}
	t.ended.Add(1)
	err = bound.unavailable(err)
	if t.hook != nil {
		e := TimeoutEvent{Operation: op, Duration: time.Since(began), Err: err}
		t.events.Push(func() { t.hook(e) })
	}
	return err
}

// unavailable is what an error means of a call that was cut off.
func (b bound) unavailable(err error) error {
	switch {
	case final(err):
		return err
	case errors.Is(err, b.cause):
		return fmt.Errorf("%w: %w", lockstep.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w: %w", lockstep.ErrUnavailable, b.cause, err)
}

func (t *timer) report(stats *lockstep.Stats) {
	stats.Timeouts += t.ended.Load()
	stats.HooksDropped += t.events.Dropped()
}

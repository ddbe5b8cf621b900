package resilience

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/events"
)

// Breaker returns a store that stops asking a database which does not answer. An
// error names the field of the policy that is at fault, and is lockstep.ErrInvalid.
//
// It has two circuits, one for what reads (Load, Scan) and one for what writes
// (Commit, Begin): a server that has become read-only, or a full disk, fails every
// commit and answers every read. Each circuit is closed while things go well, and
// opens after a number of failures in a row. An open one refuses its operations at once with lockstep.ErrUnavailable: they were
// not sent, so that a commit is never unknown for it. After OpenFor it is
// half-open and lets Probes operations through: when all of them succeed it is
// closed, and open again when one fails.
//
// What counts is whether the database answers. Nil is its answer, whatever became of
// the sets one by one, and so is a conflict. A failure is whatever is not permanent
// (see the package's three kinds), the end of a context by its deadline among it, if the
// call has lasted for MinWait, and
// a panic. Other refusals, which may have come from the store alone, and calls that
// were cancelled show neither, and do not count.
//
// Settle passes by and is never refused: the cache spaces it out by itself, and
// what is in doubt can be settled while the circuit is open. So do Watch and what
// happens inside a transaction that was begun.
//
// A database that hangs is seen when its calls end: put Timeout inside Breaker. A
// call costs about 0.4 µs more than without, under a lock that is never held while
// the database works. There is no goroutine and no timer.
func Breaker[K comparable, V any](store lockstep.Store[K, V], policy BreakerPolicy) (lockstep.Store[K, V], error) {
	if err := refuseNil("Breaker", store); err != nil {
		return nil, err
	}
	policy, err := policy.normal()
	if err != nil {
		return nil, err
	}
	return surround(store, newBreaker(policy)), nil
}

// Defaults of BreakerPolicy.
const (
	DefaultFailures = 5
	DefaultOpenFor  = 500 * time.Millisecond
	DefaultProbes   = 1
	DefaultMinWait  = 50 * time.Millisecond
)

// BreakerPolicy says when a circuit opens and for how long. The zero value is a
// sound choice: OpenFor is short enough for the retries of writes around the breaker to
// outlast it, and two probes a second are no load.
type BreakerPolicy struct {
	// Failures is how many calls, with no success between them, have to fail for a
	// circuit to open. Each attempt of Retry is a call. Zero means DefaultFailures.
	Failures int

	// OpenFor is how long an open circuit refuses everything. Zero means
	// DefaultOpenFor.
	OpenFor time.Duration

	// Probes is how many operations at most are under way in a half-open circuit, and
	// how many have to succeed for it to close. Zero means DefaultProbes.
	Probes int

	// MinWait is how long a call has to have lasted for its caller's deadline to count as
	// a failure: somebody who asks when his time is nearly over learns nothing of the
	// database. Callers who allow less than that do not open a circuit while the database
	// hangs. Zero means DefaultMinWait.
	MinWait time.Duration

	// OnChange is told of each change of a circuit's state. See the package document
	// for hooks. An open circuit becomes half-open with the next call, or when Stats
	// are asked for.
	OnChange func(BreakerEvent)
}

// BreakerEvent is a change of the state of one of a breaker's circuits.
type BreakerEvent struct {
	// Writes tells which circuit: that of what writes, or of what reads.
	Writes   bool
	From, To lockstep.BreakerState
}

// normal returns the policy with its defaults, or why it cannot be followed.
func (p BreakerPolicy) normal() (BreakerPolicy, error) {
	const most = 1_000_000
	refuse := func(format string, args ...any) (BreakerPolicy, error) {
		return p, fmt.Errorf("resilience: BreakerPolicy.%s: %w", fmt.Sprintf(format, args...), lockstep.ErrInvalid)
	}
	switch {
	case p.Failures < 0 || p.Failures > most:
		return refuse("Failures is %d, not between 0 and %d", p.Failures, most)
	case p.OpenFor < 0:
		return refuse("OpenFor is %v, below zero", p.OpenFor)
	case p.Probes < 0 || p.Probes > most:
		return refuse("Probes is %d, not between 0 and %d", p.Probes, most)
	case p.MinWait < 0:
		return refuse("MinWait is %v, below zero", p.MinWait)
	}
	if p.Failures == 0 {
		p.Failures = DefaultFailures
	}
	if p.OpenFor == 0 {
		p.OpenFor = DefaultOpenFor
	}
	if p.Probes == 0 {
		p.Probes = DefaultProbes
	}
	if p.MinWait == 0 {
		p.MinWait = DefaultMinWait
	}
	return p, nil
}

// breaker is a part with a circuit for each of two kinds of operations.
type breaker struct {
	*circuits
	refused atomic.Uint64
}

// circuits may be those of several stores.
type circuits struct {
	reads, writes *gobreaker.TwoStepCircuitBreaker[any]
	minWait       time.Duration
	events        *events.Queue
	changes       atomic.Uint64
}

// forAnother is a breaker of another store's, with the same circuits.
func (b *breaker) forAnother() *breaker { return &breaker{circuits: b.circuits} }

func newBreaker(p BreakerPolicy) *breaker {
	b := &circuits{minWait: p.MinWait, events: newEvents()}
	circuit := func(name string, writes bool) *gobreaker.TwoStepCircuitBreaker[any] {
		return gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
			Name:        name,
			MaxRequests: uint32(p.Probes),
			Timeout:     p.OpenFor,
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= uint32(p.Failures) },
			// Called with the circuit's lock held, and so in order.
			OnStateChange: func(_ string, from, to gobreaker.State) {
				b.changes.Add(1)
				if hook := p.OnChange; hook != nil {
					e := BreakerEvent{Writes: writes, From: stateOf(from), To: stateOf(to)}
					b.events.Push(func() { hook(e) })
				}
			},
			IsExcluded: func(err error) bool { return errors.Is(err, errNoSign) },
		})
	}
	b.reads, b.writes = circuit("reads", false), circuit("writes", true)
	return &breaker{circuits: b}
}

func (b *breaker) circuit(op Operation) *gobreaker.TwoStepCircuitBreaker[any] {
	if op.writes() {
		return b.writes
	}
	return b.reads
}

func (b *breaker) around(ctx context.Context, op Operation, call func(context.Context) error) error {
	circuit := b.circuit(op)
	done, err := circuit.Allow()
	if err != nil {
		b.refused.Add(1)
		return fmt.Errorf("resilience: the breaker refuses %s: the circuit of %s is open: %w", op, circuit.Name(), errOpen)
	}
	// Deferred, and a failure unless the call returns: a panic, or a call that ends
	// its goroutine, would keep a half-open circuit's place for good.
	seen := errExited
	defer func() { done(seen) }()
	began := time.Now()
	err = call(ctx)
	seen = sign(ctx, err, time.Since(began) >= b.minWait)
	return err
}

func (b *breaker) report(stats *lockstep.Stats) {
	// The states first: to ask for one may change it.
	stats.ReadBreaker = max(stats.ReadBreaker, state(b.reads))
	stats.WriteBreaker = max(stats.WriteBreaker, state(b.writes))
	stats.BreakerRefusals += b.refused.Load()
	stats.BreakerChanges += b.changes.Load()
	stats.HooksDropped += b.events.Dropped()
}

func state(circuit *gobreaker.TwoStepCircuitBreaker[any]) lockstep.BreakerState {
	return stateOf(circuit.State())
}

func stateOf(s gobreaker.State) lockstep.BreakerState {
	switch s {
	case gobreaker.StateOpen:
		return lockstep.BreakerOpen
	case gobreaker.StateHalfOpen:
		return lockstep.BreakerHalfOpen
	}
	return lockstep.BreakerClosed
}

// errOpen is what an open circuit refuses with.
var errOpen = fmt.Errorf("%w", lockstep.ErrUnavailable)

var (
	// errNoSign stands for an end of a call that says nothing of the database.
	errNoSign = errors.New("resilience: no sign of the database")
	errExited = errors.New("resilience: the call has not returned")
)

// sign is what the end of a call says of the database: nil that it answers, an
// error that it does not, errNoSign neither.
//
// A context that was cancelled is somebody's change of mind; one whose deadline has
// passed was waited for, if it was for long enough. The cache cancels the context of a
// load, or of a commit that it makes for one caller, when the deadline of who waits has
// passed, and the cause tells.
func sign(ctx context.Context, err error, waited bool) error {
	switch {
	case err == nil, errors.Is(err, lockstep.ErrConflict) && !errors.Is(err, lockstep.ErrUnknownOutcome):
		return nil
	case ctx.Err() != nil && !(waited && overdue(ctx)):
		return errNoSign
	case errors.Is(err, lockstep.ErrUnknownOutcome):
		return err
	case final(err), errors.Is(err, lockstep.ErrWouldWait),
		errors.Is(err, context.Canceled) && !errors.Is(err, lockstep.ErrUnavailable) && ctx.Err() == nil:
		return errNoSign
	}
	return err
}

// overdue tells whether a context that has ended was ended by a deadline.
func overdue(ctx context.Context) bool {
	return errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(context.Cause(ctx), context.DeadlineExceeded)
}

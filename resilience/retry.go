package resilience

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/events"
)

// Retry returns a store that tries again what fails in passing (see the
// package's three kinds of error): Load and Commit, and Begin and Scan where
// the inner store has them. An error names the field of the policy that is at
// fault, and is lockstep.ErrInvalid.
//
// What reads, and is refused by the open circuit of a Breaker inside, is not tried again
// unless RetryRefusedReads says so. A commit is: it waits out a short outage.
//
// Nothing is tried again once the context has ended, and a wait ends with it:
// the last error is then joined with the context's. After the last attempt its
// error is returned, with the number of attempts; whatever is not passing is
// returned as it is, at once. A panic in the inner store passes through.
//
// Sets that a commit leaves out on their own, with an Outcome.Err, are never
// tried again here, also when that is ErrUnavailable. The rest of their batch is
// committed by then and waits to be acknowledged; and a set made again after its
// batch could overtake a later set that names the same key. Their writers get the
// error, and decide. Nor are Settle and Apply tried again:
// the cache repeats the first by itself, and what an Apply that failed has done
// to its transaction only a roll-back puts right.
//
// Of a store that is Immediate, a hasty commit that fails in passing answers
// lockstep.ErrWouldWait, as nothing was sent, and the cache makes it again where it
// may wait.
//
// Calls of the inner store count as Attempts in the cache's statistics, those after
// the first as Retries, calls
// that failed in passing and were given up as RetryFailures, those of them for which
// Budget had nothing left as RetriesDenied. A call that
// succeeds at once costs about 0.2 µs more than without, and no wait holds a
// goroutine or a timer beyond the call.
func Retry[K comparable, V any](store lockstep.Store[K, V], policy RetryPolicy) (lockstep.Store[K, V], error) {
	if err := refuseNil("Retry", store); err != nil {
		return nil, err
	}
	policy, err := policy.normal()
	if err != nil {
		return nil, err
	}
	return surround(store, newRetrier(policy)), nil
}

// retrier follows one policy, for any number of calls at once.
type retrier struct {
	policy RetryPolicy
	// executor counts the attempts and waits between them. Its result is when the
	// first attempt began.
	executor failsafe.Executor[time.Time]
	budget   *bucket
	events   *events.Queue

	attempts, retries, failures, denied atomic.Uint64
}

func newRetrier(policy RetryPolicy) *retrier {
	return &retrier{policy: policy, budget: newBucket(policy.Budget), events: newEvents(), executor: failsafe.With[time.Time](retrypolicy.NewBuilder[time.Time]().
		WithMaxAttempts(policy.MaxAttempts).
		WithDelayFunc(func(exec failsafe.ExecutionAttempt[time.Time]) time.Duration {
			return policy.wait(exec.Retries(), time.Since(exec.LastResult()))
		}).
		Build())}
}

// forAnother is a retrier of another store's, with the same budget.
func (r *retrier) forAnother() *retrier {
	return &retrier{policy: r.policy, executor: r.executor, budget: r.budget, events: r.events}
}

func (r *retrier) report(stats *lockstep.Stats) {
	stats.Attempts += r.attempts.Load()
	stats.Retries += r.retries.Load()
	stats.RetryFailures += r.failures.Load()
	stats.RetriesDenied += r.denied.Load()
	stats.HooksDropped += r.events.Dropped()
}

// around calls until that succeeds, fails in a way that does not pass, or the
// policy or the context has had enough. The executor, which costs a fifth of a
// point read on SQLite, is left alone until an attempt has failed.
func (r *retrier) around(ctx context.Context, op Operation, call func(context.Context) error) error {
	start := time.Now()
	err := r.attempt(ctx, op, 1, call)
	if err == nil {
		r.budget.succeeded()
		return nil
	}
	if !op.passing(err) {
		return err
	}
	if lockstep.Hasty(ctx) && r.policy.MaxAttempts > 1 && ctx.Err() == nil && r.budget.take() {
		// A wait is what the caller will not have. It makes the commit again at once,
		// from where it may wait, so that this attempt is one more than MaxAttempts.
		r.retries.Add(1)
		return lockstep.ErrWouldWait
	}
	return r.again(ctx, op, start, err, call)
}

// again goes on after a first attempt that failed in passing with err.
//
// What the call returns is decided here. The executor's own answer is not used,
// for it reports an attempt that succeeded just as the context ended as
// cancelled, and a commit that the database has acknowledged would be taken for
// one that never happened. Nor is its bound on the elapsed time, which lets
// attempts follow each other without a wait as long as the clock stands at the
// bound, as a clock in a test does. Nor is its budget, which goes by the calls that
// are under way: a cache has few of those, each with much in it.
func (r *retrier) again(ctx context.Context, op Operation, start time.Time, err error, call func(context.Context) error) error {
	attempts, granted, denied := 0, 0, false
	_, _ = r.executor.WithContext(ctx).Get(func() (time.Time, error) {
		if attempts++; attempts > 1 {
			r.retries.Add(1)
			err = r.attempt(ctx, op, attempts, call)
		}
		late := r.policy.MaxElapsed > 0 && time.Since(start) >= r.policy.MaxElapsed
		if err == nil || late || r.futile(op, err) || !op.passing(err) || attempts == r.policy.MaxAttempts || ctx.Err() != nil {
			return start, nil
		}
		if !r.budget.take() {
			denied = true
			return start, nil
		}
		granted++
		return start, err
	})
	if unused := granted - max(0, attempts-1); unused > 0 { // the context ended in the wait
		r.budget.put(int64(unused) * aRetry)
	}
	if err == nil {
		r.budget.succeeded()
		return nil
	}
	if !op.passing(err) {
		return err
	}
	r.failures.Add(1)
	switch {
	case denied:
		r.denied.Add(1)
		err = fmt.Errorf("resilience: %d attempts, and the retry budget is spent: %w", attempts, err)
	case attempts > 1:
		err = fmt.Errorf("resilience: %d attempts: %w", attempts, err)
	}
	err = withEnd(ctx, err)
	if hook := r.policy.OnGiveUp; hook != nil {
		e := GiveUpEvent{Operation: op, Attempts: max(1, attempts), BudgetSpent: denied, Err: err}
		r.events.Push(func() { hook(e) })
	}
	return err
}

// futile tells whether an attempt that a breaker has refused is not made again.
func (r *retrier) futile(op Operation, err error) bool {
	return !op.writes() && !r.policy.RetryRefusedReads && errors.Is(err, errOpen)
}

// attempt makes the call once. A hasty commit that would have to wait is no attempt.
func (r *retrier) attempt(ctx context.Context, op Operation, number int, call func(context.Context) error) error {
	hook := r.policy.OnAttempt
	var began time.Time
	if hook != nil {
		began = time.Now()
	}
	err := call(ctx)
	if err != nil && errors.Is(err, lockstep.ErrWouldWait) {
		return err
	}
	r.attempts.Add(1)
	if hook != nil {
		e := AttemptEvent{Operation: op, Attempt: number, Duration: time.Since(began), Err: err}
		r.events.Push(func() { hook(e) })
	}
	return err
}

// withEnd joins an error with the context's, if that has ended.
func withEnd(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		err = errors.Join(err, ended)
		if cause := context.Cause(ctx); !errors.Is(ended, cause) {
			err = errors.Join(err, foreign(cause))
		}
	}
	return err
}

// foreign is the cause for which a context has ended, without what it means to a
// cache: one that is the cache's error is another call's, as errgroup has it, and
// says nothing about this one.
func foreign(cause error) error {
	for _, e := range []error{
		lockstep.ErrNotFound, lockstep.ErrConflict, lockstep.ErrInvalid, lockstep.ErrTooLarge, lockstep.ErrUnavailable,
		lockstep.ErrUnknownOutcome, lockstep.ErrUnsupported, lockstep.ErrInTransaction, lockstep.ErrClosed, lockstep.Keep,
	} {
		if errors.Is(cause, e) {
			return errors.New(cause.Error())
		}
	}
	return cause
}

package resilience

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Defaults of RetryPolicy. Together they give a database 3.3 seconds at most,
// and 1.6 on average, to come back.
const (
	DefaultMaxAttempts = 10
	DefaultBaseDelay   = 10 * time.Millisecond
	DefaultMaxDelay    = time.Second
)

// RetryPolicy says how often and how long something is tried again. The zero
// value is a sound choice beside lockstep's own time-outs.
//
// The wait before the n-th retry is random, evenly between 0 and BaseDelay·2ⁿ⁻¹,
// at most MaxDelay: exponential back-off with full jitter, after Marc Brooker,
// "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015). Jitter around
// a fixed delay would be gentler to the one caller and harder on the database,
// for callers that failed together would come back together.
type RetryPolicy struct {
	// MaxAttempts bounds the number of attempts, the first among them; 1 means no
	// retries. Zero means DefaultMaxAttempts.
	MaxAttempts int

	// BaseDelay is the longest that the first wait can be. Zero means
	// DefaultBaseDelay, or MaxDelay if that is shorter.
	BaseDelay time.Duration

	// MaxDelay is the longest that any wait can be. Zero means DefaultMaxDelay, or
	// BaseDelay if that is longer.
	MaxDelay time.Duration

	// MaxElapsed is how long after the first attempt began the last one may
	// begin. A wait that would be longer is cut short for it. Zero means that only
	// MaxAttempts and the context set a limit. A commit's context ends after
	// lockstep.Options.CommitTimeout in any case.
	MaxElapsed time.Duration

	// RetryRefusedReads has reads that an open breaker refuses tried again, as writes
	// are. Without it they fail at once: whoever reads can ask again, or do with a copy
	// that has expired (lockstep.Options.StaleIfError), and sooner than the circuit
	// closes.
	RetryRefusedReads bool

	// Budget bounds the retries of all calls together.
	Budget RetryBudget

	// OnAttempt is told of each attempt, the first among them. See the package
	// document for hooks.
	OnAttempt func(AttemptEvent)
	// OnGiveUp is told of a call that failed in passing and is not tried again.
	OnGiveUp func(GiveUpEvent)
}

// AttemptEvent is one attempt under Retry.
type AttemptEvent struct {
	Operation Operation
	// Attempt is its number, from 1. After a hasty commit that failed the cache begins
	// anew.
	Attempt  int
	Duration time.Duration
	// Err is what the attempt returned.
	Err error
}

// GiveUpEvent is the end of a call under Retry that failed in passing.
type GiveUpEvent struct {
	Operation Operation
	Attempts  int
	// BudgetSpent: it would have been tried again, but for the budget.
	BudgetSpent bool
	// Err is what the caller gets.
	Err error
}

// normal returns the policy with its defaults, or why it cannot be followed.
func (p RetryPolicy) normal() (RetryPolicy, error) {
	refuse := func(format string, args ...any) (RetryPolicy, error) {
		return p, fmt.Errorf("resilience: RetryPolicy.%s: %w", fmt.Sprintf(format, args...), lockstep.ErrInvalid)
	}
	switch {
	case p.MaxAttempts < 0:
		return refuse("MaxAttempts is %d, below zero", p.MaxAttempts)
	case p.BaseDelay < 0:
		return refuse("BaseDelay is %v, below zero", p.BaseDelay)
	case p.MaxDelay < 0:
		return refuse("MaxDelay is %v, below zero", p.MaxDelay)
	case p.MaxElapsed < 0:
		return refuse("MaxElapsed is %v, below zero", p.MaxElapsed)
	case p.Budget.Reserve < 0:
		return refuse("Budget.Reserve is %d, below zero", p.Budget.Reserve)
	case p.Budget.Reserve > mostReserve:
		return refuse("Budget.Reserve is %d, above %d", p.Budget.Reserve, mostReserve)
	case !(p.Budget.PerSuccess >= 0 && p.Budget.PerSuccess <= 1): // so is NaN
		return refuse("Budget.PerSuccess is %v, not between 0 and 1", p.Budget.PerSuccess)
	case p.MaxDelay > 0 && p.BaseDelay > p.MaxDelay:
		return refuse("BaseDelay is %v, longer than MaxDelay, %v", p.BaseDelay, p.MaxDelay)
	}
	if p.MaxAttempts == 0 {
		p.MaxAttempts = DefaultMaxAttempts
	}
	if p.Budget.Reserve == 0 {
		p.Budget.Reserve = DefaultReserve
	}
	if p.Budget.PerSuccess == 0 {
		p.Budget.PerSuccess = DefaultPerSuccess
	}
	switch {
	case p.BaseDelay == 0 && p.MaxDelay == 0:
		p.BaseDelay, p.MaxDelay = DefaultBaseDelay, DefaultMaxDelay
	case p.BaseDelay == 0:
		p.BaseDelay = min(DefaultBaseDelay, p.MaxDelay)
	case p.MaxDelay == 0:
		p.MaxDelay = max(DefaultMaxDelay, p.BaseDelay)
	}
	return p, nil
}

// longest is the longest wait after so many retries.
func (p RetryPolicy) longest(retries int) time.Duration {
	d := p.BaseDelay
	for range retries {
		if d > p.MaxDelay/2 { // doubling would pass the bound, or overflow
			return p.MaxDelay
		}
		d *= 2
	}
	return d
}

// wait draws the wait after so many retries, elapsed after the first attempt
// began.
func (p RetryPolicy) wait(retries int, elapsed time.Duration) time.Duration {
	d := time.Duration(rand.Int64N(int64(p.longest(retries)))) + 1
	if p.MaxElapsed > 0 {
		d = min(d, max(0, p.MaxElapsed-elapsed))
	}
	return d
}

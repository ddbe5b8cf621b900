package resilience

import (
	"fmt"

	"github.com/lockstep-cache/lockstep"
)

// Policy is what all the parts do. The zero value is a sound choice.
type Policy struct {
	Retry   RetryPolicy
	Limit   LimitPolicy
	Breaker BreakerPolicy
	Timeout TimeoutPolicy
}

// Protect returns the store with all the parts around it: Retry outermost, then Limit,
// Breaker and Timeout, in the order that the package document draws. An error names the
// policy and its field that are at fault, and is lockstep.ErrInvalid.
//
// Each store has circuits, a budget and places of its own, also where several are
// tables of one database: a Guard is for those.
//
// A call costs about 2 µs more than without.
func Protect[K comparable, V any](store lockstep.Store[K, V], policy Policy) (lockstep.Store[K, V], error) {
	if err := refuseNil("Protect", store); err != nil {
		return nil, err
	}
	guard, err := NewGuard(policy)
	if err != nil {
		return nil, err
	}
	return ProtectWith(store, guard)
}

// Guard is what the stores of one database share: the circuits that the failures of all
// of them open, the budget that their retries spend, and the places that their calls
// take. It may be used from many goroutines at once, and has nothing to close.
type Guard struct {
	retry   *retrier
	limit   *limiter
	breaker *breaker
	timeout *timer
}

// NewGuard returns a Guard that follows the policy. An error names the policy and its
// field that are at fault, and is lockstep.ErrInvalid.
func NewGuard(policy Policy) (*Guard, error) {
	retry, err := policy.Retry.normal()
	if err != nil {
		return nil, err
	}
	limit, err := policy.Limit.normal()
	if err != nil {
		return nil, err
	}
	breaker, err := policy.Breaker.normal()
	if err != nil {
		return nil, err
	}
	timeout, err := policy.Timeout.normal()
	if err != nil {
		return nil, err
	}
	// The default gives way; a wait that somebody has asked for does not.
	if least := min(timeout.Read, timeout.Write); policy.Breaker.MinWait >= least {
		return nil, fmt.Errorf("resilience: BreakerPolicy.MinWait is %v, and no call lasts longer than %v (TimeoutPolicy.Read, TimeoutPolicy.Write): %w",
			policy.Breaker.MinWait, least, lockstep.ErrInvalid)
	}
	return &Guard{newRetrier(retry), newLimiter(limit), newBreaker(breaker), newTimer(timeout)}, nil
}

// ProtectWith is Protect for one of the stores of a database, with what they share. An
// error is lockstep.ErrInvalid: there is no store, or no guard.
//
// The statistics of each cache count the calls of its own store. BreakerChanges and the
// states of the circuits are the guard's, and so is what HooksDropped has of its hooks:
// each cache shows them, and they must not be added up.
//
// A store that reads other caches of the same guard while it loads takes a place for
// each of them.
func ProtectWith[K comparable, V any](store lockstep.Store[K, V], guard *Guard) (lockstep.Store[K, V], error) {
	if err := refuseNil("ProtectWith", store); err != nil {
		return nil, err
	}
	if guard == nil {
		return nil, fmt.Errorf("resilience: ProtectWith: the guard is nil: %w", lockstep.ErrInvalid)
	}
	store = surround(store, guard.timeout.forAnother())
	store = surround(store, guard.breaker.forAnother())
	store = surround(store, guard.limit.forAnother())
	return surround(store, guard.retry.forAnother()), nil
}

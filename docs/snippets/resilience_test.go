package snippets

import (
	"context"
	"errors"
	"log"
	"testing"
	"testing/synctest"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func protected(store lockstep.Store[string, User]) (*lockstep.Cache[string, User], error) {
	patient, err := resilience.Protect(store, resilience.Policy{
		Limit: resilience.LimitPolicy{MaxCalls: 20}, // as many as the pool has connections
		Breaker: resilience.BreakerPolicy{
			OnChange: func(e resilience.BreakerEvent) { log.Printf("writes: %t: %s", e.Writes, e.To) },
		},
	})
	if err != nil {
		return nil, err
	}
	return lockstep.New(patient, lockstep.Options[string, User]{})
}

func protectedPair(users lockstep.Store[string, User], sessions lockstep.Store[string, Session]) (
	lockstep.Store[string, User], lockstep.Store[string, Session], error) {
	guard, err := resilience.NewGuard(resilience.Policy{})
	if err != nil {
		return nil, nil, err
	}
	u, err := resilience.ProtectWith(users, guard)
	if err != nil {
		return nil, nil, err
	}
	s, err := resilience.ProtectWith(sessions, guard)
	return u, s, err
}

func TestProtect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := fault.Inject(memstore.New(memstore.Options[string, User]{}), fault.MustParse("commit 1..3: fail; commit 4: lose reply"), 1)
		users, err := protected(store)
		check(t, err)
		defer users.Close(ctx)
		_, err = users.Set(ctx, "ada", User{Name: "Ada"}) // three attempts fail; the reply of the fourth is lost
		equal(t, errors.Is(err, lockstep.ErrUnknownOutcome), true)
		equal(t, store.Counts().Commits, 4) // and no fifth
		equal(t, users.Stats().Retries, 3)
		check(t, patiently(ctx, store))
	})
	u, s, err := protectedPair(memstore.New(memstore.Options[string, User]{}), memstore.New(memstore.Options[string, Session]{}))
	check(t, err)
	open(t, u, lockstep.Options[string, User]{})
	open(t, s, lockstep.Options[string, Session]{})
}

func patiently(ctx context.Context, store lockstep.Store[string, User]) error {
	patient, err := resilience.Retry(store, resilience.RetryPolicy{MaxAttempts: 5})
	if err != nil {
		return err
	}
	_, err = patient.Load(ctx, []string{"ada"})
	return err
}

package resilience_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Another call of an errgroup has found nothing, which ends this one's context.
func TestRetryDoesNotPassAnotherCallsErrorOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := fault.Inject(memstore.New(memstore.Options[string, int]{}), fault.MustParse("scan *: fail"), 1)
		store, err := resilience.Retry(lockstep.Store[string, int](inner), resilience.RetryPolicy{})
		if err != nil {
			t.Fatal(err)
		}
		c := cachetest.Open(t, store, lockstep.Options[string, int]{})
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { time.Sleep(time.Millisecond); cancel(lockstep.ErrNotFound) }()
		for _, err := range c.Scan(ctx) {
			if errors.Is(err, lockstep.ErrNotFound) {
				t.Errorf("Scan says ErrNotFound, which belongs to another call: %v", err)
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Scan does not say context.Canceled: %v", err)
			}
		}
	})
}

func TestRetryOfANilInAnInterface(t *testing.T) {
	var none *memstore.Store[string, int]
	if _, err := resilience.Retry[string, int](none, resilience.RetryPolicy{}); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("Retry of nil: %v", err)
	}
}

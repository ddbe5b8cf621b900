package lockstep_test

import (
	"context"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Transactions of one cache.

// Nothing has been sent, and nothing need be.
func TestATransactionWhoseContextEndedInItsFunctionIsCommitted(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.script("commit *: latency 1ms")
		ctx, cancel := context.WithCancel(s.ctx)
		err := lockstep.Transact(ctx, func(_ context.Context, tx *lockstep.Tx) error {
			cancel()
			return s.In(tx).Set(s.ctx, "k", 1)
		})
		s.notApplied(err, context.Canceled)
		time.Sleep(time.Minute)
		s.notStored("k")
	})
}

package resilience

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/events"
	"github.com/lockstep-cache/lockstep/internal/nils"
)

// Operation names a call of a store that the parts of this package surround.
type Operation string

// The operations. Whatever else a store can do passes by: Settle, which ends a
// doubt and must never be refused or left waiting; Watch, which the cache calls
// again by itself; and what happens inside a transaction, where to refuse or to
// wait would keep the locks of those that are made already.
const (
	OpLoad   Operation = "load"
	OpScan   Operation = "scan"
	OpCommit Operation = "commit"
	OpBegin  Operation = "begin"
)

// writes tells whether the operation is on the way to a change. A transaction
// that was not begun has changed nothing, but whoever begins one wants to.
func (op Operation) writes() bool { return op == OpCommit || op == OpBegin }

// part is what surrounds the operations of a store.
type part interface {
	// around makes the call, some number of times or never, and returns the error
	// of the operation: nil where the last call returned nil, unknown where that was
	// unknown, and neither where it was not, or where no call was made.
	around(ctx context.Context, op Operation, call func(context.Context) error) error
	// report adds the part's counters. It adds, and does not set: there may be a
	// part of the same kind further in.
	report(*lockstep.Stats)
}

// surround returns the store with the part around it.
func surround[K comparable, V any](inner lockstep.Store[K, V], p part) lockstep.Store[K, V] {
	s := &store[K, V]{inner: inner, part: p}
	s.capabilities = s.wrap(inner.Capabilities())
	return s
}

// newEvents returns the queue of a part's hooks.
func newEvents() *events.Queue { return events.New(slog.Default()) }

// refuseNil is for the parts' constructors.
func refuseNil[K comparable, V any](function string, inner lockstep.Store[K, V]) error {
	if nils.Is(inner) {
		return fmt.Errorf("resilience: %s: the store is nil: %w", function, lockstep.ErrInvalid)
	}
	return nil
}

// store is a Store with a part around it. It wraps no Txn, so that Database stays
// the inner store's, and caches with different parts around one database's stores
// change rows in one transaction.
type store[K comparable, V any] struct {
	inner        lockstep.Store[K, V]
	part         part
	capabilities lockstep.Capabilities[K, V]
}

func (s *store[K, V]) Load(ctx context.Context, keys []K) (rows map[K]lockstep.Row[V], err error) {
	err = s.part.around(ctx, OpLoad, func(ctx context.Context) (err error) {
		rows, err = s.inner.Load(ctx, keys)
		return err
	})
	return rows, err
}

func (s *store[K, V]) Commit(ctx context.Context, sets []lockstep.ChangeSet[K, V]) (outcomes []lockstep.Outcome[V], err error) {
	err = s.part.around(ctx, OpCommit, func(ctx context.Context) (err error) {
		outcomes, err = s.inner.Commit(ctx, sets)
		return err
	})
	return outcomes, err
}

func (s *store[K, V]) Capabilities() lockstep.Capabilities[K, V] { return s.capabilities }

func (s *store[K, V]) wrap(c lockstep.Capabilities[K, V]) lockstep.Capabilities[K, V] {
	if begin := c.Begin; begin != nil {
		c.Begin = func(ctx context.Context) (txn lockstep.Txn, err error) {
			err = s.part.around(ctx, OpBegin, func(ctx context.Context) (err error) {
				txn, err = begin(ctx)
				return err
			})
			return txn, err
		}
	}
	if scan := c.Scan; scan != nil {
		c.Scan = func(ctx context.Context, cursor any, limit int) (page lockstep.Page[K, V], err error) {
			err = s.part.around(ctx, OpScan, func(ctx context.Context) (err error) {
				page, err = scan(ctx, cursor, limit)
				return err
			})
			return page, err
		}
	}
	report := c.Report
	c.Report = func(stats *lockstep.Stats) {
		if report != nil {
			report(stats)
		}
		s.part.report(stats)
	}
	return c
}

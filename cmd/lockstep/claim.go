package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// A server that answers from memory has to be the only writer of its table, unless the
// table is watched. So it claims the table, by a lock that the database, or the operating
// system, takes away from a program that is dead. A second server is refused when it
// starts. One that loses its claim, with the session that had it, writes nothing until it
// has it again. As long as it does not reach the database, memory answers, as in every
// outage. When it finds that another one has the table, its reads ask the database.

// claim is a lock that this program has.
type claim interface {
	// hold returns when the lock is lost, and says why, or when ctx ends.
	hold(ctx context.Context) error
	release()
}

// errClaimed says that another program has the lock.
var errClaimed = fmt.Errorf("%w: another server serves this table, and would not hear of this one's writes; only one may, unless the table is watched (lockstep watch)", lockstep.ErrUnavailable)

// claimPatience is how long the lock of a program that has just died is waited for; tests
// do not wait.
var claimPatience = 5 * time.Second

const (
	// claimRetry is how long to wait before it is tried again, and claimCheck how often a
	// server is asked whether a session is still there; claimTimeout is how long it may
	// take to answer.
	claimRetry, claimCheck, claimTimeout = 100 * time.Millisecond, time.Second, 5 * time.Second
)

// claimed is a store over a table that is claimed.
type claimed[K comparable, V any] struct {
	lockstep.Store[K, V]
	take   func(ctx context.Context) (claim, error)
	logger *slog.Logger
	held   atomic.Bool

	mu    sync.Mutex
	first claim // taken before the store was used, and not held yet
}

// claimTable claims the table of a store, which is returned as it is where the table is
// watched. release is for a store that was never given to a cache.
func claimTable[K comparable, V any](ctx context.Context, store lockstep.Store[K, V], take func(ctx context.Context) (claim, error), logger *slog.Logger) (_ lockstep.Store[K, V], release func(), err error) {
	if store.Capabilities().Watch != nil {
		return store, func() {}, nil
	}
	s := &claimed[K, V]{Store: store, take: take, logger: logger}
	for deadline := time.Now().Add(claimPatience); ; {
		s.first, err = take(ctx)
		if err == nil {
			break
		}
		if !errors.Is(err, errClaimed) || time.Now().After(deadline) {
			return nil, nil, err
		}
		select {
		case <-time.After(claimRetry):
		case <-ctx.Done():
			return nil, nil, err
		}
	}
	if _, never := s.first.(unclaimable); never {
		logger.Warn("behind a pooler a table cannot be claimed: nobody will notice another server that serves it")
	}
	s.held.Store(true)
	return s, func() {
		if first := s.takeFirst(); first != nil {
			first.release()
		}
	}, nil
}

// holds tells whether the table is this server's.
func (s *claimed[K, V]) holds() bool { return s.held.Load() }

func (s *claimed[K, V]) takeFirst() claim {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.first
	s.first = nil
	return first
}

// errUnclaimed is what a write is told meanwhile.
var errUnclaimed = fmt.Errorf("%w: this server has lost its claim to the table, which another one may serve, and writes nothing until it has it again", lockstep.ErrUnavailable)

func (s *claimed[K, V]) Commit(ctx context.Context, sets []lockstep.ChangeSet[K, V]) ([]lockstep.Outcome[V], error) {
	if !s.held.Load() {
		return nil, errUnclaimed
	}
	return s.Store.Commit(ctx, sets)
}

// Capabilities has the claim in the place of a watch, of which the cache asks the same: as
// long as it lasts, memory may answer.
func (s *claimed[K, V]) Capabilities() lockstep.Capabilities[K, V] {
	c := s.Store.Capabilities()
	c.Watch = s.watch
	if begin := c.Begin; begin != nil {
		c.Begin = func(ctx context.Context) (lockstep.Txn, error) {
			if !s.held.Load() {
				return nil, errUnclaimed
			}
			return begin(ctx)
		}
	}
	// A transaction of several tables is begun by any of their stores.
	if apply := c.Apply; apply != nil {
		c.Apply = func(ctx context.Context, txn lockstep.Txn, set lockstep.ChangeSet[K, V]) (lockstep.Outcome[V], error) {
			if !s.held.Load() {
				return lockstep.Outcome[V]{}, errUnclaimed
			}
			return apply(ctx, txn, set)
		}
	}
	return c
}

// watch returns when another server has the table, or when ctx ends.
func (s *claimed[K, V]) watch(ctx context.Context, f func(lockstep.Event[K])) error {
	c := s.takeFirst()
	if c == nil { // it is not the first time
		var err error
		if c, err = s.take(ctx); err != nil {
			return err
		}
		s.logger.Info("the table is this server's again")
	}
	f(lockstep.Event[K]{})
	for {
		s.held.Store(true)
		err := c.hold(ctx)
		s.held.Store(false) // before the claim is given back
		c.release()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.logger.Warn("the claim to the table is lost: writes are refused until it is this server's again", "error", err)
		if c, err = s.retake(ctx); err != nil {
			if errors.Is(err, errClaimed) {
				s.logger.Error("another server serves the table now: reads ask the database, and writes are refused, until it is this one's again", "error", err)
			}
			return err
		}
		// Somebody may have had it in between.
		f(lockstep.Event[K]{All: true})
		s.logger.Info("the table is this server's again")
	}
}

// retake takes the claim again as soon as the database can be asked.
func (s *claimed[K, V]) retake(ctx context.Context) (claim, error) {
	for {
		c, err := s.take(ctx)
		if err == nil || errors.Is(err, errClaimed) || ctx.Err() != nil {
			return c, err
		}
		select {
		case <-time.After(claimRetry):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

package pgstore

import (
	"context"
	"slices"

	"github.com/lockstep-cache/lockstep"
)

const (
	savepointSQL = "SAVEPOINT lockstep_part"
	returnSQL    = "ROLLBACK TO SAVEPOINT lockstep_part"
	releaseSQL   = "RELEASE SAVEPOINT lockstep_part"
	// immediateSQL makes deferred constraints speak where their set can still be told
	// from its neighbours.
	immediateSQL = "SET CONSTRAINTS ALL IMMEDIATE"
	deferredSQL  = "SET CONSTRAINTS ALL DEFERRED"
	// impatient is the lock_timeout where each part of a batch may have to wait anew.
	impatient = "10ms"
)

// divided commits the batch as one transaction, of whose sets one has made an
// earlier attempt fail and nobody knows which: all that are left, else each half,
// and so on, behind a savepoint each. It locks the keys of one half after those of
// the other, and not in one order; what that may come to, a deadlock, is tried again.
func (b *batch[K, V]) divided(ctx context.Context, a *attempt) ([]lockstep.Outcome[V], fate, error) {
	out := append([]lockstep.Outcome[V](nil), b.Outcomes...)
	if err := a.session.run(ctx, command{sql: beginSQL}); err != nil {
		a.abandon(ctx)
		return nil, a.before(ctx, err), err
	}
	var done []work[K, V]
	if err := b.part(ctx, a.session, b.active(), out, &done); err != nil {
		a.abandon(ctx)
		return nil, a.before(ctx, err), err
	}
	if len(done) == 0 {
		a.abandon(ctx)
		return out, 0, nil
	}
	// A row that a later part has written again says nothing of an earlier one.
	slices.Reverse(done)
	a.xact, a.result = done[0].xact, out
	a.verify = func(ctx context.Context, s *session) (bool, error) { return b.found(ctx, s, done...) }
	f, err := a.decisive(ctx, commitCommand)
	return out, f, err
}

// part makes some of the sets inside the transaction, or finds out which of them
// cannot be made.
func (b *batch[K, V]) part(ctx context.Context, s *session, sets []int, out []lockstep.Outcome[V], done *[]work[K, V]) error {
	waits := impatient
	w, err := b.decide(ctx, s, sets, out, &waits, command{sql: savepointSQL})
	if err == nil {
		commands := b.flush(w)
		wrote := w.wrote || len(commands) > 0
		commands = append(commands, command{sql: immediateSQL}, command{sql: deferredSQL}, command{sql: releaseSQL})
		if err = s.run(ctx, commands...); err == nil {
			if wrote {
				*done = append(*done, w)
			}
			return nil
		}
	}
	f := fateOf(err)
	if f != fateBlocked && f != fateRefused {
		return err
	}
	// One by one: the driver could not prepare the second while the transaction is
	// aborted.
	for _, query := range []string{returnSQL, releaseSQL} {
		if err := s.run(ctx, command{sql: query}); err != nil {
			return err
		}
	}
	if len(sets) > 1 {
		for _, half := range [][]int{sets[:len(sets)/2], sets[len(sets)/2:]} {
			if err := b.part(ctx, s, half, out, done); err != nil {
				return err
			}
		}
		return nil
	}
	i := sets[0]
	if f == fateBlocked {
		out[i] = lockstep.Outcome[V]{Err: unavailable("a row is locked by somebody else: %w", err), Blocked: true}
	} else {
		out[i] = lockstep.Outcome[V]{Err: notApplied(f, err)}
	}
	return nil
}

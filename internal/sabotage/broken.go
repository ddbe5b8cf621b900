package sabotage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// moment is how long something is held back that comes too late: longer than a short
// call of a database takes, and shorter than anybody waits. patience ends it where the
// database does not answer.
const (
	moment   = 4 * time.Millisecond
	patience = 10 * time.Second
)

// broken is a store around a store that goes wrong in what it replaces. The rest,
// transactions included, is the inner store's.
type broken struct {
	inner store
	below capabilities // the inner store's
	caps  capabilities

	load   func(ctx context.Context, keys []int) (map[int]row, error)
	commit func(ctx context.Context, sets []changeSet) ([]outcome, error)
	// background is what goes on after its call has returned.
	background sync.WaitGroup
}

// breaks is a sabotage's store: whatever spoil makes of one that is whole.
func breaks(spoil func(b *broken)) func(inner store) (store, func()) {
	return func(inner store) (store, func()) {
		b := &broken{inner: inner, below: inner.Capabilities(), load: inner.Load, commit: inner.Commit}
		b.caps = b.below
		// A commit here may wait for more than the inner one does.
		b.caps.Immediate = false
		if b.below.Settle != nil {
			b.caps.Settle = b.settle
		}
		spoil(b)
		return b, b.background.Wait
	}
}

func (b *broken) Load(ctx context.Context, keys []int) (map[int]row, error) { return b.load(ctx, keys) }

func (b *broken) Commit(ctx context.Context, sets []changeSet) ([]outcome, error) {
	return b.commit(ctx, sets)
}

func (b *broken) Capabilities() capabilities { return b.caps }

// lost is an unknown outcome of sets that are not those which the inner store was
// given, so that its settlement has to be put into their terms.
type lost struct {
	error
	settle func(ctx context.Context) (settlement, error)
}

func (l *lost) Unwrap() error { return l.error }

func (b *broken) settle(ctx context.Context, err error) (settlement, error) {
	var l *lost
	if errors.As(err, &l) {
		return l.settle(ctx)
	}
	return b.below.Settle(ctx, err)
}

// later commits the sets in the background, a moment after the call that they came
// with, and tells nobody what became of them. done is called when it has returned.
func (b *broken) later(ctx context.Context, sets []changeSet, done func()) {
	b.background.Go(func() {
		defer done()
		defer func() { _ = recover() }() // a store under test may panic on purpose
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), moment+patience)
		defer cancel()
		time.Sleep(moment)
		_, _ = b.inner.Commit(ctx, sets)
	})
}

// slowLoads holds back the answer of every fourth load. It breaks nothing.
func slowLoads(b *broken) {
	var loads atomic.Uint64
	b.load = func(ctx context.Context, keys []int) (map[int]row, error) {
		rows, err := b.inner.Load(ctx, keys)
		if err != nil || loads.Add(1)%4 != 0 {
			return rows, err
		}
		late := time.NewTimer(moment)
		defer late.Stop()
		select {
		case <-late.C:
			return rows, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", lockstep.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// unknown tells whether err is an unknown outcome.
func unknown(err error) bool { return errors.Is(err, lockstep.ErrUnknownOutcome) }

// blind tells whether the sets do nothing but set values, under no condition: the
// answer to such a commit can be made up.
func blind(sets []changeSet) bool {
	return !slices.ContainsFunc(sets, func(set changeSet) bool {
		return set.DeleteAll || len(set.Checks) > 0 || slices.ContainsFunc(set.Changes, func(c change) bool {
			return c.Delete || c.Insert || c.Expect.Kind != lockstep.ExpectAnything
		})
	})
}

// kept is a copy of sets that outlives the call that they came with.
func kept(sets []changeSet) []changeSet {
	sets = slices.Clone(sets)
	for i := range sets {
		sets[i].Changes = slices.Clone(sets[i].Changes)
		sets[i].Checks = slices.Clone(sets[i].Checks)
	}
	return sets
}

// eachSet has edit change a copy of every set, on its way to a commit or into a
// transaction. The number of its changes stays.
func (b *broken) eachSet(edit func(set *changeSet)) {
	b.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
		edited := kept(sets)
		for i := range edited {
			edit(&edited[i])
		}
		return b.inner.Commit(ctx, edited)
	}
	if apply := b.below.Apply; apply != nil {
		b.caps.Apply = func(ctx context.Context, txn lockstep.Txn, set changeSet) (outcome, error) {
			edited := kept([]changeSet{set})
			edit(&edited[0])
			return apply(ctx, txn, edited[0])
		}
	}
}

package fault

import (
	"context"
	"maps"

	"github.com/lockstep-cache/lockstep"
)

// Store is a store with faults put into it. It may be used from many goroutines
// at once, as the one inside. It has the capabilities of the one inside, but for
// Database: a Store shares transactions with Stores of this package around stores
// of the same database, and with no others.
type Store[K comparable, V any] struct {
	in    *injector
	inner lockstep.Store[K, V]
	below lockstep.Capabilities[K, V] // the inner store's
	caps  lockstep.Capabilities[K, V]
	late  lateCommits[K, V]
}

// Inject puts the faults of a script into a store. The zero Script leaves it as
// it is.
func Inject[K comparable, V any](inner lockstep.Store[K, V], script Script, seed uint64) *Store[K, V] {
	f := &Store[K, V]{
		in:    &injector{seed: seed, script: script, release: make(chan struct{})},
		inner: inner,
		below: inner.Capabilities(),
	}
	f.caps = f.below
	f.caps.Immediate = false // a fault may be a latency
	if f.below.Settle != nil {
		f.caps.Settle = f.settle
	}
	if f.below.Scan != nil {
		f.caps.Scan = f.scan
	}
	if f.below.Begin != nil {
		f.caps.Database = database{f.below.Database}
		f.caps.Begin = f.begin
		f.caps.Apply = f.apply
	}
	if f.below.Read != nil {
		f.caps.Read = f.read
	}
	return f
}

// Block stops the next operation that reaches a point and, if keys are given,
// names one of them. Each Block stops one operation; of several in its way the
// oldest does. A context that ends sets the operation free, as a hang.
//
//	b := store.Block(fault.AfterLoad, "k")
//	defer b.Pass()
//	go cache.Get(ctx, "k")
//	<-b.Reached // the row is read
//	cache.Set(ctx, "k", newer)
//	b.Pass()    // the older row arrives
func (f *Store[K, V]) Block(at Point, keys ...K) *Block {
	if len(keys) == 0 {
		return f.in.block(at, nil)
	}
	named := make(map[any]bool, len(keys))
	for _, key := range keys {
		named[key] = true
	}
	return f.in.block(at, named)
}

// Play replaces the script; operations are numbered from 1 again. Those under way
// go on as they were planned.
func (f *Store[K, V]) Play(script Script) { f.in.play(script) }

// Release lets every operation go on that hangs now.
func (f *Store[K, V]) Release() { f.in.releaseAll() }

// Counts returns what has happened so far.
func (f *Store[K, V]) Counts() Counts { return f.in.count() }

// Load implements lockstep.Store.
func (f *Store[K, V]) Load(ctx context.Context, keys []K) (map[K]lockstep.Row[V], error) {
	f.arriveLate(ctx)
	v := f.in.arrive(Load, anys(keys))
	if err := v.before(ctx); err != nil {
		return nil, err
	}
	rows, err := f.inner.Load(ctx, keys)
	if lost := v.answered(ctx); err == nil && lost != nil {
		return nil, lost
	}
	return rows, err
}

// Commit implements lockstep.Store.
func (f *Store[K, V]) Commit(ctx context.Context, sets []lockstep.ChangeSet[K, V]) ([]lockstep.Outcome[V], error) {
	f.arriveLate(ctx)
	v := f.in.arrive(Commit, namedBy(sets))
	if err := v.before(ctx); err != nil {
		return nil, err
	}
	switch {
	case v.fault.kind == loseRequest:
		unknown := f.lost(v)
		unknown.decide(nil, nil, errNeverSent)
		return nil, later(v.answered(ctx), unknown)
	case v.fault.kind == loseReply && v.fault.late:
		unknown, err := f.postpone(ctx, v, sets)
		if err != nil {
			return nil, err
		}
		return nil, later(v.answered(ctx), unknown)
	}
	outcomes, err := f.inner.Commit(ctx, sets)
	ended := v.answered(ctx)
	if err != nil || ended == nil && v.fault.kind != loseReply {
		return outcomes, err
	}
	unknown := f.lost(v)
	unknown.decide(sets, outcomes, nil)
	return nil, later(ended, unknown)
}

// later is the error of an unknown outcome, whether or not the context ended on
// its way.
func later[K comparable, V any](ended error, unknown *lostCommit[K, V]) error {
	unknown.ended = ended
	return unknown
}

// Capabilities implements lockstep.Store.
func (f *Store[K, V]) Capabilities() lockstep.Capabilities[K, V] { return f.caps }

func (f *Store[K, V]) scan(ctx context.Context, cursor any, limit int) (lockstep.Page[K, V], error) {
	f.arriveLate(ctx)
	v := f.in.arrive(Scan, nil)
	if err := v.before(ctx); err != nil {
		return lockstep.Page[K, V]{}, err
	}
	page, err := f.below.Scan(ctx, cursor, limit)
	if lost := v.answered(ctx); err == nil && lost != nil {
		return lockstep.Page[K, V]{}, lost
	}
	return page, err
}

func anys[K comparable](keys []K) []any {
	list := make([]any, len(keys))
	for i, key := range keys {
		list[i] = key
	}
	return list
}

// namedBy returns the keys that sets change; nil where they change all. The key of an
// insertion is nobody's to name.
func namedBy[K comparable, V any](sets []lockstep.ChangeSet[K, V]) []any {
	named := make(map[any]bool)
	for _, set := range sets {
		if set.DeleteAll {
			return nil
		}
		for _, c := range set.Changes {
			if !c.Insert {
				named[c.Key] = true
			}
		}
	}
	list := make([]any, 0, len(named))
	for key := range maps.Keys(named) {
		list = append(list, key)
	}
	return list
}

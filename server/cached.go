package server

import (
	"context"
	"errors"
	"hash/maphash"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/turn"
)

// cached is the view over the cache.
type cached struct {
	cache *rowCache
	// turns are taken by those who read a key and then write it, for otherwise they would
	// make each other try again.
	turns turn.Table
	seed  maphash.Seed
}

func (k *cached) get(ctx context.Context, key string) (Value, error) { return k.cache.Get(ctx, key) }

func (k *cached) many(ctx context.Context, keys []string) (map[string]Value, error) {
	return k.cache.GetMany(ctx, keys)
}

func (k *cached) read(ctx context.Context, key string) (row, lockstep.Version, error) {
	e, err := k.cache.GetEntry(ctx, key)
	if errors.Is(err, lockstep.ErrNotFound) {
		return row{}, 0, nil
	}
	return row{exists: err == nil, value: e.Value, end: end{at: e.ExpiresAt}}, e.Version, err
}

func (k *cached) set(ctx context.Context, key string, value Value, end end) error {
	if end.over(time.Now()) {
		_, err := k.remove(ctx, key)
		return err
	}
	_, err := k.cache.Set(ctx, key, value, end.options()...)
	if mayBeMade(err) {
		writingOf(ctx).changed(key, false, end)
	}
	return err
}

func (k *cached) setMany(ctx context.Context, values map[string]Value) error {
	err := k.cache.SetMany(ctx, values)
	for key := range values {
		writingOf(ctx).changed(key, false, end{}) // told if it has not failed
	}
	return err
}

func (k *cached) remove(ctx context.Context, key string) (existed bool, err error) {
	existed, err = k.cache.Delete(ctx, key)
	if existed {
		writingOf(ctx).changed(key, true, end{})
	}
	return existed, err
}

// maxAttempts is how often a row is read again that others have changed meanwhile: other
// processes, and writes of this one that read nothing before.
const maxAttempts = 100

// change is not Cache.Update because that does not delete, nor let the row's end depend on
// the row.
func (k *cached) change(ctx context.Context, key string, decide func(old row) (next, error)) error {
	turns := []uint64{maphash.String(k.seed, key)}
	if err := k.turns.Take(ctx, turns); err != nil {
		return err
	}
	defer k.turns.Give(turns)
	for attempt := 1; ; attempt++ {
		old, version, err := k.read(ctx, key)
		if err != nil {
			return err
		}
		n, err := decide(old)
		if err != nil {
			return err
		}
		switch {
		case n.put && n.end.over(time.Now()), n.remove:
			if !old.exists {
				return nil
			}
			_, err = k.cache.Delete(ctx, key, lockstep.IfVersion(version))
		case n.put && old.exists:
			_, err = k.cache.Set(ctx, key, n.value, n.end.options(lockstep.IfVersion(version))...)
		case n.put:
			_, err = k.cache.Set(ctx, key, n.value, n.end.options(lockstep.IfAbsent())...)
		}
		if mayBeMade(err) && (n.put || n.remove) {
			writingOf(ctx).changed(key, n.remove || n.end.over(time.Now()), n.end)
			if n.end == old.end {
				writingOf(ctx).kept()
			}
		}
		collided := errors.Is(err, lockstep.ErrConflict) && !errors.Is(err, lockstep.ErrUnknownOutcome)
		if !collided || attempt == maxAttempts {
			return err
		}
	}
}

func (k *cached) transact(ctx context.Context, f func(tx rows) error) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error { return f(newRows(ctx, tx, k.cache.Cache)) })
}

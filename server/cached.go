package server

import (
	"context"
	"errors"
	"hash/maphash"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/turn"
	sqlrows "github.com/lockstep-cache/lockstep/store/rows"
)

// cached is the view over the cache.
type cached struct {
	cache  *rowCache
	tables *tables
	// turns are taken by those who read a key and then write it, for otherwise they would
	// make each other try again.
	turns turn.Table
	seed  maphash.Seed
}

func (k *cached) get(ctx context.Context, key string) (Value, error) {
	if t, of := k.tables.find(key); t != nil {
		return t.get(ctx, of)
	}
	return k.cache.Get(ctx, key)
}

func (k *cached) many(ctx context.Context, keys []string) (map[string]Value, error) {
	if len(k.tables.all) == 0 {
		return k.cache.GetMany(ctx, keys)
	}
	return manyOf(k.tables, keys, func(keys []string) (map[string]Value, error) { return k.cache.GetMany(ctx, keys) },
		func(t *servedTable, keys []sqlrows.Key) (map[sqlrows.Key]sqlrows.Row, error) {
			return t.cache.GetMany(ctx, keys)
		})
}

// manyOf reads keys from where they are.
func manyOf(ts *tables, keys []string, own func([]string) (map[string]Value, error), of func(*servedTable, []sqlrows.Key) (map[sqlrows.Key]sqlrows.Row, error)) (map[string]Value, error) {
	var rest []string
	theirs := map[*servedTable][]sqlrows.Key{}
	for _, key := range keys {
		if t, of := ts.find(key); t != nil {
			theirs[t] = append(theirs[t], of)
		} else {
			rest = append(rest, key)
		}
	}
	found, err := own(rest)
	if err != nil {
		return nil, err
	}
	if found == nil {
		found = map[string]Value{}
	}
	for t, keys := range theirs {
		rows, err := of(t, keys)
		if err != nil {
			return nil, err
		}
		for key, row := range rows {
			found[t.of(key)] = Value(row)
		}
	}
	return found, nil
}

func (k *cached) read(ctx context.Context, key string) (row, lockstep.Version, error) {
	if t, of := k.tables.find(key); t != nil {
		e, err := t.cache.GetEntry(ctx, of)
		if errors.Is(err, lockstep.ErrNotFound) {
			return row{}, 0, nil
		}
		return row{exists: err == nil, value: Value(e.Value)}, e.Version, err
	}
	e, err := k.cache.GetEntry(ctx, key)
	if errors.Is(err, lockstep.ErrNotFound) {
		return row{}, 0, nil
	}
	return row{exists: err == nil, value: e.Value, end: end{at: e.ExpiresAt}}, e.Version, err
}

func (k *cached) set(ctx context.Context, key string, value Value, end end) error {
	if t, of := k.tables.find(key); t != nil {
		if err := t.takes(value, end); err != nil {
			return err
		}
		t.begin(ctx, of)
		_, err := t.cache.Set(ctx, of, sqlrows.Row(value))
		if mayBeMade(err) {
			writingOf(ctx).changed(key, false, end)
		}
		return err
	}
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
	for key := range values {
		if t, _ := k.tables.find(key); t != nil {
			return t.wrongType()
		}
	}
	err := k.cache.SetMany(ctx, values)
	for key := range values {
		writingOf(ctx).changed(key, false, end{}) // told if it has not failed
	}
	return err
}

func (k *cached) remove(ctx context.Context, key string) (existed bool, err error) {
	if t, of := k.tables.find(key); t != nil {
		t.begin(ctx, of)
		existed, err = t.cache.Delete(ctx, of)
	} else {
		existed, err = k.cache.Delete(ctx, key)
	}
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
	if t, of := k.tables.find(key); t != nil {
		return t.change(ctx, of, decide)
	}
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
		turn.Yield(ctx, attempt)
	}
}

func (k *cached) transact(ctx context.Context, f func(tx rows) error) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		return f(newRows(ctx, tx, k.cache.Cache, k.tables))
	})
}

package server

import (
	"context"
	"errors"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// rows is the keyspace inside a transaction, which commits them together. The context that
// the transaction was begun with is a request's that writes (writingOf): it ends what is
// begun here.
type rows struct {
	ctx context.Context // the transaction's
	in  lockstep.InTx[string, Value]
	*own
}

// own is what a transaction knows of its writes.
type own struct {
	// ends are those of the rows that it has written: one that is counted from the commit
	// still is when the row is written again.
	ends map[string]end

	// failed is why the transaction cannot be committed, though the command that has met
	// it may have answered something else. wrote: the command under way has written, and
	// what fails now would leave half of it.
	failed error
	wrote  bool
}

// began is for the next command of an EXEC.
func (o *own) began() { o.wrote = false }

// note passes on an error, after having looked whether it is more than the command's own.
func (o *own) note(err error) error {
	if err != nil && !errors.Is(err, lockstep.ErrNotFound) && o.failed == nil && (o.wrote || !refused(err)) {
		o.failed = err
	}
	return err
}

// refused tells whether an error is about a key or a value alone.
func refused(err error) bool {
	return errors.Is(err, lockstep.ErrInvalid) || errors.Is(err, lockstep.ErrTooLarge) || errors.Is(err, lockstep.ErrUnsupported)
}

func newRows(ctx context.Context, tx *lockstep.Tx, cache *lockstep.Cache[string, Value]) rows {
	writingOf(ctx).changes = nil // of a run before
	return rows{ctx, cache.In(tx), &own{ends: map[string]end{}}}
}

func (t rows) get(_ context.Context, key string) (Value, error) {
	v, err := t.in.Get(t.ctx, key)
	return v, t.note(err)
}

func (t rows) many(_ context.Context, keys []string) (map[string]Value, error) {
	found, err := t.in.GetMany(t.ctx, keys)
	return found, t.note(err)
}

func (t rows) read(_ context.Context, key string) (row, lockstep.Version, error) {
	e, err := t.in.GetEntry(t.ctx, key)
	if errors.Is(err, lockstep.ErrNotFound) {
		return row{}, 0, nil
	}
	until := end{at: e.ExpiresAt}
	if its, ok := t.ends[key]; ok {
		until = its
	}
	return row{exists: err == nil, value: e.Value, end: until}, e.Version, t.note(err)
}

func (t rows) set(_ context.Context, key string, value Value, end end) error {
	if end.over(time.Now()) {
		return t.delete(key)
	}
	writingOf(t.ctx).begin(key)
	if err := t.in.Set(t.ctx, key, value, end.options()...); err != nil {
		return t.note(err)
	}
	t.ends[key], t.wrote = end, true
	writingOf(t.ctx).changed(key, false, end)
	return nil
}

func (t rows) delete(key string) error {
	writingOf(t.ctx).begin(key)
	if err := t.in.Delete(t.ctx, key); err != nil {
		return t.note(err)
	}
	writingOf(t.ctx).changed(key, true, end{})
	delete(t.ends, key)
	t.wrote = true
	return nil
}

func (t rows) setMany(ctx context.Context, values map[string]Value) error {
	t.wrote = len(values) > 1 // or whether it has depends on the order of a map
	for key, value := range values {
		if err := t.set(ctx, key, value, end{}); err != nil {
			return err
		}
	}
	return nil
}

func (t rows) remove(ctx context.Context, key string) (existed bool, err error) {
	switch _, err := t.get(ctx, key); {
	case errors.Is(err, lockstep.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, t.delete(key)
}

func (t rows) change(ctx context.Context, key string, decide func(old row) (next, error)) error {
	old, _, err := t.read(ctx, key)
	if err != nil {
		return err
	}
	n, err := decide(old)
	switch {
	case err != nil:
		return err
	case n.remove && old.exists:
		return t.delete(key)
	case n.put:
		err = t.set(ctx, key, n.value, n.end)
		if err == nil && n.end == old.end {
			writingOf(t.ctx).kept()
		}
		return err
	}
	return nil
}

// transact is a part of the transaction that there is.
func (t rows) transact(_ context.Context, f func(tx rows) error) error { return f(t) }

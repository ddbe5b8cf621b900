package server

import (
	"context"
	"errors"
	"time"

	"github.com/lockstep-cache/lockstep"
	sqlrows "github.com/lockstep-cache/lockstep/store/rows"
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

	tx     *lockstep.Tx
	tables *tables
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

func newRows(ctx context.Context, tx *lockstep.Tx, cache *lockstep.Cache[string, Value], tables *tables) rows {
	writingOf(ctx).changes = nil // of a run before
	return rows{ctx, cache.In(tx), &own{ends: map[string]end{}, tx: tx, tables: tables}}
}

// table returns the table that a key belongs to, as a part of the transaction.
func (t rows) table(key string) (in tableRows, of sqlrows.Key, found bool) {
	served, of := t.tables.find(key)
	if served == nil {
		return in, "", false
	}
	return tableRows{served, served.cache.In(t.tx)}, of, true
}

func (t rows) get(_ context.Context, key string) (Value, error) {
	if in, of, found := t.table(key); found {
		v, err := in.in.Get(t.ctx, of)
		return Value(v), t.note(err)
	}
	v, err := t.in.Get(t.ctx, key)
	return v, t.note(err)
}

func (t rows) many(_ context.Context, keys []string) (map[string]Value, error) {
	if len(t.tables.all) > 0 {
		found, err := manyOf(t.tables, keys, func(keys []string) (map[string]Value, error) { return t.in.GetMany(t.ctx, keys) },
			func(served *servedTable, keys []sqlrows.Key) (map[sqlrows.Key]sqlrows.Row, error) {
				return served.cache.In(t.tx).GetMany(t.ctx, keys)
			})
		return found, t.note(err)
	}
	found, err := t.in.GetMany(t.ctx, keys)
	return found, t.note(err)
}

func (t rows) read(_ context.Context, key string) (row, lockstep.Version, error) {
	if in, of, found := t.table(key); found {
		r, version, err := in.read(t.ctx, of)
		return r, version, t.note(err)
	}
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
	if in, of, found := t.table(key); found {
		err := in.set(t.ctx, of, value, end)
		t.wrote = t.wrote || err == nil
		return t.note(err)
	}
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
	if in, of, found := t.table(key); found {
		err := in.delete(t.ctx, of)
		t.wrote = t.wrote || err == nil
		return t.note(err)
	}
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

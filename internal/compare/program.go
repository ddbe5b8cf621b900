package compare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/lockstep-cache/lockstep"
)

// Database is an open one.
type Database interface {
	// Table opens a table, and makes it if it is not there.
	Table(ctx context.Context, name string) (Store, error)
	// Positions opens a table of positions of journals, and makes it if it is not there.
	Positions(ctx context.Context, name string) (lockstep.Store[string, int64], error)
	Close() error
}

// Program is the program that is measured, and killed: it does what Run asks for on in,
// and tells of it on out. open opens the database of a URL. It ends when ctx does, or when
// nobody hears it any more.
func Program(ctx context.Context, in io.Reader, out io.Writer, open func(ctx context.Context, url string) (Database, error)) (err error) {
	var a assignment
	if err := json.NewDecoder(in).Decode(&a); err != nil {
		return fmt.Errorf("compare: what a program is to do: %w", err)
	}
	t := &teller{out: out}
	defer func() {
		if err != nil {
			t.tell(record{Failed: err.Error()})
		}
	}()
	p, err := find(a.Pattern)
	if err != nil {
		return err
	}
	db, err := open(ctx, a.URL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	store, err := db.Table(ctx, a.Table)
	if err != nil {
		return err
	}
	s, err := p.open(ctx, place{
		store: store, entries: a.Workload.Entries, ttl: a.Workload.TTL, journal: a.Journal,
		positions: func() (lockstep.Store[string, int64], error) { return db.Positions(ctx, a.Table+"_positions") },
	})
	if err != nil {
		return err
	}
	if a.Recover {
		if err := s.Close(ctx); err != nil {
			return err
		}
		t.tell(record{Done: true})
		return nil
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	if err := fill(ctx, store, a.Workload.Keys); err != nil {
		return err
	}
	heard, unheard := context.WithCancelCause(ctx)
	defer unheard(nil)
	l := &load{Workload: a.Workload, subject: s, tell: func(r record) {
		if t.tell(r); t.broken() {
			unheard(errors.New("compare: nobody hears the program any more"))
		}
	}}
	l.run(heard, a.Seed)
	return context.Cause(heard)
}

// fillAtOnce is how many rows are made by one commit.
const fillAtOnce = 500

// fill makes all rows, with the number 0.
func fill(ctx context.Context, store Store, keys int) error {
	for from := 0; from < keys; from += fillAtOnce {
		changes := make([]lockstep.Change[int, int64], 0, fillAtOnce)
		for key := from; key < min(keys, from+fillAtOnce); key++ {
			changes = append(changes, lockstep.Change[int, int64]{Key: key})
		}
		if err := commit(ctx, store, changes); err != nil {
			return err
		}
	}
	return nil
}

package pgstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep"
)

// outside is what a store knows of the watch of its table; nil: it has none.
type outside struct {
	log *changeLog
	oid uint32
	// writer marks the changes that this store commits, which are not told to it: its
	// cache knows what has become of them, or that nobody does. It is set within the
	// transaction, for our own statements alone, so that the caller's own SQL is
	// somebody else's, in a transaction that it shares with us too.
	writer string
}

func newOutside(l *changeLog, oid uint32) *outside {
	return &outside{log: l, oid: oid, writer: strconv.FormatUint(rand.Uint64(), 36)}
}

// markSQL says who writes, for the rest of the transaction.
const markSQL = `set_config('lockstep.writer', '%s', true)`

// mark and unmark are the commands around what a store writes in a transaction that
// goes on without it.
func (o *outside) mark() []command {
	if o == nil {
		return nil
	}
	return []command{{sql: "SELECT " + fmt.Sprintf(markSQL, o.writer)}}
}

func (o *outside) unmark() []command {
	if o == nil {
		return nil
	}
	return []command{{sql: "SELECT " + fmt.Sprintf(markSQL, "")}}
}

// findOutside looks for the watch of a table. One that is there and not whole is an error:
// the cache would go on in the belief that it is told.
func findOutside(ctx context.Context, c *pgx.Conn, logs []*changeLog, oid uint32) (*outside, error) {
	f, err := logs[0].find(ctx, c, oid)
	if err != nil || len(f.triggers) == 0 {
		return nil, err
	}
	for _, l := range logs {
		if f.check(l) == nil {
			return newOutside(l, oid), nil
		}
	}
	return nil, invalid("table %s: %w", logs[0].qualified(), f.check(logs[0]))
}

// findOutside finds the watch of a key-value table.
func (s *Store[K, V]) findOutside(ctx context.Context) (o *outside, err error) {
	l := &changeLog{schema: s.table.schema, table: s.table.name, keys: []string{"key"}, versionColumn: "version", own: true}
	session, err := s.db.session(ctx)
	if err != nil {
		return nil, openError(err)
	}
	err = session.lease.use(func(c *pgx.Conn) error {
		var oid int64
		if err := c.QueryRow(ctx, "SELECT to_regclass($1::text)::oid::int8", l.qualified()).Scan(&oid); err != nil {
			return err
		}
		o, err = findOutside(ctx, c, []*changeLog{l}, uint32(oid))
		return err
	})
	if err != nil && !named(err) {
		s.db.drop(session)
		return nil, openError(err)
	}
	s.db.release(session)
	return o, err
}

// watch implements Capabilities.Watch.
func (s *Store[K, V]) watch(ctx context.Context, f func(lockstep.Event[K])) error {
	key := sqlType(s.table.keyColumn)
	return watchTable(ctx, s.db, s.outside.log, s.outside.oid, s.outside.writer, watchedKeys[K]{
		columns: []string{"c.key[1]::" + key}, types: []string{key},
		cells: func() ([]any, func() (K, bool)) {
			var cell any
			return []any{&cell}, func() (K, bool) {
				k, err := s.rows.Key.Decode(cell)
				return k, err == nil
			}
		},
	}, f)
}

// logs are what the watch of an existing table may be like: with any column for the
// version's, or with none.
func (s *shape) logs() ([]*changeLog, error) {
	keys, err := s.watchedKey()
	if err != nil {
		return nil, err
	}
	logs := []*changeLog{{schema: s.schema, table: s.name, keys: keys}}
	for _, c := range s.columns {
		if c.Version() == nil {
			logs = append(logs, &changeLog{schema: s.schema, table: s.name, keys: keys, versionColumn: c.name})
		}
	}
	return logs, nil
}

// watchChanges implements Capabilities.Watch.
func (t *Table[K, V]) watchChanges(ctx context.Context, f func(lockstep.Event[K])) error {
	var keys watchedKeys[K]
	for i, part := range t.m.Key {
		c, w := t.shape.column(part.Column), wire(part.Type)
		keys.columns = append(keys.columns, c.read(w, fmt.Sprintf("c.key[%d]::%s", i+1, c.cast)))
		keys.types = append(keys.types, "pg_catalog."+string(w))
	}
	keys.cells = func() ([]any, func() (K, bool)) {
		cells, into, row := make([]cell, len(t.m.Key)), make([]any, len(t.m.Key)), make([]driver.Value, len(t.m.Key))
		for i, part := range t.m.Key {
			cells[i] = wire(part.Type).cell()
			into[i] = cells[i].into
		}
		return into, func() (K, bool) {
			for i, c := range cells {
				row[i] = c.value()
			}
			k, err := t.m.ScanKey(row)
			return k, err == nil
		}
	}
	// A version that another column keeps says nothing of this store's.
	l := t.outside.log
	versions := t.m.Versioned() && l.versionColumn == t.m.Value[t.m.Version].Column
	return watchTable(ctx, t.db, l, t.outside.oid, t.outside.writer, keys, func(e lockstep.Event[K]) {
		for i := range e.Changed {
			if !versions {
				e.Changed[i].Version = 0
			}
		}
		f(e)
	})
}

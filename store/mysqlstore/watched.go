package mysqlstore

import (
	"bytes"
	"context"
	"database/sql/driver"
	"math/rand/v2"
	"strconv"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
)

// outside is what a table's store knows of its watch; nil: it has none.
type outside struct {
	log *changeLog
	// writer marks the changes that this store commits, which are not told to it: its
	// cache knows what has become of them, or that nobody does. A session has it as
	// @lockstep_writer while it runs our own statements for this store, and for nobody
	// else: see session.mark.
	writer string
}

// writerBytes has room for a writer's name.
const writerBytes = 16

func newOutside(l *changeLog) *outside {
	return &outside{log: l, writer: strconv.FormatUint(rand.Uint64(), 36)}
}

// as is the name under which the store writes.
func (o *outside) as() string {
	if o == nil {
		return ""
	}
	return o.writer
}

// mark says for whom the session's statements change rows: for a store over a watched
// table, or for nobody that would know of it. It is a round trip only when that is
// somebody else than before, and acquireFor looks for a session that has it already.
// Every write marks its session, so that none is made under another store's name.
func (s *session) mark(ctx context.Context, writer string) error {
	if s.writer == writer {
		return nil
	}
	if err := s.run(ctx, "SET @lockstep_writer = "+writerValue(writer)); err != nil {
		return err
	}
	s.writer = writer
	return nil
}

func writerValue(writer string) string {
	if writer == "" {
		return "NULL"
	}
	return "'" + writer + "'"
}

// findOutside looks for the watch of a key-value table.
func (s *Store[K, V]) findOutside(ctx context.Context) (*outside, error) {
	conn, err := s.db.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer s.db.release(conn)
	l := &changeLog{schema: s.db.name, table: s.opts.Table, versionColumn: "version", own: true}
	f, err := l.find(ctx, conn, s.db)
	if err != nil || !f.there() {
		return nil, err
	}
	shape, err := s.db.inspectTable(ctx, conn, s.db.qualified(s.opts.Table))
	if err != nil {
		return nil, err
	}
	l.table = shape.name
	if l.keys, err = shape.watchedKey(); err != nil {
		return nil, err
	}
	if err := checkIncrement(ctx, conn); err != nil {
		return nil, err
	}
	if err := f.check(l); err != nil {
		return nil, invalid("table %s: %w", shape, err)
	}
	return newOutside(l), nil
}

// findOutside looks for the watch of the table. One that is there and not whole is an
// error: the cache would go on in the belief that it is told.
func (t *Table[K, V]) findOutside(ctx context.Context, conn *session) (*outside, error) {
	s := t.shape
	l := &changeLog{schema: s.schema, table: s.name}
	f, err := l.find(ctx, conn, t.db)
	if err != nil || !f.there() {
		return nil, err
	}
	if l.keys, err = s.watchedKey(); err != nil {
		return nil, err
	}
	if err := checkIncrement(ctx, conn); err != nil {
		return nil, err
	}
	if err := t.checkActions(ctx, conn); err != nil {
		return nil, err
	}
	first := f.check(l)
	if first != nil {
		// It may tell the versions of any column.
		for _, c := range s.columns {
			versions := *l
			if versions.versionColumn = c.name; c.Version() == nil && f.check(&versions) == nil {
				l, first = &versions, nil
				break
			}
		}
	}
	if first != nil {
		return nil, invalid("table %s: %w", s, first)
	}
	return newOutside(l), nil
}

// checkActions refuses a table of which a foreign key's action changes what the store
// maps.
func (t *Table[K, V]) checkActions(ctx context.Context, conn *session) error {
	actions, err := actionsOn(ctx, conn, t.shape.schema, t.shape.name)
	if err != nil {
		return err
	}
	var columns []string
	for _, f := range t.m.Value {
		columns = append(columns, f.Column)
	}
	if a, ok := unseen(actions, t.shape, columns); ok {
		return unsupported("table %s is watched, and cannot be any more: %v", t.shape, a)
	}
	return nil
}

// key makes a key of its text in the change log: !ok for one that no key of K is.
func (t *Table[K, V]) keyOf(text []byte) (k K, ok bool) {
	row := make([]driver.Value, len(t.m.Key))
	for i := range t.m.Key {
		size, rest, found := bytes.Cut(text, []byte{':'})
		n, err := strconv.Atoi(string(size))
		if !found || err != nil || n < 0 || n > len(rest) {
			return k, false
		}
		if row[i], ok = t.wires[i].parse(rest[:n]); !ok {
			return k, false
		}
		text = rest[n:]
	}
	if len(text) > 0 {
		return k, false
	}
	k, err := t.m.ScanKey(row)
	return k, err == nil
}

// parse reads what CAST(… AS BINARY) has made of a column.
func (w wire) parse(text []byte) (v driver.Value, ok bool) {
	switch w {
	case wireInt:
		if n, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			return n, true
		}
		n, err := strconv.ParseUint(string(text), 10, 64)
		return n, err == nil
	case wireFloat:
		f, err := strconv.ParseFloat(string(text), 64)
		return f, err == nil
	case wireBytes:
		return bytes.Clone(text), true
	}
	return string(text), true
}

// keyOf is that of a key-value table.
func (s *Store[K, V]) keyOf(text []byte) (k K, ok bool) {
	w := map[keytext.Form]wire{keytext.Text: wireBytes, keytext.Bytes: wireBytes, keytext.Integer: wireInt, keytext.Real: wireFloat}[s.rows.Key.Form]
	_, rest, _ := bytes.Cut(text, []byte{':'})
	v, ok := w.parse(rest)
	if !ok {
		return k, false
	}
	k, err := s.key(v)
	return k, err == nil
}

// watch implements Capabilities.Watch.
func (s *Store[K, V]) watch(ctx context.Context, f func(lockstep.Event[K])) error {
	w := &watcher[K]{
		db: s.db, log: s.outside.log, key: s.keyOf, f: f, skip: s.outside.writer, versions: true,
		check: func(context.Context, *session) error { return nil },
	}
	return w.watch(ctx)
}

// watch implements Capabilities.Watch.
func (t *Table[K, V]) watch(ctx context.Context, f func(lockstep.Event[K])) error {
	// A version that another column keeps says nothing of this store's.
	l := t.outside.log
	w := &watcher[K]{
		db: t.db, log: l, key: t.keyOf, f: f, skip: t.outside.writer, check: t.checkActions,
		versions: t.m.Versioned() && l.versionColumn == t.m.Value[t.m.Version].Column,
	}
	return w.watch(ctx)
}

package mysqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strconv"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// TableOptions are the options of NewTable. The zero value is sound.
type TableOptions struct {
	// ReadOnly refuses every write.
	ReadOnly bool
	// VersionColumn names the version's column, a signed bigint, where V has no field
	// for it. It cannot be set beside a field tagged as the version. Where V is rows.Row a
	// NOT NULL bigint called version is taken without it, unless this is rows.NoVersion.
	VersionColumn string
}

// Table maps an existing table: a lockstep.Store whose rows other programs can
// read and write as they always did. Its methods may be called from many
// goroutines at once.
//
// K is the primary key: one value, or a struct with a `db` tag on each field for
// a key of several columns; or rows.Key and V rows.Row, where the program does not know the
// columns. V is a struct with `db` tags on the fields that are
// mapped; columns without a field are never written, and get their defaults in a
// new row. A field of V may repeat a column of the key: it is filled when the row
// is read, and when it is written must be zero or equal to the key.
//
// A commit locks the rows that it names in the order of their keys, decides, and
// writes its insertions, updates and deletions in statements of many rows. Whether a
// row is inserted or updated is decided under its lock: a row is found by its primary
// key, and a value that another unique index forbids is refused and changes nothing.
// Every row that is written is read back in the same transaction, and so the cache
// gets what generated columns, defaults, rounding and triggers have made of it.
//
// A row is locked by every transaction that has read it or writes it. The place of an
// absent row is locked, against every other program too, where a set of several keys
// relies on its absence: the transaction then runs at REPEATABLE READ, at which
// InnoDB locks the gaps between rows. So do the transactions of several caches, and
// those with SQL of the program's own, in a Database that has a mapped table.
//
// A table whose primary key is one column that the server fills takes insertions
// (Cache.Insert): with AUTO_INCREMENT, and on MariaDB with a DEFAULT that is computed, as
// uuid() and nextval(…) are. They cost a round trip each, after the batch's other writes.
//
// A write by which a trigger, or a foreign key's action (ON DELETE CASCADE and its
// like), would change rows of another table that was opened in the same Database is
// refused, and so is one by which a foreign key's action would change other rows of its
// own table: the error is ErrInvalid and names that table. Delete the rows that depend
// on a row before it, or in the same set. What a trigger changes is read from its text
// when the table is opened, which takes the privilege TRIGGER.
//
// With a field tagged `db:"…,version"`, or a VersionColumn, the table has versions:
// max(version+1, µs since 1970), as in a table of our own, but without tombstones.
// Across a deletion they grow for as long as this Database is open, and else while
// the server's clock does not step back. A trigger may count a row's versions by itself;
// a write whose version it keeps from growing, or that of a new row which it lowers, is
// refused. Without a version, conditions by version are refused, and transactions compare
// the mapped columns of what they have read.
type Table[K comparable, V any] struct {
	db    *Database
	owned bool
	opts  TableOptions
	shape *shape
	m     *mapping.Mapping[K, V]
	sql   *tableSQL
	wires []wire // of the key's columns, and of the values'
	clock *tableClock
	// removed are what this process's deletions have left of their versions.
	removed removals
	acts    actions
	// outside is nil where the table is not watched.
	outside *outside
}

// NewTable takes the database that pool's DSN names, and maps a table of it. Close
// ends what NewTable has begun, and leaves the pool alone. Its errors are those of
// OpenDatabase and NewTableIn.
func NewTable[K comparable, V any](ctx context.Context, pool *sql.DB, table string, opts TableOptions) (*Table[K, V], error) {
	db, err := OpenDatabase(ctx, pool, DatabaseOptions{})
	if err != nil {
		return nil, err
	}
	t, err := NewTableIn[K, V](ctx, db, table, opts)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	t.owned = true
	return t, nil
}

// NewTableIn maps a table of db. The name is as in SQL: users, app.users for one in
// another database of the server, or `Odd Names` in backquotes. It reads the schema
// once. An error that is ErrInvalid names everything that does not fit, column by
// column: a table or column that does not exist, a view, an engine that is not InnoDB,
// no primary key, a key column that compares differently from Go's ==, a tag that is
// wrong, a NOT NULL column that nothing fills, a field whose type the column cannot
// hold unchanged, a privilege that the user lacks.
func NewTableIn[K comparable, V any](ctx context.Context, db *Database, table string, opts TableOptions) (*Table[K, V], error) {
	if db == nil {
		return nil, invalid("the database is nil")
	}
	conn, err := db.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer db.release(conn)
	t := &Table[K, V]{db: db, opts: opts}
	if err := t.open(ctx, conn, table); err != nil {
		return nil, openError(err)
	}
	return t, nil
}

func (t *Table[K, V]) open(ctx context.Context, conn *session, table string) (err error) {
	if t.shape, err = t.db.inspectTable(ctx, conn, table); err != nil {
		return err
	}
	s := t.shape
	own, err := isOurs(ctx, conn, t.db, s)
	switch {
	case err != nil:
		return err
	case own:
		return invalid("%s is a key-value table of lockstep, with tombstones among its rows; OpenIn opens it", s)
	}
	m, mistakes := mapTo[K, V](t.db.dialect(), s, mapping.Options(t.opts))
	if m != nil {
		forbidden, err := s.forbidden(ctx, conn, m.Key, m.Value, m.Version, t.opts.ReadOnly)
		if err != nil {
			return err
		}
		mistakes = append(mistakes, forbidden...)
	}
	if err := dialect.Misfit(s.String(), mistakes); err != nil {
		return err
	}
	t.m = m
	t.sql = newTableSQL(s, m.Key, m.Value, m.Version, t.db.server.mariadb())
	for _, f := range m.Key {
		t.wires = append(t.wires, wire(f.Type))
	}
	for _, f := range m.Value {
		t.wires = append(t.wires, wire(f.Type))
	}
	t.clock = t.db.tableClock(s.sql())
	if !t.opts.ReadOnly {
		if t.acts, err = t.db.actionsOf(ctx, conn, s); err != nil {
			return err
		}
	}
	if t.outside, err = t.findOutside(ctx, conn); err != nil {
		return err
	}
	if t.outside != nil {
		if err := t.db.countWatch(); err != nil {
			return err
		}
		t.db.keep(t.outside)
	}
	t.db.tables.Store(t.db.fold(s.sql()), s.String())
	if !t.opts.ReadOnly {
		t.db.mapped.Store(true)
	}
	return nil
}

// isOurs tells whether the table is one that Open has made.
func isOurs(ctx context.Context, conn *session, db *Database, s *shape) (own bool, err error) {
	if s.kind == "" {
		return false, nil
	}
	err = conn.query(ctx, "SELECT 1 FROM "+quote(s.schema)+"."+quote(metaName)+" WHERE `name` = ?", []any{db.fold(s.name)},
		func([]driver.Value) error { own = true; return nil })
	switch number(err) {
	case errNoTable, 1142, 1143, 1054:
		return false, nil
	}
	return own, err
}

// Database returns the database that the table was opened in.
func (t *Table[K, V]) Database() *Database { return t.db }

// Close closes the database if NewTable has opened it, and waits for the calls under
// way. A table from NewTableIn has nothing to close.
func (t *Table[K, V]) Close() error {
	if !t.owned {
		return nil
	}
	return t.db.Close()
}

// Capabilities implements lockstep.Store.
func (t *Table[K, V]) Capabilities() lockstep.Capabilities[K, V] {
	caps := lockstep.Capabilities[K, V]{
		Name:     "mysql",
		ReadOnly: t.opts.ReadOnly,
		Versions: t.m.Versioned(),
		Clone:    t.m.Clone,
		Scan:     t.scan,
		Table:    t.clock,
		Replaced: t.db.which.Listen,
	}
	if t.outside != nil {
		caps.Watch = t.watch
	}
	if t.opts.ReadOnly {
		return caps
	}
	caps.Checks, caps.Atomic, caps.DeleteAll, caps.Inserts = true, true, true, t.m.Inserts
	caps.Batch = lockstep.BatchAdvice{MaxOps: maxRows, InFlight: 2}
	caps.Prepare, caps.Settle = t.m.Prepare, settle[V]
	caps.Interruptible = true
	caps.Database, caps.Begin, caps.Apply, caps.Read = t.db, t.db.begin, t.apply, t.readIn
	return caps
}

// Load implements lockstep.Store. It costs a round trip for each 256 keys. A row that
// does not fit the fields, such as a NULL where none can be held, is an error that is
// ErrInvalid and names the table, the key and the column; it can be written and
// deleted like any other.
func (t *Table[K, V]) Load(ctx context.Context, keys []K) (map[K]lockstep.Row[V], error) {
	bound, err := t.bind(keys)
	if err != nil {
		return nil, err
	}
	rows := make(map[K]lockstep.Row[V], len(keys))
	if len(keys) == 0 {
		return rows, t.db.closed()
	}
	if err := t.db.read(ctx, func(conn *session) error { return t.read(ctx, conn, bound, rows) }); err != nil {
		return nil, t.readError(err)
	}
	return rows, nil
}

// readIn implements Capabilities.Read.
func (t *Table[K, V]) readIn(ctx context.Context, tx lockstep.Txn, keys []K) (map[K]lockstep.Row[V], error) {
	bound, err := t.bind(keys)
	if err != nil {
		return nil, err
	}
	x, err := t.db.opened(tx)
	if err != nil {
		return nil, err
	}
	rows := make(map[K]lockstep.Row[V], len(keys))
	if len(keys) == 0 {
		return rows, nil
	}
	if err := x.reading(ctx, t.shape.sql(), func() error { return t.read(ctx, x.a.s, bound, rows) }); err != nil {
		return nil, t.readError(err)
	}
	return rows, nil
}

func (t *Table[K, V]) bind(keys []K) (bound [][]any, err error) {
	bound = make([][]any, len(keys))
	for i, k := range keys {
		if bound[i], err = t.m.BindKey(k); err != nil {
			return nil, err
		}
	}
	return bound, nil
}

// read reads the rows of keys in a session.
func (t *Table[K, V]) read(ctx context.Context, conn *session, bound [][]any, rows map[K]lockstep.Row[V]) error {
	return t.sql.read.byKeys(bound, func(query string, args []any) error {
		if ctx.Err() != nil {
			return gaveUp(ctx, "loading")
		}
		return conn.query(ctx, query, args, func(cols []driver.Value) error {
			k, r, err := t.row(cols)
			rows[k] = r
			return err
		})
	})
}

func (t *Table[K, V]) readError(err error) error {
	if errors.Is(err, keytext.ErrDecode) {
		return invalid("%w", err)
	}
	return unasked(err)
}

// row makes a Row of the columns of a SELECT.
func (t *Table[K, V]) row(cols []driver.Value) (k K, r lockstep.Row[V], err error) {
	row := t.normal(cols)
	if k, err = t.m.ScanKey(row); err == nil {
		r, err = t.m.Row(k, row[t.sql.keys:])
	}
	return k, r, err
}

// normal copies the columns of the key and the value, each as its wire says.
func (t *Table[K, V]) normal(cols []driver.Value) []driver.Value {
	row := make([]driver.Value, len(t.wires))
	for i, w := range t.wires {
		row[i] = w.normal(cols[i])
	}
	return row
}

// normal is what the driver returns in one form, whatever the column's width and
// the way it went. Bytes are copied.
func (w wire) normal(v driver.Value) driver.Value {
	switch x := v.(type) {
	case []byte:
		switch w {
		case wireBytes:
			return append([]byte{}, x...)
		case wireInt: // above the last int64
			if n, err := strconv.ParseUint(string(x), 10, 64); err == nil {
				return n
			}
		}
		return string(x)
	case float32:
		return float64(x)
	case uint64:
		return integerOf(x)
	}
	return v
}

// scan implements Capabilities.Scan: the rows by key.
func (t *Table[K, V]) scan(ctx context.Context, cursor any, limit int) (lockstep.Page[K, V], error) {
	if limit <= 0 {
		return lockstep.Page[K, V]{}, invalid("the page's limit is %d", limit)
	}
	query, args := t.sql.scanFirst, []any{int64(limit)}
	if cursor != nil {
		after, ok := cursor.(tableCursor)
		if !ok || len(after) != t.sql.keys {
			return lockstep.Page[K, V]{}, invalid("the cursor %v is not one of table %s", cursor, t.shape)
		}
		query, args = t.sql.scanNext, append(afterArgs(after), int64(limit))
	}
	var page lockstep.Page[K, V]
	var last tableCursor
	err := t.db.read(ctx, func(conn *session) error {
		return conn.query(ctx, query, args, func(cols []driver.Value) error {
			k, r, err := t.row(cols)
			if err != nil {
				return err
			}
			page.Keys, page.Rows = append(page.Keys, k), append(page.Rows, r)
			last = boundOf(t.normal(cols)[:t.sql.keys])
			return nil
		})
	})
	if err != nil {
		return lockstep.Page[K, V]{}, t.readError(err)
	}
	if len(page.Keys) == limit {
		page.Next = last
	}
	return page, nil
}

// tableCursor is where a page has ended: the key's columns of its last row.
type tableCursor []any

func boundOf(row []driver.Value) []any {
	key := make([]any, len(row))
	for i, v := range row {
		key[i] = v
	}
	return key
}

package pgstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// TableOptions are the options of NewTable. The zero value is sound.
type TableOptions struct {
	// ReadOnly refuses every write.
	ReadOnly bool
	// VersionColumn names the version's column, a bigint, where V has no field for it.
	// It cannot be set beside a field tagged as the version. Where V is rows.Row a NOT NULL
	// bigint called version is taken without it, unless this is rows.NoVersion.
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
// writes all its insertions, updates and deletions in one statement each, so that
// its cost in round trips does not grow with its rows; only a row that is written
// twice in a batch makes it two. Whether a row is inserted or updated is decided
// under its lock: a row is found by its primary key, and a value that another unique
// index forbids is refused and changes nothing. Every row that is written is read
// back in the same transaction, and so the cache gets what generated columns,
// defaults, rounding and triggers have made of it; what a trigger that is deferred to
// the commit makes of it is not seen. A write by which a trigger, or a foreign key's
// action (ON DELETE CASCADE and its like), would change rows of another table that was
// mapped in the same Database is refused: the error is ErrInvalid and names that table.
// So is one by which a foreign key's action would change other rows of its own table.
// Delete the rows that depend on a row before it, or in the same set.
//
// A row is locked by every transaction that has read it or writes it. A row that is
// absent has no lock in PostgreSQL. Transactions that rely on its absence exclude all
// stores of this package that would insert it, in whatever process, by advisory locks
// (pg_advisory_xact_lock); they do not exclude other programs, which may insert it
// between the check and the commit. A change that itself inserts the row needs no
// such lock: the primary key decides, whoever else inserts it.
//
// A table whose primary key is one column with a default, as serial and identity
// columns and `uuid DEFAULT gen_random_uuid()` are, takes insertions (Cache.Insert).
// Their keys come back in a round trip of their own, before COMMIT is sent.
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
	sql   tableSQL
	// floor is the highest version that a row was deleted with.
	floor *floor
	// outside is nil where the table is not watched.
	outside *outside
}

// NewTable looks at the server behind pool, and maps the table of that name. Close
// leaves the pool open. Its errors are those of OpenDatabase and NewTableIn.
func NewTable[K comparable, V any](ctx context.Context, pool *pgxpool.Pool, table string, opts TableOptions) (*Table[K, V], error) {
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

// NewTableIn maps a table of db. The name is as PostgreSQL takes it in SQL: users,
// app.users, or "Odd Names" in double quotes; without a schema it is looked for along
// the search_path, once. It reads the catalog once. An error that is ErrInvalid names
// everything that does not fit, column by column: a table or column that does not
// exist, a view or foreign table, no primary key, a key column that compares
// differently from Go's ==, a tag that is wrong, a NOT NULL column that nothing
// fills, a field whose type the column cannot hold unchanged, a privilege that the
// role lacks, rules, inheritance, row-level security, an unlogged table.
func NewTableIn[K comparable, V any](ctx context.Context, db *Database, table string, opts TableOptions) (*Table[K, V], error) {
	if db == nil {
		return nil, invalid("the database is nil")
	}
	session, err := db.session(ctx)
	if err != nil {
		return nil, openError(err)
	}
	var s *shape
	own := false
	var o *outside
	err = session.lease.use(func(c *pgx.Conn) error {
		if s, err = inspectTable(ctx, c, table); err == nil && s.kind != "" {
			own, err = isOurs(ctx, c, s)
		}
		if err == nil && s.kind != "" && s.watched {
			var logs []*changeLog
			if logs, err = s.logs(); err == nil {
				o, err = findOutside(ctx, c, logs, s.oid)
			}
		}
		return err
	})
	if err != nil && !named(err) {
		db.drop(session)
		return nil, openError(err)
	}
	db.release(session)
	switch {
	case err != nil:
		return nil, err
	case own:
		return nil, invalid("%s is a key-value table of lockstep, with tombstones among its rows; OpenIn opens it", s)
	case s.persistence == "u" && !db.opts.AllowUnsafeDurability:
		return nil, invalid("table %s is unlogged: a crash empties it; DatabaseOptions.AllowUnsafeDurability accepts that", s)
	}
	if o != nil && db.opts.Pooled {
		return nil, errNotWatchable(s.String())
	}
	m, err := mapTo[K, V](s, mapping.Options(opts))
	if err != nil {
		return nil, err
	}
	if err := db.ensureLanes(ctx); err != nil {
		return nil, err
	}
	db.mapped.Store(s.oid, mappedTable{s.String(), s.parts})
	db.keep(o)
	return &Table[K, V]{
		outside: o, db: db, opts: opts, shape: s, m: m, sql: newTableSQL(s, m.Key, m.Value, m.Version), floor: db.floor(s.sql()),
	}, nil
}

// isOurs tells whether the table is one that Open has made.
func isOurs(ctx context.Context, c *pgx.Conn, s *shape) (own bool, err error) {
	meta := qualify(s.schema, metaName)
	var there bool
	if err = c.QueryRow(ctx, "SELECT to_regclass($1::text) IS NOT NULL", meta).Scan(&there); err != nil || !there {
		return false, err
	}
	err = c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+meta+" WHERE name = $1::text)", s.name).Scan(&own)
	return own, err
}

// Database returns the database that the table is in.
func (t *Table[K, V]) Database() *Database { return t.db }

// Close closes the database if NewTable has opened it, and waits for the calls under
// way. The pool stays open. A table from NewTableIn has nothing to close.
func (t *Table[K, V]) Close() error {
	if !t.owned {
		return nil
	}
	return t.db.Close()
}

// Capabilities implements lockstep.Store.
func (t *Table[K, V]) Capabilities() lockstep.Capabilities[K, V] {
	caps := lockstep.Capabilities[K, V]{
		Name:     "postgres",
		ReadOnly: t.opts.ReadOnly,
		Versions: t.m.Versioned(),
		Clone:    t.m.Clone,
		Scan:     t.scan,
		Table:    t.floor,
		Replaced: t.db.server.Listen,
	}
	if t.outside != nil {
		caps.Watch = t.watchChanges
	}
	if t.opts.ReadOnly {
		return caps
	}
	caps.Checks, caps.Atomic, caps.DeleteAll, caps.Inserts = true, true, true, t.m.Inserts
	caps.Batch = lockstep.BatchAdvice{MaxOps: 512, InFlight: 2}
	caps.Prepare, caps.Settle = t.m.Prepare, settle[V]
	caps.Interruptible = true
	caps.Database, caps.Begin, caps.Apply, caps.Read = t.db, t.db.begin, t.apply, t.readIn
	return caps
}

// Load implements lockstep.Store, in one round trip however many keys there are. A
// row that does not fit the fields, such as a NULL where none can be held, is an
// error that is ErrInvalid and names the table, the key and the column; it can be
// written and deleted like any other.
func (t *Table[K, V]) Load(ctx context.Context, keys []K) (map[K]lockstep.Row[V], error) {
	rows, load, err := t.loading(keys)
	if err == nil && len(keys) > 0 {
		err = t.query(ctx, func() command {
			clear(rows)
			return load
		})
	}
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// readIn implements Capabilities.Read.
func (t *Table[K, V]) readIn(ctx context.Context, tx lockstep.Txn, keys []K) (map[K]lockstep.Row[V], error) {
	rows, load, err := t.loading(keys)
	if err != nil {
		return nil, err
	}
	x, err := t.db.open(ctx, tx)
	if err == nil && len(keys) > 0 {
		err = readError(x.a.session.run(ctx, load))
	}
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// loading is the command that fills rows.
func (t *Table[K, V]) loading(keys []K) (rows map[K]lockstep.Row[V], load command, err error) {
	rows = make(map[K]lockstep.Row[V], len(keys))
	bound := make([][]any, len(keys))
	for i, k := range keys {
		if bound[i], err = t.m.BindKey(k); err != nil {
			return nil, command{}, err
		}
	}
	return rows, command{sql: t.sql.read, args: t.keyArgs(bound), row: t.row(func(row []driver.Value) error {
		k, err := t.m.ScanKey(row)
		if err == nil {
			rows[k], err = t.m.Row(k, row[len(t.m.Key):])
		}
		return err
	})}, nil
}

// scan implements Capabilities.Scan: the rows by key.
func (t *Table[K, V]) scan(ctx context.Context, cursor any, limit int) (lockstep.Page[K, V], error) {
	if limit <= 0 {
		return lockstep.Page[K, V]{}, invalid("the page's limit is %d", limit)
	}
	query, args := t.sql.scanFirst, []any{int64(limit)}
	if cursor != nil {
		after, ok := cursor.(tableCursor)
		if !ok || len(after) != len(t.m.Key) {
			return lockstep.Page[K, V]{}, invalid("the cursor %v is not one of table %s", cursor, t.shape)
		}
		query, args = t.sql.scanNext, append(args, after...)
	}
	var page lockstep.Page[K, V]
	var last tableCursor
	read := command{sql: query, args: args, row: t.row(func(row []driver.Value) error {
		k, err := t.m.ScanKey(row)
		if err != nil {
			return err
		}
		r, err := t.m.Row(k, row[len(t.m.Key):])
		if err != nil {
			return err
		}
		page.Keys, page.Rows = append(page.Keys, k), append(page.Rows, r)
		last = last[:0]
		for _, part := range row[:len(t.m.Key)] {
			last = append(last, part)
		}
		return nil
	})}
	err := t.query(ctx, func() command {
		page, last = lockstep.Page[K, V]{}, nil
		return read
	})
	if err != nil {
		return lockstep.Page[K, V]{}, err
	}
	if len(page.Keys) == limit {
		page.Next = last
	}
	return page, nil
}

// tableCursor is where a page has ended: the key's columns of its last row.
type tableCursor []any

// query runs a command that reads, in a session of its own. It begins it anew as often as
// it has to be read again.
func (t *Table[K, V]) query(ctx context.Context, begin func() command) error {
	for try := 1; ; try++ {
		again, err := t.queryOnce(ctx, begin(), try)
		if !again {
			return err
		}
	}
}

func (t *Table[K, V]) queryOnce(ctx context.Context, c command, try int) (again bool, err error) {
	s, err := t.db.session(ctx)
	if err != nil {
		return false, readError(err)
	}
	defer s.forsake()
	err = s.run(ctx, c)
	refused := err != nil && fateOf(err) == fateRefused // a key that its type does not have
	if err != nil && !refused && !errors.Is(err, keytext.ErrDecode) {
		t.db.drop(s)
	} else {
		t.db.release(s)
	}
	if refused {
		return false, invalid("table %s: %w", t.shape, err)
	}
	return s.readAgain(ctx, err, try), readError(err)
}

// row makes a command's row of a function that takes the key's columns and then the
// mapped ones. The slice is used again for the next row.
func (t *Table[K, V]) row(each func(row []driver.Value) error) func(scan func(...any) error) error {
	n := len(t.m.Key) + len(t.m.Value)
	cells, into, row := make([]cell, n), make([]any, n), make([]driver.Value, n)
	for i := range cells {
		w := wire("")
		if i < len(t.m.Key) {
			w = wire(t.m.Key[i].Type)
		} else {
			w = wire(t.m.Value[i-len(t.m.Key)].Type)
		}
		cells[i] = w.cell()
		into[i] = cells[i].into
	}
	return func(scan func(...any) error) error {
		if err := scan(into...); err != nil {
			return fmt.Errorf("table %s: %w: %w", t.shape, keytext.ErrDecode, err)
		}
		for i, c := range cells {
			row[i] = c.value()
		}
		return each(row)
	}
}

// keyArgs are the parameters of the key's columns, one array each.
func (t *Table[K, V]) keyArgs(keys [][]any) []any {
	args := make([]any, len(t.m.Key))
	for i, part := range t.m.Key {
		values := make([]any, len(keys))
		for j, key := range keys {
			values[j] = key[i]
		}
		args[i] = wire(part.Type).pack(values)
	}
	return args
}

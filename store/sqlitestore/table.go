package sqlitestore

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// TableOptions are the options of NewTable. The zero value is sound.
type TableOptions struct {
	// ReadOnly refuses every write.
	ReadOnly bool
	// VersionColumn names the version's column where V has no field for it. It
	// cannot be set beside a field tagged as the version. Where V is rows.Row a NOT NULL
	// INTEGER column called version is taken without it, unless this is rows.NoVersion.
	VersionColumn string
}

// Table maps an existing table: a lockstep.Store whose rows other programs can
// read and write as they always did. Its methods may be called from many
// goroutines at once.
//
// K is the primary key: one value, or a struct with a `db` tag on each field for
// a key of several columns; or rows.Key and V rows.Row, where the program does not know the
// columns. V is a struct with `db` tags on the fields that are
// mapped (see the package documentation); columns without a
// field are never written, and get their defaults in a new row. A field of V may
// repeat a column of the key: it is filled when the row is read, and when it is
// written must be zero or equal to the key. A row with a NULL in its key, as SQLite
// allows, is none that K can name: Scan passes it over, and DeleteAll deletes it.
//
// Every row that is written is read back in the same transaction, and so the
// cache gets what generated columns, defaults and triggers have made of it. A
// write by which a trigger, or a foreign key's action (ON DELETE CASCADE and its
// like), would change rows beside it that a cache may hold, of this table or of
// another one that was opened in the same Database, is refused: the error is
// ErrInvalid and names the row, its table and what would have changed it. It is
// made when the same transaction also names that row, by DeleteMany or Transact.
// Where the schema has triggers or such actions, a text key cannot contain a NUL.
//
// A table whose primary key is one column that SQLite fills, as an INTEGER PRIMARY
// KEY, with AUTOINCREMENT or without, or one with a DEFAULT, takes insertions
// (Cache.Insert).
//
// With a field tagged `db:"…,version"`, or a VersionColumn, the table has versions: max(version+1, µs
// since 1970), as in a table of our own, but without tombstones. Across a
// deletion they grow for as long as this process runs, and else while the clock
// does not step back. Without one, conditions by version are refused, and
// transactions compare the mapped columns of what they have read.
type Table[K comparable, V any] struct {
	db    *Database
	opts  TableOptions
	m     *mapping.Mapping[K, V]
	sql   tableStatements
	clock *clock
	// acts says that something in the schema changes rows by itself.
	acts bool
	// deferred is set once a set has left a deferred foreign key unresolved: from
	// then on each set has a savepoint, to be taken back alone.
	deferred atomic.Bool
}

// NewTable maps the table of that name. It reads the schema once, and
// waits for the commit under way; an error that
// is ErrInvalid names everything that does not fit, column by column: a table or
// column that does not exist, no primary key, a key column that compares or
// converts differently from Go's ==, a tag that is wrong, a NOT NULL column that
// nothing fills, a field whose type the column cannot hold unchanged.
func NewTable[K comparable, V any](ctx context.Context, db *Database, table string, opts TableOptions) (*Table[K, V], error) {
	if db == nil {
		return nil, invalid("the database is nil")
	}
	if err := checkTableName(table); err != nil {
		return nil, err
	}
	var s *shape
	err := db.read(ctx, func(c *conn) (err error) {
		if s, err = inspect(c, table); err != nil {
			return err
		}
		ours, err := isOurs(c, table)
		if ours && s.kind != "" {
			err = invalid("%s is a key-value table of lockstep, with tombstones among its rows; OpenIn opens it", s.name)
		}
		return err
	})
	if err != nil {
		return nil, readError(db.path, err)
	}
	m, err := mapTo[K, V](s, opts)
	if err != nil {
		return nil, err
	}
	var key []int
	for _, part := range s.key() {
		key = append(key, part.place)
	}
	if err := db.cacheable(ctx, s.name, key); err != nil {
		return nil, err
	}
	return &Table[K, V]{db: db, opts: opts, m: m, sql: newTableStatements(m.Table, m.Key, m.Value, m.Version), clock: db.clock(s.name), acts: s.acts}, nil
}

// Database returns the database that the table is in.
func (t *Table[K, V]) Database() *Database { return t.db }

// Capabilities implements lockstep.Store.
func (t *Table[K, V]) Capabilities() lockstep.Capabilities[K, V] {
	caps := lockstep.Capabilities[K, V]{
		Name:     "sqlite",
		ReadOnly: t.opts.ReadOnly,
		Versions: t.m.Versioned(),
		Clone:    t.m.Clone,
		Scan:     t.scan,
		Table:    t.clock,
	}
	if t.opts.ReadOnly {
		return caps
	}
	caps.Checks, caps.Atomic, caps.DeleteAll, caps.Immediate = true, true, true, true
	caps.Inserts = t.m.Inserts
	caps.Batch = lockstep.BatchAdvice{MaxOps: 512, InFlight: 1}
	caps.Prepare, caps.Settle = t.m.Prepare, settle[V]
	caps.Database, caps.Begin, caps.Apply = t.db, t.db.begin, t.apply
	if !t.acts {
		caps.Read = t.read // see Join
	}
	return caps
}

// tableStatements are the texts of what is run on one mapped table.
type tableStatements struct {
	load                   [len(chunks)]string // the key's columns, then the mapped ones
	scanFirst, scanNext    string
	insert, update, remove string
	give                   string // an insertion without the key, which it returns
	removeAll, left        string
	highest                string
}

func newTableStatements(table string, keys, values []mapping.Field, version int) tableStatements {
	var key, columns, into, marks, set []string
	for _, k := range keys {
		key = append(key, quote(k.Column))
		into, marks = append(into, quote(k.Column)), append(marks, "?")
	}
	// The plus hides the declared type from the driver, which would make a time of
	// whatever resembles one in a column called DATE.
	for _, name := range key {
		columns = append(columns, "+"+quote(table)+"."+name)
	}
	for i, v := range values {
		columns = append(columns, "+"+quote(table)+"."+quote(v.Column))
		if v.Written || i == version {
			into, marks = append(into, quote(v.Column)), append(marks, "?")
			if v.Default != "" {
				marks[len(marks)-1] = "coalesce(?, (" + v.Default + "))"
			}
			set = append(set, quote(v.Column)+" = ?")
		}
	}
	list := func(n int) string { return "?" + strings.Repeat(", ?", n-1) }
	all := strings.Join(key, ", ")
	where := "(" + all + ") = (" + list(len(key)) + ")"
	// A primary key may hold NULLs, which no key in Go is. The plus keeps the planner
	// from looking for what is not NULL, instead of for where the page starts.
	whole := "+" + strings.Join(key, " IS NOT NULL AND +") + " IS NOT NULL"
	from := "SELECT " + strings.Join(columns, ", ") + " FROM " + inMain(table)
	s := tableStatements{
		load:      selectChunks(from, key...),
		scanFirst: fmt.Sprintf("%s WHERE %s ORDER BY %s LIMIT ?", from, whole, all),
		scanNext:  fmt.Sprintf("%s WHERE (%s) > (%s) AND %s ORDER BY %s LIMIT ?", from, all, list(len(key)), whole, all),
		// OR ABORT overrides conflict clauses of the schema's own, such as UNIQUE ON
		// CONFLICT REPLACE, which would remove another row to make room for this one.
		insert:    fmt.Sprintf("INSERT OR ABORT INTO %s (%s) VALUES (%s)", inMain(table), strings.Join(into, ", "), strings.Join(marks, ", ")),
		remove:    fmt.Sprintf("DELETE FROM %s WHERE %s", inMain(table), where),
		removeAll: "DELETE FROM " + inMain(table),
		left:      fmt.Sprintf("SELECT EXISTS (SELECT 1 FROM %s)", inMain(table)),
	}
	s.give = fmt.Sprintf("INSERT OR ABORT INTO %s DEFAULT VALUES RETURNING %s", inMain(table), columns[0])
	if own := into[len(key):]; len(own) > 0 {
		s.give = fmt.Sprintf("INSERT OR ABORT INTO %s (%s) VALUES (%s) RETURNING %s", inMain(table), strings.Join(own, ", "), strings.Join(marks[len(key):], ", "), columns[0])
	}
	if len(set) > 0 {
		s.update = fmt.Sprintf("UPDATE OR ABORT %s SET %s WHERE %s", inMain(table), strings.Join(set, ", "), where)
	}
	if version >= 0 {
		// To max, a text is more than any number.
		s.highest = fmt.Sprintf("SELECT max(%[1]s) FROM %[2]s WHERE typeof(%[1]s) = 'integer'", quote(values[version].Column), inMain(table))
	}
	return s
}

package server

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/turn"
	sqlrows "github.com/lockstep-cache/lockstep/store/rows"
)

// TableStore is a store over a table that exists, as NewTable of the SQL stores returns one
// of rows.Key and rows.Row.
type TableStore interface {
	lockstep.Store[sqlrows.Key, sqlrows.Row]
	Columns() []sqlrows.Column
}

// Table is a table whose rows are hashes: users:42 is the row of the table called users here
// whose primary key is 42. Its columns are fields, NULL is a field that is not there. HSET and
// its like, HDEL and DEL write to it; what is about strings or ends, RENAME, COPY and FLUSHALL
// do not, and KEYS and SCAN tell of it.
type Table struct {
	// Name is what stands before the first colon of its keys. It has no colon in it.
	Name string

	// Store is where the rows are. Commands that name several keys are transactions, for
	// which it has to be in the same database as the others. Two Tables over one table, which
	// would have two caches, neither of which hears of the other's writes, are refused; but of
	// stores that do not share the value that the SQL stores call a Database nobody can tell.
	// The server does not close it.
	Store TableStore

	// ReadOnly refuses all commands that write.
	ReadOnly bool

	// Cache configures the cache over Store, as Options.Cache does the other.
	Cache lockstep.Options[sqlrows.Key, sqlrows.Row]
}

// table is one that is served.
type servedTable struct {
	name     string
	cache    *lockstep.Cache[sqlrows.Key, sqlrows.Row]
	columns  map[string]sqlrows.Column
	readOnly bool
	absent   time.Duration // see left

	turns turn.Table // as those of cached
	seed  maphash.Seed
}

// tables are those that are served.
type tables struct {
	all    []*servedTable // as Options has them
	byName map[string]*servedTable
}

func openTables(all []Table, keys any, tracking *tracking) (*tables, error) {
	ts := &tables{byName: map[string]*servedTable{}}
	served := map[any]string{} // what the tables are, and as what they are served
	if keys != nil {
		served[keys] = "keys that are not a table's"
	}
	for _, o := range all {
		err := func() error {
			_, twice := ts.byName[o.Name]
			switch {
			case o.Name == "" || strings.Contains(o.Name, ":"):
				return errors.New("its name must not be empty, nor have a colon in it")
			case twice:
				return errors.New("it is there twice")
			case o.Store == nil:
				return errors.New("it has no Store")
			case o.Cache.StaleIfError != 0 || o.Cache.Clone != nil:
				return errors.New("its Cache has StaleIfError or Clone: a reply cannot say that it is stale, and values cannot be changed")
			case o.Store.Columns() == nil:
				return errors.New("its Store knows no columns")
			}
			if identity := o.Store.Capabilities().Table; identity != nil {
				if as, twice := served[identity]; twice {
					return fmt.Errorf("its Store is over the table that is served as %s: each would have a cache, which does not hear of the other's writes", as)
				}
				served[identity] = o.Name + ":…"
			}
			if err := commits(o.Cache.Mode); err != nil {
				return fmt.Errorf("its Cache: %w", err)
			}
			t := &servedTable{name: o.Name, columns: map[string]sqlrows.Column{}, seed: maphash.MakeSeed(),
				readOnly: o.ReadOnly || o.Store.Capabilities().ReadOnly, absent: absentFor(o.Cache)}
			listen(tracking, &o.Cache.Hooks, t.of)
			cache, err := lockstep.New[sqlrows.Key, sqlrows.Row](o.Store, o.Cache)
			if err != nil {
				return fmt.Errorf("its Cache: %w", err)
			}
			t.cache = cache
			for _, c := range o.Store.Columns() {
				t.columns[c.Name] = c
			}
			ts.all, ts.byName[o.Name] = append(ts.all, t), t
			return nil
		}()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("server: Options.Tables: table %q: %w", o.Name, err), ts.close(context.Background()))
		}
	}
	return ts, nil
}

func (ts *tables) close(ctx context.Context) error {
	var all []error
	for _, t := range ts.all {
		if err := t.cache.Close(ctx); err != nil && !errors.Is(err, lockstep.ErrClosed) {
			all = append(all, fmt.Errorf("server: closing the cache of table %s: %w", t.name, err))
		}
	}
	return errors.Join(all...)
}

// find returns the table that a key belongs to, nil for none, and its row's key.
func (ts *tables) find(key string) (*servedTable, sqlrows.Key) {
	if len(ts.all) == 0 {
		return nil, ""
	}
	name, rest, found := strings.Cut(key, ":")
	if !found {
		return nil, ""
	}
	return ts.byName[name], sqlrows.Key(rest)
}

// of is a row's key as clients have it.
func (t *servedTable) of(key sqlrows.Key) string { return t.name + ":" + string(key) }

func (t *servedTable) get(ctx context.Context, key sqlrows.Key) (Value, error) {
	v, err := t.cache.Get(ctx, key)
	return Value(v), err
}

// change is done in a transaction, since a table may be without versions.
func (t *servedTable) change(ctx context.Context, key sqlrows.Key, decide func(old row) (next, error)) error {
	turns := []uint64{maphash.String(t.seed, string(key))}
	if err := t.turns.Take(ctx, turns); err != nil {
		return err
	}
	defer t.turns.Give(turns)
	w := writingOf(ctx)
	noted := len(w.changes)
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		w.changes = w.changes[:noted] // without those of a run before
		return tableRows{t, t.cache.In(tx)}.change(ctx, key, decide)
	})
}

// tableRows are a table's inside a transaction.
type tableRows struct {
	t  *servedTable
	in lockstep.InTx[sqlrows.Key, sqlrows.Row]
}

func (t tableRows) read(ctx context.Context, key sqlrows.Key) (row, lockstep.Version, error) {
	e, err := t.in.GetEntry(ctx, key)
	if errors.Is(err, lockstep.ErrNotFound) {
		return row{}, 0, nil
	}
	return row{exists: err == nil, value: Value(e.Value)}, e.Version, err
}

func (t tableRows) change(ctx context.Context, key sqlrows.Key, decide func(old row) (next, error)) error {
	old, _, err := t.read(ctx, key)
	if err != nil {
		return err
	}
	n, err := decide(old)
	switch {
	case err != nil:
		return err
	case n.remove && old.exists:
		return t.delete(ctx, key)
	case n.put:
		return t.set(ctx, key, n.value, n.end)
	}
	return nil
}

func (t tableRows) set(ctx context.Context, key sqlrows.Key, value Value, until end) error {
	if err := t.t.takes(value, until); err != nil {
		return err
	}
	t.t.begin(ctx, key)
	err := t.in.Set(ctx, key, sqlrows.Row(value))
	if err == nil {
		writingOf(ctx).changed(t.t.of(key), false, until)
	}
	return err
}

func (t tableRows) delete(ctx context.Context, key sqlrows.Key) error {
	t.t.begin(ctx, key)
	err := t.in.Delete(ctx, key)
	if err == nil {
		writingOf(ctx).changed(t.t.of(key), true, end{})
	}
	return err
}

// begin has those told who may have a copy of a row that is about to be written.
func (t *servedTable) begin(ctx context.Context, key sqlrows.Key) { writingOf(ctx).begin(t.of(key)) }

// takes refuses what no row of a table can be. Commands that would write it are refused
// before, by their names; none may be overlooked.
func (t *servedTable) takes(value Value, until end) error {
	switch {
	case value.kind() != hashKind:
		return t.wrongType()
	case until != end{}:
		return t.endless()
	}
	return nil
}

func (t *servedTable) wrongType() error {
	return reply("WRONGTYPE the keys " + t.name + ":… are rows of a table, which are hashes")
}

func (t *servedTable) endless() error {
	return reply("ERR the keys " + t.name + ":… are rows of a table, which have no end of their own")
}

// What commands that write do to a table.
var (
	tableWrites = strings.Fields("hset hmset hsetnx hdel hincrby hincrbyfloat del unlink")
	endWrites   = strings.Fields("expire expireat pexpire pexpireat persist")
	wholeWrites = strings.Fields("rename renamenx copy move restore")
)

// guarded is a command that writes and does not touch tables, or those that may only be read.
// It is decided by its name and its keys: so a command that is new is refused until somebody
// has thought about it.
func guarded(c *command) func(r *request) {
	keyed := c.keyed
	refuse := func(t *servedTable) error {
		switch {
		case t.readOnly:
			return reply("ERR table " + t.name + " is read-only here")
		case slices.Contains(tableWrites, c.name):
			return nil
		case slices.Contains(endWrites, c.name):
			return t.endless()
		case slices.Contains(wholeWrites, c.name):
			return reply("ERR the keys " + t.name + ":… are rows of a table, which " + strings.ToUpper(c.name) + " does not touch")
		}
		return t.wrongType()
	}
	return func(r *request) {
		if len(r.keys.tables.all) > 0 {
			for _, key := range c.keys.of(r.args) {
				if t, _ := r.keys.tables.find(string(key)); t != nil {
					if err := refuse(t); err != nil {
						r.fail(err)
						return
					}
				}
			}
		}
		keyed(r)
	}
}

// allows refuses an edit of columns that are not there, or not to be written.
func (t *servedTable) allows(e *edit) error {
	for _, name := range e.all {
		c, there := t.columns[string(name)]
		switch {
		case !there:
			return fmt.Errorf("%w: table %s has no column %.40q", lockstep.ErrInvalid, t.name, name)
		case c.Fixed:
			return fmt.Errorf("%w: table %s: column %s is not written by clients: it is the version, or the database makes it", lockstep.ErrInvalid, t.name, c.Name)
		case c.KeyPlace > 0 && (e.values == nil || e.adds != sqlrows.NoNumber):
			return fmt.Errorf("%w: table %s: column %s is part of the primary key", lockstep.ErrInvalid, t.name, c.Name)
		case c.Number < e.adds && (c.Number == sqlrows.NoNumber || e.adds == sqlrows.Whole):
			return fmt.Errorf("%w: table %s: column %s takes %s, to which nothing can be added", lockstep.ErrInvalid, t.name, c.Name, c.Takes)
		case e.values == nil && e.adds == sqlrows.NoNumber && c.NotNull:
			return fmt.Errorf("%w: table %s: column %s is NOT NULL, and takes %s", lockstep.ErrInvalid, t.name, c.Name, c.Takes)
		}
	}
	return nil
}

// left is how long memory may still answer for a key, or 0 for as long as nobody writes it;
// below zero, it asks the database each time.
func (k *keyspace) left(ctx context.Context, key string) (time.Duration, error) {
	if t, of := k.tables.find(key); t != nil {
		e, err := t.cache.GetEntry(ctx, of)
		if errors.Is(err, lockstep.ErrNotFound) {
			return t.absent, nil
		}
		return e.TTL, err
	}
	e, err := k.cache.GetEntry(ctx, key)
	if errors.Is(err, lockstep.ErrNotFound) {
		return k.absent, nil
	}
	return e.TTL, err
}

// absentFor is how long a cache remembers that there is no row, as left has it. When it has
// begun to is not known: a copy may be as old twice over.
func absentFor[K comparable, V any](o lockstep.Options[K, V]) time.Duration {
	if o.NegativeTTL != 0 {
		return o.NegativeTTL
	}
	return o.TTL
}

// tablePlace is where a SCAN is that has come to the tables.
type tablePlace struct {
	table int
	at    any
}

// page is a step of a SCAN: of the keys, and then of each table.
func (k *keyspace) page(ctx context.Context, from any, count int) (keys []string, values []Value, next any, err error) {
	place, inTables := from.(tablePlace)
	if !inTables {
		page, err := k.cache.ScanPage(ctx, from, count)
		if err != nil {
			return nil, nil, nil, err
		}
		for _, r := range page.Rows {
			values = append(values, r.Value)
		}
		if next = page.Next; next == nil && len(k.tables.all) > 0 {
			next = tablePlace{}
		}
		return page.Keys, values, next, nil
	}
	t := k.tables.all[place.table]
	page, err := t.cache.ScanPage(ctx, place.at, count)
	if err != nil {
		return nil, nil, nil, err
	}
	for i, key := range page.Keys {
		keys, values = append(keys, t.of(key)), append(values, Value(page.Rows[i].Value))
	}
	switch {
	case page.Next != nil:
		next = tablePlace{place.table, page.Next}
	case place.table+1 < len(k.tables.all):
		next = tablePlace{table: place.table + 1}
	}
	return keys, values, next, nil
}

package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// Options are the options of Open and OpenIn. The zero value is sound.
type Options struct {
	// Table is the table's name; "lockstep" if empty. It is made if it does not
	// exist.
	Table string
	// Codec encodes the values: a codec.Codec for the store's type of values, such
	// as codec.CBOR[User](); codec.JSON if nil. A table is opened with the
	// codec and the kind of key that it was made with.
	Codec codec.Any
	// MaxKeyBytes is the longest encoded key, beyond which a write or a load is
	// refused with ErrTooLarge; 0 stands for 8 KiB.
	MaxKeyBytes int
	// MaxValueBytes is the longest encoded value; 0 stands for 64 MiB. SQLite's
	// own limit is just under 1 GB.
	MaxValueBytes int
}

const (
	defaultTable    = "lockstep"
	defaultKeyBytes = 8 << 10
	defaultValue    = 64 << 20
	// sqliteBytes is SQLite's limit for a row, less room for its other columns.
	sqliteBytes = 1_000_000_000 - 1<<20
)

func (o Options) withDefaults() (Options, error) {
	if o.Table == "" {
		o.Table = defaultTable
	}
	if err := checkTableName(o.Table); err != nil {
		return o, err
	}
	switch {
	case o.MaxKeyBytes < 0:
		return o, invalid("Options.MaxKeyBytes is %d", o.MaxKeyBytes)
	case o.MaxValueBytes < 0:
		return o, invalid("Options.MaxValueBytes is %d", o.MaxValueBytes)
	case o.MaxKeyBytes > sqliteBytes/2 || o.MaxValueBytes > sqliteBytes/2:
		return o, invalid("Options.MaxKeyBytes and MaxValueBytes can be at most %d", sqliteBytes/2)
	}
	if o.MaxKeyBytes == 0 {
		o.MaxKeyBytes = defaultKeyBytes
	}
	if o.MaxValueBytes == 0 {
		o.MaxValueBytes = defaultValue
	}
	return o, nil
}

// Store is a key-value table of our own: a lockstep.Store with versions,
// tombstones, row lifetimes, transactions, scans and settlement. Its methods may
// be called from many goroutines at once.
type Store[K comparable, V any] struct {
	db    *Database
	owned bool
	opts  Options
	rows  kv.Rows[K, V]
	sql   statements
	clock *clock
}

// Open opens the database file at path and in it the table that opts name, and
// makes what is missing. Close closes both. Its errors are those of OpenDatabase
// and OpenIn.
func Open[K comparable, V any](ctx context.Context, path string, opts Options) (*Store[K, V], error) {
	// What is wrong with the options is found before a file is made.
	if _, _, err := prepareOpen[K, V](opts); err != nil {
		return nil, err
	}
	db, err := OpenDatabase(ctx, path, DatabaseOptions{})
	if err != nil {
		return nil, err
	}
	s, err := OpenIn[K, V](ctx, db, opts)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.owned = true
	return s, nil
}

// OpenIn opens a table of db, and makes it if it is missing. An error that is
// ErrInvalid says that the options contradict themselves or the table: made with
// another kind of key or another codec, by a newer version of this package, or
// not by this package at all; or that somebody has put a trigger on the table.
func OpenIn[K comparable, V any](ctx context.Context, db *Database, opts Options) (*Store[K, V], error) {
	opts, rows, err := prepareOpen[K, V](opts)
	if err != nil {
		return nil, err
	}
	if db == nil {
		return nil, invalid("the database is nil")
	}
	floor, err := db.ensureTable(ctx, tableInfo{
		name: opts.Table, key: rows.Key.Kind, keyColumn: declared[rows.Key.Form],
		codec: rows.Values.Name(), text: rows.Values.Text(),
	})
	if err != nil {
		return nil, err
	}
	if err := db.cacheable(ctx, opts.Table, nil); err != nil {
		return nil, err
	}
	s := &Store[K, V]{db: db, opts: opts, rows: rows, sql: newStatements(opts.Table), clock: db.clock(opts.Table)}
	s.clock.raise(floor)
	db.keeper.add(dbtag.Fold(opts.Table), s.sweep)
	return s, nil
}

// declared are the key columns' declared types.
var declared = map[keytext.Form]string{keytext.Text: "TEXT", keytext.Integer: "INTEGER", keytext.Real: "REAL", keytext.Bytes: "BLOB"}

func prepareOpen[K comparable, V any](opts Options) (Options, kv.Rows[K, V], error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return opts, kv.Rows[K, V]{}, err
	}
	rows := kv.Rows[K, V]{MaxValueBytes: opts.MaxValueBytes}
	if rows.Values, err = codec.For[V](opts.Codec); err != nil {
		return opts, rows, invalid("Options.Codec: %w", err)
	}
	rows.Key, err = keytext.New[K](opts.MaxKeyBytes)
	return opts, rows, err
}

// Database returns the database that the store's table is in.
func (s *Store[K, V]) Database() *Database { return s.db }

// Close closes the database if Open has opened it, and waits for the commits
// under way. A store from OpenIn has nothing to close.
func (s *Store[K, V]) Close() error {
	if !s.owned {
		return nil
	}
	return s.db.Close()
}

// Capabilities implements lockstep.Store.
func (s *Store[K, V]) Capabilities() lockstep.Capabilities[K, V] {
	return lockstep.Capabilities[K, V]{
		Name:       "sqlite",
		Versions:   true,
		Checks:     true,
		Atomic:     true,
		Tombstones: true,
		Lifetimes:  true,
		DeleteAll:  true,
		Immediate:  true,
		Batch:      lockstep.BatchAdvice{MaxOps: 512, InFlight: 1},
		Prepare:    s.rows.Prepare,
		Clone:      s.rows.Clone,
		Settle:     settle[V],
		Scan:       s.scan,
		Table:      s.clock, // of which there is one for each
		Database:   s.db,
		Begin:      s.db.begin,
		Apply:      s.apply,
		Read:       s.read,
	}
}

// settle implements Capabilities.Settle for every store of this package.
func settle[V any](ctx context.Context, err error) (lockstep.Settlement[V], error) {
	var u *unknownOutcome
	if !errors.As(err, &u) {
		return lockstep.Settlement[V]{}, invalid("settling an error of another store: %w", err)
	}
	applied, err := u.attempt.settle(ctx)
	switch {
	case errors.Is(err, errUntold):
		return lockstep.Settlement[V]{Err: fmt.Errorf("sqlite: %w", err)}, nil
	case err != nil:
		return lockstep.Settlement[V]{}, err
	}
	out := lockstep.Settlement[V]{Applied: applied}
	if applied {
		out.Outcomes, _ = u.attempt.result.([]lockstep.Outcome[V])
	}
	return out, nil
}

// now is the database's clock: SQLite's own is this machine's, too.
func now() time.Time { return time.Now() }

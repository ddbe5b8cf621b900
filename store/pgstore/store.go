package pgstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// Options are the options of Open and OpenIn. The zero value is sound.
type Options struct {
	// Table is the table's name, "lockstep" if empty, or schema.table; without a
	// schema it is in the first of the search path. It is made if it does not exist.
	Table string
	// Codec encodes the values: a codec.Codec for the store's type of values, such
	// as codec.CBOR[User](); codec.JSON if nil. A table is opened with the
	// codec and the kind of key that it was made with.
	Codec codec.Any
	// MaxKeyBytes is the longest encoded key, beyond which a write or a load is
	// refused with ErrTooLarge; 0 stands for 2 KiB. An index of PostgreSQL holds no
	// more than 2600.
	MaxKeyBytes int
	// MaxValueBytes is the longest encoded value; 0 stands for 64 MiB. PostgreSQL's
	// own limit is just under 1 GB.
	MaxValueBytes int
}

const (
	defaultTable    = "lockstep"
	defaultKeyBytes = 2 << 10
	defaultValue    = 64 << 20
	// indexBytes is what fits into an entry of a B-tree, less room for its header.
	indexBytes = 2600
	// fieldBytes is what fits into a message of the protocol together with others.
	fieldBytes = 512 << 20
)

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.MaxKeyBytes < 0 || o.MaxKeyBytes > indexBytes:
		return o, invalid("Options.MaxKeyBytes is %d, and must be from 0 to %d", o.MaxKeyBytes, indexBytes)
	case o.MaxValueBytes < 0 || o.MaxValueBytes > fieldBytes:
		return o, invalid("Options.MaxValueBytes is %d, and must be from 0 to %d", o.MaxValueBytes, fieldBytes)
	}
	if o.Table == "" {
		o.Table = defaultTable
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
	table tableInfo
	rows  kv.Rows[K, V]
	sql   statements
	floor *floor
	proposals
	// batches has those that are over, for their room.
	batches sync.Pool
	// outside is nil where the table is not watched.
	outside *outside
}

// Open looks at the server behind pool and opens the table that opts name, and
// makes it if it is missing. Close leaves the pool open. Its errors are those of
// OpenDatabase and OpenIn.
func Open[K comparable, V any](ctx context.Context, pool *pgxpool.Pool, opts Options) (*Store[K, V], error) {
	if _, _, err := prepareOpen[K, V](opts); err != nil {
		return nil, err
	}
	db, err := OpenDatabase(ctx, pool, DatabaseOptions{})
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
// another kind of key or another codec, by a newer version of this package, or not
// by this package at all; one that is unlogged, has triggers or rules, or lacks a
// privilege.
func OpenIn[K comparable, V any](ctx context.Context, db *Database, opts Options) (*Store[K, V], error) {
	opts, rows, err := prepareOpen[K, V](opts)
	if err != nil {
		return nil, err
	}
	if db == nil {
		return nil, invalid("the database is nil")
	}
	t := tableInfo{key: rows.Key.Kind, keyColumn: declared[rows.Key.Form], codec: rows.Values.Name(), text: rows.Values.Text()}
	if t.schema, t.name, err = db.splitTable(opts.Table); err != nil {
		return nil, err
	}
	purged, err := db.ensureTable(ctx, t)
	if err != nil {
		return nil, err
	}
	s := &Store[K, V]{db: db, table: t, rows: rows, floor: db.floor(t.qualified())}
	if s.outside, err = s.findOutside(ctx); err != nil {
		return nil, err
	}
	if s.outside != nil && db.opts.Pooled {
		return nil, errNotWatchable(t.qualified())
	}
	if err := db.ensureLanes(ctx); err != nil {
		return nil, err
	}
	s.sql = newStatements(t, s.outside)
	raise(&s.floor.Int64, purged)
	db.keeper.add(t.qualified(), s.sweep)
	db.keep(s.outside)
	return s, nil
}

// declared are the key columns' types.
var declared = map[keytext.Form]string{
	keytext.Text: `text COLLATE "C"`, keytext.Integer: "bigint", keytext.Real: "double precision", keytext.Bytes: "bytea",
}

func prepareOpen[K comparable, V any](opts Options) (Options, kv.Rows[K, V], error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return opts, kv.Rows[K, V]{}, err
	}
	rows := kv.Rows[K, V]{MaxValueBytes: opts.MaxValueBytes}
	if rows.Values, err = codec.For[V](opts.Codec); err != nil {
		return opts, rows, invalid("Options.Codec: %w", err)
	}
	if rows.Key, err = keytext.New[K](opts.MaxKeyBytes); err != nil {
		return opts, rows, err
	}
	rows.Key = escaped(rows.Key)
	return opts, rows, err
}

// Database returns the database that the store's table is in.
func (s *Store[K, V]) Database() *Database { return s.db }

// Close closes the database if Open has opened it, and waits for the calls under
// way. The pool stays open. A store from OpenIn has nothing to close.
func (s *Store[K, V]) Close() error {
	if !s.owned {
		return nil
	}
	return s.db.Close()
}

// Capabilities implements lockstep.Store. Two batches at once keep the server busy
// while the client is; more gain nothing, for the server groups its own commits.
func (s *Store[K, V]) Capabilities() lockstep.Capabilities[K, V] {
	caps := lockstep.Capabilities[K, V]{
		Name:       "postgres",
		Versions:   true,
		Checks:     true,
		Atomic:     true,
		Tombstones: true,
		Lifetimes:  true,
		DeleteAll:  true,
		Batch:      lockstep.BatchAdvice{MaxOps: 512, InFlight: 2},
		Prepare:    s.prepare,
		Clone:      s.rows.Clone,
		Settle:     settle[V],
		Scan:       s.scan,
		Table:      s.floor, // of which there is one for each
		Database:   s.db,
		Begin:      s.db.begin,
		Apply:      s.apply,
		Read:       s.readIn,
		Replaced:   s.db.server.Listen,

		Interruptible: true,
	}
	if s.outside != nil {
		caps.Watch = s.watch
	}
	return caps
}

// prepare is kv's, and refuses what a column of type text cannot hold. Mending it
// would be another value.
func (s *Store[K, V]) prepare(c lockstep.Change[K, V]) (lockstep.Change[K, V], int, error) {
	c, size, err := s.rows.Prepare(c)
	if err == nil {
		err = s.storable(c)
	}
	return c, size, err
}

func (s *Store[K, V]) storable(c lockstep.Change[K, V]) error {
	if !s.table.text || c.Delete {
		return nil
	}
	data := c.Prepared.(*kv.Prepared).Data
	if !utf8.Valid(data) {
		return invalid("key %v: the codec %s has made text that is not valid UTF-8", c.Key, s.table.codec)
	}
	for i, b := range data {
		if b == 0 {
			return invalid("key %v: the codec %s has made text with a NUL, at byte %d", c.Key, s.table.codec, i)
		}
	}
	return nil
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
		return lockstep.Settlement[V]{Err: fmt.Errorf("postgres: %w", err)}, nil
	case err != nil:
		return lockstep.Settlement[V]{}, err
	}
	out := lockstep.Settlement[V]{Applied: applied}
	if applied {
		out.Outcomes, _ = u.attempt.result.([]lockstep.Outcome[V])
	}
	return out, nil
}

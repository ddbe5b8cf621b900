package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"sync"
	"unicode/utf8"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// Options are the options of Open and OpenIn. The zero value is sound.
type Options struct {
	// Table is the table's name; "lockstep" if empty. It is made if it does not
	// exist.
	Table string
	// Codec encodes the values: a codec.Codec for the store's type of values, such as
	// codec.CBOR[User](); codec.JSON if nil. A table is opened with the codec and the
	// kind of key that it was made with.
	Codec codec.Any
	// MaxKeyBytes is the longest encoded key, beyond which a write or a load is
	// refused with ErrTooLarge; 0 stands for 1 KiB. InnoDB allows 3072.
	MaxKeyBytes int
	// MaxValueBytes is the longest encoded value; 0 stands for 64 MiB, or as much as
	// the server's max_allowed_packet allows, if that is less.
	MaxValueBytes int
}

const (
	defaultTable    = "lockstep"
	defaultKeyBytes = 1 << 10
	defaultValue    = 64 << 20
	// keyBytes is InnoDB's limit for an index of pages of 16 KiB.
	keyBytes = 3072
	// packetRoom is what a statement needs beside a value.
	packetRoom = 8 << 10
)

func (o Options) withDefaults() (Options, error) {
	if o.Table == "" {
		o.Table = defaultTable
	}
	if err := checkTableName(o.Table); err != nil {
		return o, err
	}
	switch {
	case o.MaxKeyBytes < 0 || o.MaxKeyBytes > keyBytes:
		return o, invalid("Options.MaxKeyBytes is %d, and must be from 0 to %d", o.MaxKeyBytes, keyBytes)
	case o.MaxValueBytes < 0 || o.MaxValueBytes > math.MaxInt32:
		return o, invalid("Options.MaxValueBytes is %d, and must be from 0 to %d", o.MaxValueBytes, math.MaxInt32)
	}
	if o.MaxKeyBytes == 0 {
		o.MaxKeyBytes = defaultKeyBytes
	}
	return o, nil
}

// fit makes the longest value one that the server lets through.
func (o Options) fit(maxPacket int64) (Options, error) {
	most := maxPacket - packetRoom
	switch {
	case most <= 0:
		return o, invalid("max_allowed_packet is %d", maxPacket)
	case o.MaxValueBytes == 0:
		o.MaxValueBytes = int(min(defaultValue, most))
	case int64(o.MaxValueBytes) > most:
		return o, invalid("Options.MaxValueBytes is %d, and the server's max_allowed_packet of %d allows %d", o.MaxValueBytes, maxPacket, most)
	}
	return o, nil
}

// Store is a key-value table of our own: a lockstep.Store with versions, tombstones,
// row lifetimes, transactions, scans and settlement. Its methods may be called from
// many goroutines at once.
type Store[K comparable, V any] struct {
	db    *Database
	owned bool
	opts  Options
	rows  kv.Rows[K, V]
	sql   *statements
	clock *tableClock
	// batches has those that are over, for their room.
	batches sync.Pool
	// outside is nil where the table is not watched.
	outside *outside
}

// Open takes the database that pool's DSN names and opens in it the table that opts
// name, which is made if it is missing. Close ends what Open has begun, and leaves
// the pool alone. Its errors are those of OpenDatabase and OpenIn.
func Open[K comparable, V any](ctx context.Context, pool *sql.DB, opts Options) (*Store[K, V], error) {
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
// by this package at all; or that somebody has changed it so that the promises could
// not be kept.
func OpenIn[K comparable, V any](ctx context.Context, db *Database, opts Options) (*Store[K, V], error) {
	opts, rows, err := prepareOpen[K, V](opts)
	if err != nil {
		return nil, err
	}
	if db == nil {
		return nil, invalid("the database is nil")
	}
	if opts, err = opts.fit(db.server.maxPacket); err != nil {
		return nil, err
	}
	rows.MaxValueBytes = opts.MaxValueBytes
	floor, err := db.ensureTable(ctx, tableInfo{
		name: opts.Table, key: rows.Key.Kind, form: rows.Key.Form, keyBytes: opts.MaxKeyBytes,
		codec: rows.Values.Name(), text: rows.Values.Text(),
	})
	if err != nil {
		return nil, err
	}
	s := &Store[K, V]{db: db, opts: opts, rows: rows, sql: newStatements(db.qualified(opts.Table), db.server.mariadb()), clock: db.tableClock(opts.Table)}
	s.clock.raise(floor)
	if s.outside, err = s.findOutside(ctx); err != nil {
		return nil, openError(err)
	}
	if s.outside != nil {
		if err := db.countWatch(); err != nil {
			return nil, err
		}
		db.keep(s.outside)
	}
	db.tables.Store(db.fold(db.qualified(opts.Table)), opts.Table)
	db.keeper.add(db.fold(opts.Table), s.sweep)
	return s, nil
}

func prepareOpen[K comparable, V any](opts Options) (Options, kv.Rows[K, V], error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return opts, kv.Rows[K, V]{}, err
	}
	var rows kv.Rows[K, V]
	if rows.Values, err = codec.For[V](opts.Codec); err != nil {
		return opts, rows, invalid("Options.Codec: %w", err)
	}
	if rows.Values.Text() {
		rows.Values = utf8Codec[V]{rows.Values}
	}
	if rows.Key, err = keytext.New[K](opts.MaxKeyBytes); err != nil {
		return opts, rows, err
	}
	if rows.Key.Form == keytext.Real {
		encode := rows.Key.Encode
		rows.Key.Encode = func(k K) (any, error) {
			v, err := encode(k)
			if f, ok := v.(float64); ok && math.IsInf(f, 0) {
				return nil, invalid("key %v: a DOUBLE holds no infinity", k)
			}
			return v, err
		}
	}
	return opts, rows, nil
}

// utf8Codec refuses what a text column would: the server says so too late for a set
// whose row another set of the batch writes again.
type utf8Codec[V any] struct{ codec.Codec[V] }

func (c utf8Codec[V]) Encode(dst []byte, v V) ([]byte, error) {
	data, err := c.Codec.Encode(dst, v)
	if err == nil && !utf8.Valid(data[len(dst):]) {
		err = errors.New("what its codec calls text is not UTF-8")
	}
	return data, err
}

// Database returns the database that the store's table is in.
func (s *Store[K, V]) Database() *Database { return s.db }

// Close closes the database if Open has opened it, and waits for the commits under
// way. A store from OpenIn has nothing to close.
func (s *Store[K, V]) Close() error {
	if !s.owned {
		return nil
	}
	return s.db.Close()
}

// Capabilities implements lockstep.Store.
func (s *Store[K, V]) Capabilities() lockstep.Capabilities[K, V] {
	caps := lockstep.Capabilities[K, V]{
		Name:       "mysql",
		Versions:   true,
		Checks:     true,
		Atomic:     true,
		Tombstones: true,
		Lifetimes:  true,
		DeleteAll:  true,
		Batch:      lockstep.BatchAdvice{MaxOps: maxRows, InFlight: 2},
		Prepare:    s.rows.Prepare,
		Clone:      s.rows.Clone,
		Settle:     settle[V],
		Scan:       s.scan,
		Table:      s.clock, // of which there is one for each
		Database:   s.db,
		Begin:      s.db.begin,
		Replaced:   s.db.which.Listen,
		Apply:      s.apply,
		Read:       s.readIn,

		Interruptible: true,
	}
	if s.outside != nil {
		caps.Watch = s.watch
	}
	return caps
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
		return lockstep.Settlement[V]{Err: fmt.Errorf("mysql: %w", err)}, nil
	case err != nil:
		return lockstep.Settlement[V]{}, err
	}
	out := lockstep.Settlement[V]{Applied: applied}
	if applied {
		out.Outcomes, _ = u.attempt.result.([]lockstep.Outcome[V])
	}
	return out, nil
}

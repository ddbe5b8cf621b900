package lockstep

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/lockstep-cache/lockstep/internal/nils"
)

// FromFunc returns a read-only store that loads by calling load: one line to
// cache a function. load returns ErrNotFound for a key that has no value. It is
// called from many goroutines, for one key at a time, and should return soon
// after its context ends. An error of load's fails all reads that share the call
// of Store.Load, as those of one GetMany do, unless it is ErrInvalid: that is
// about its key alone.
func FromFunc[K comparable, V any](load func(ctx context.Context, key K) (V, error)) Store[K, V] {
	if load == nil {
		return nil
	}
	return funcStore[K, V]{load}
}

type funcStore[K comparable, V any] struct {
	load func(ctx context.Context, key K) (V, error)
}

func (s funcStore[K, V]) Load(ctx context.Context, keys []K) (map[K]Row[V], error) {
	return loadEach(ctx, keys, s.load)
}

func (s funcStore[K, V]) Commit(context.Context, []ChangeSet[K, V]) ([]Outcome[V], error) {
	return nil, fmt.Errorf("%w: the store is read-only", ErrUnsupported)
}

func (s funcStore[K, V]) Capabilities() Capabilities[K, V] {
	return Capabilities[K, V]{Name: "func", ReadOnly: true}
}

func loadEach[K comparable, V any](ctx context.Context, keys []K, load func(context.Context, K) (V, error)) (map[K]Row[V], error) {
	rows := make(map[K]Row[V], len(keys))
	for _, key := range keys {
		value, err := load(ctx, key)
		switch {
		case err == nil:
			rows[key] = Row[V]{Value: value, Exists: true}
		case errors.Is(err, ErrNotFound):
		default:
			return nil, err
		}
	}
	return rows, nil
}

// DataStore is a database behind four plain methods, as many programs have them.
type DataStore[K comparable, V any] interface {
	// Read returns ErrNotFound for a key that has no row.
	Read(ctx context.Context, key K) (V, error)
	Write(ctx context.Context, key K, value V) error
	// WriteBatch writes all the rows, or, as far as it can, none.
	WriteBatch(ctx context.Context, values map[K]V) error
	// Delete removes the row. Deleting an absent row is no error.
	Delete(ctx context.Context, key K) error
}

// FromDataStore returns a store over ds. It has no versions, so it refuses
// IfVersion, IfAbsent, Update, Insert and Transact, and also Lifetime, Scan, DeleteAll
// and DeleteMany of several keys, with ErrUnsupported. Cache.Delete over it
// reports false always: four plain methods do not tell whether a row was there,
// and one read just before may have been deleted by somebody else.
//
// An error of Write, WriteBatch or Delete does not say whether the database has
// applied what it was asked. Unless it is ErrInvalid, ErrConflict, ErrTooLarge or
// ErrUnavailable, which are believed, the write's outcome is unknown, and is
// settled by reading the rows: those that are as written count as written, and
// those that are there though they were deleted, or are not there though they were
// written, as not. Of any others it cannot be told, because databases change what
// they are given, and Wait says so. That assumes that a call which has returned is over, and that nothing of it is
// applied later. A database for which this is not so needs a Store.
//
// Writes are not combined: one that fails must not fail others. Up to 16 of them
// run at once, on different keys.
func FromDataStore[K comparable, V any](ds DataStore[K, V]) Store[K, V] {
	if nils.Is(ds) {
		return nil
	}
	return plainStore[K, V]{ds}
}

type plainStore[K comparable, V any] struct {
	ds DataStore[K, V]
}

func (s plainStore[K, V]) Capabilities() Capabilities[K, V] {
	return Capabilities[K, V]{
		Name:   "datastore",
		Batch:  BatchAdvice{MaxOps: 1, InFlight: 16},
		Settle: s.settle,
	}
}

func (s plainStore[K, V]) Load(ctx context.Context, keys []K) (map[K]Row[V], error) {
	return loadEach(ctx, keys, s.ds.Read)
}

// plainDoubt is a write of a plain store that failed.
type plainDoubt[K comparable, V any] struct {
	sets  []ChangeSet[K, V]
	at    int // the sets before it were applied, those after it were not tried
	done  []Outcome[V]
	cause error
}

func (e *plainDoubt[K, V]) Error() string        { return e.cause.Error() }
func (e *plainDoubt[K, V]) Unwrap() error        { return e.cause }
func (e *plainDoubt[K, V]) Is(target error) bool { return target == ErrUnknownOutcome }

func (s plainStore[K, V]) Commit(ctx context.Context, sets []ChangeSet[K, V]) ([]Outcome[V], error) {
	outcomes := make([]Outcome[V], len(sets))
	for i, set := range sets {
		if err := plainRefusal(set); err != nil {
			outcomes[i] = Outcome[V]{Err: err}
			continue
		}
		err := aside("the data store", errPlainPanic, func() error { return s.apply(ctx, set) })
		switch {
		case err == nil:
			// No rows: what the database made of the values is not known, so the cache
			// will read them.
			outcomes[i] = Outcome[V]{}
		case believed(err):
			outcomes[i] = Outcome[V]{Err: err}
		default:
			return nil, &plainDoubt[K, V]{sets: sets, at: i, done: outcomes[:i], cause: err}
		}
	}
	return outcomes, nil
}

// errPlainPanic is the error of a call that panicked, or ended its goroutine: it
// may have written before.
var errPlainPanic = errors.New("lockstep: the data store did not return")

// believed tells whether an error says that nothing was written. Others of ours
// say nothing about this write: they may come from whatever else the program did
// in its method.
func believed(err error) bool {
	for _, e := range []error{ErrInvalid, ErrConflict, ErrTooLarge, ErrUnavailable} {
		if errors.Is(err, e) {
			return !errors.Is(err, ErrUnknownOutcome)
		}
	}
	return false
}

// plainRefusal says what of the set four plain methods cannot do.
func plainRefusal[K comparable, V any](set ChangeSet[K, V]) error {
	if set.DeleteAll || len(set.Checks) > 0 {
		return fmt.Errorf("%w: checks and DeleteAll", ErrUnsupported)
	}
	for _, c := range set.Changes {
		if c.Insert {
			return fmt.Errorf("%w: Insert", ErrUnsupported)
		}
		if c.Expect.Kind != ExpectAnything || c.Lifetime != 0 || !c.ExpiresAt.IsZero() {
			return fmt.Errorf("%w: conditions and lifetimes", ErrUnsupported)
		}
		if c.Delete && len(set.Changes) > 1 {
			return fmt.Errorf("%w: a deletion among several changes", ErrUnsupported)
		}
	}
	return nil
}

func (s plainStore[K, V]) apply(ctx context.Context, set ChangeSet[K, V]) error {
	switch only := set.Changes; {
	case len(only) == 0:
		return nil
	case len(only) > 1:
		values := make(map[K]V, len(only))
		for _, c := range only {
			values[c.Key] = c.Value
		}
		return s.ds.WriteBatch(ctx, values)
	case only[0].Delete:
		return s.ds.Delete(ctx, only[0].Key)
	default:
		return s.ds.Write(ctx, only[0].Key, only[0].Value)
	}
}

func (s plainStore[K, V]) settle(ctx context.Context, err error) (Settlement[V], error) {
	var doubt *plainDoubt[K, V]
	if !errors.As(err, &doubt) {
		return Settlement[V]{}, fmt.Errorf("%w: not an unknown outcome of this store: %v", ErrUnsupported, err)
	}
	set := doubt.sets[doubt.at]
	written, unwritten, untold := 0, 0, 0
	for _, c := range set.Changes {
		value, err := s.ds.Read(ctx, c.Key)
		switch {
		case err != nil && !errors.Is(err, ErrNotFound):
			return Settlement[V]{}, err
		case c.Delete == (err != nil) && (c.Delete || reflect.DeepEqual(value, c.Value)):
			written++
		case c.Delete || err != nil:
			unwritten++
		default:
			// The old row, or the new one as the database has changed it.
			untold++
		}
	}
	if untold > 0 || written > 0 && unwritten > 0 {
		return Settlement[V]{Err: fmt.Errorf("%d of %d rows are as written: %w", written, len(set.Changes), doubt.cause)}, nil
	}
	outcomes := append([]Outcome[V](nil), doubt.done...)
	for i := doubt.at; i < len(doubt.sets); i++ {
		o := Outcome[V]{Err: fmt.Errorf("%w: not tried: %v", ErrUnavailable, doubt.cause)}
		if i == doubt.at {
			o = Outcome[V]{}
			if unwritten > 0 {
				o = Outcome[V]{Err: fmt.Errorf("%w: the rows are not as written: %v", ErrUnavailable, doubt.cause)}
			}
		}
		outcomes = append(outcomes, o)
	}
	return Settlement[V]{Applied: true, Outcomes: outcomes}, nil
}

package lockstep

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/lockstep-cache/lockstep/internal/gate"
)

// ByHand returns the store of a program that has none: in Mode CacheAside it reads and
// writes its database by functions of its own, which it gives to GetWith and WriteWith.
// It is for no other mode.
func ByHand[K comparable, V any]() Store[K, V] { return handStore[K, V]{} }

type handStore[K comparable, V any] struct{}

func (handStore[K, V]) Load(context.Context, []K) (map[K]Row[V], error) {
	return nil, fmt.Errorf("%w: the store is ByHand", ErrUnsupported)
}

func (handStore[K, V]) Commit(context.Context, []ChangeSet[K, V]) ([]Outcome[V], error) {
	return nil, fmt.Errorf("%w: the store is ByHand", ErrUnsupported)
}

func (handStore[K, V]) Capabilities() Capabilities[K, V] {
	return Capabilities[K, V]{Name: "by hand", ReadOnly: true}
}

// GetWith returns the value of the key: memory's, or what load returns, which is then
// remembered. It is how a cache in Mode CacheAside is read. load returns ErrNotFound where
// there is no row; that is remembered, too.
//
// However many readers miss a key, there is one call of load at a time, and they share
// what it returns, its error among it. It runs on a goroutine of its own, with the values of
// the context of the reader who has begun it. It may go on after that reader has left, while
// others wait, and its context ends when nobody does. A panic in it is an error for all who
// wait. What it returns is not remembered, nor shared with readers who come later, if the key
// was written (WriteWith) or invalidated since it was called.
//
// load must see every commit that was acknowledged before it was called. So it asks neither
// a replica that lags, nor in a transaction that has begun before.
//
// load may call GetWith: of another key; of the same one that is ErrInvalid. It then waits for
// no load of another reader's, which might wait for this one, but calls its own, and leaves nothing in memory where one is
// under way. Inside the function of a WriteWith, of this cache or another, GetWith is
// answered by memory or by its load, which may be part of a transaction there: nothing of
// that is shared, or left in memory.
func (c *Cache[K, V]) GetWith(ctx context.Context, key K, load func(ctx context.Context) (V, error)) (V, error) {
	var none V
	if err := c.options.Mode.permitsHand("GetWith"); err != nil {
		return none, err
	}
	e := c.hit(ctx, key)
	if e == nil {
		var err error
		if e, err = c.missByHand(ctx, key, load); err != nil {
			return none, err
		}
	}
	if !e.Exists {
		return none, ErrNotFound
	}
	return c.out(e), nil
}

// WriteWith calls write, which changes the rows of the keys by the program's own means,
// and keeps memory in step: the keys leave it before the call, nothing that was read before
// or during it is put into memory, and they are not in memory when WriteWith returns, however
// write has ended. It is how a cache in Mode CacheAside is written. Its result is write's, as
// it is. An error that is a *WriteError of the cache's own, because the context has ended, the
// cache is closed, or a key is invalid, comes instead of the call.
//
// With nil, if write has returned it after the database had committed, no GetWith that starts
// afterwards sees anything older. So write commits before it returns, and names every key that it
// changes; one that the database gives, and that is known only afterwards, is told to
// Invalidate before anybody else is told. Writes of one key are not kept in order: the database does that.
//
// What is promised where write fails depends on what it leaves open. If the database has not
// changed, or will not change any more when write returns, the promise is the same. If it may still commit
// afterwards, as after a time-out or a lost connection, a load can read the row before that,
// and memory answers with it until TTL has passed, or the next WriteWith or Invalidate of the key: the cache
// cannot settle what it has not sent. A Store can.
//
// write runs on the caller's goroutine, with the caller's context, and is not interrupted. Its panic is the caller's.
// It may call GetWith and WriteWith of any key, and must not call Close, which waits for it.
func (c *Cache[K, V]) WriteWith(ctx context.Context, keys []K, write func(ctx context.Context) error) error {
	if err := c.options.Mode.permitsHand("WriteWith"); err != nil {
		return c.refuse(err)
	}
	if err := c.admit(ctx, keys...); err != nil {
		return c.refuse(err)
	}
	if write == nil {
		return c.refuse(fmt.Errorf("%w: WriteWith without a function", ErrInvalid))
	}
	w := &handWrite[K, V]{c: c, owner: c.owners.Add(1), began: c.clock.Precise()}
	for _, key := range keys {
		w.set.Changes = append(w.set.Changes, Change[K, V]{Key: key})
	}
	// Close waits for it, as for a transaction of several caches.
	if !c.joint.begin() {
		return c.refuse(ErrClosed)
	}
	under := &underway{cache: c.id, writes: true, outer: functionAround(ctx)}
	err := errHandExited // unless write returns
	defer func() {
		under.over.Store(true)
		w.end(err)
		c.joint.end()
	}()
	w.begin()
	err = write(context.WithValue(ctx, underwayKey{}, under))
	return err
}

// errHandExited stands for what became of a write whose function has panicked, or ended its
// goroutine.
var errHandExited = fmt.Errorf("%w: the function of WriteWith did not return", ErrUnknownOutcome)

// handWrite is a call of WriteWith. Its keys are held, and dropped, as those of a
// transaction that the program began: the cache knows neither what they become nor when.
type handWrite[K comparable, V any] struct {
	c     *Cache[K, V]
	owner uint64
	began int64
	set   ChangeSet[K, V] // the keys, for the hooks
}

func (w *handWrite[K, V]) begin() {
	w.c.tell(w.c.options.Hooks.Pending, &w.set, nil, nil)
	for i := range w.set.Changes {
		w.c.gate.Hold(w.set.Changes[i].Key, w.owner, true)
	}
}

func (w *handWrite[K, V]) end(err error) {
	c := w.c
	for i := range w.set.Changes {
		c.gate.Release(w.set.Changes[i].Key, gate.Drop[*entry[K, V]]())
	}
	c.counts.writeLatency.Record(c.since(w.began))
	if err == nil {
		c.counts.committed.Add(1)
		c.counts.applied(len(w.set.Changes), 0)
	} else {
		// Whatever it says, of the row it says nothing: it may be that of anything that the
		// program does in its function.
		c.counts.unknown.Add(1)
		if !errors.Is(err, ErrUnknownOutcome) {
			err = fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
	}
	c.tellEnd(&w.set, nil, err, false)
}

// underway is a function of the program's that is running inside GetWith or WriteWith.
// Its context carries it.
type underway struct {
	cache  uint64
	key    any // of GetWith
	writes bool
	over   atomic.Bool
	outer  *underway
}

type underwayKey struct{}

// functionAround is the innermost function that ctx is inside of.
func functionAround(ctx context.Context) *underway {
	u, _ := ctx.Value(underwayKey{}).(*underway)
	return u
}

// handReader is a reader's own way to a row.
type handReader[V any] struct {
	caller context.Context
	load   func(ctx context.Context) (V, error)
}

func (c *Cache[K, V]) missByHand(ctx context.Context, key K, load func(context.Context) (V, error)) (*entry[K, V], error) {
	if err := c.admit(ctx, key); err != nil {
		return nil, err
	}
	if load == nil {
		return nil, fmt.Errorf("%w: GetWith without a function", ErrInvalid)
	}
	inside, writing := false, false
	for u := functionAround(ctx); u != nil; u = u.outer {
		if u.over.Load() {
			continue
		}
		if !u.writes && u.cache == c.id && u.key == any(key) {
			return nil, fmt.Errorf("%w: the function that loads key %v calls GetWith for it", ErrInvalid, key)
		}
		inside, writing = true, writing || u.writes
	}
	by := &handReader[V]{caller: ctx, load: func(ctx context.Context) (V, error) {
		u := &underway{cache: c.id, key: key, outer: functionAround(ctx)}
		defer u.over.Store(true)
		return load(context.WithValue(ctx, underwayKey{}, u))
	}}
	if writing {
		return c.loadPast(ctx, key, by)
	}
	for first := true; ; first = false {
		f, start, e := c.gate.JoinWith(key, c.usable, by)
		if f == nil {
			c.touch(ctx, key, e)
			return e, nil
		}
		if inside && !start {
			c.gate.Leave(f, nil)
			return c.loadPast(ctx, key, by)
		}
		e, joined, err := c.ride(ctx, f, start, true)
		if !first || !joined || err == nil && c.fresh(e) || err != nil && (ctx.Err() != nil || !left(err)) {
			return e, err
		}
		// Once more, with a load that begins after the call: the copy is older than that by
		// now; or the function was another reader's, who has left, and it went by the context
		// of his call instead of its own, which ends only when nobody waits.
	}
}

// left tells whether a function has returned because somebody has left.
func left(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// loadPast calls the function on this goroutine, beside whatever is under way on the key,
// and leaves nothing in memory. What it has read counts as told.
func (c *Cache[K, V]) loadPast(ctx context.Context, key K, by *handReader[V]) (*entry[K, V], error) {
	c.missed(key)
	began := c.clock.Precise()
	rows, err := c.loadRows(ctx, []K{key}, by)
	if err != nil {
		return nil, err
	}
	e, _, err := c.loaded(key, rows[key], began)
	if err != nil {
		return nil, err
	}
	c.gate.Observe(key, func(e *entry[K, V]) bool { return c.atLeast(e, rows[key]) })
	return e, nil
}

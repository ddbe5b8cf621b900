package lockstep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/lockstep-cache/lockstep/internal/commit"
	"github.com/lockstep-cache/lockstep/internal/deepcopy"
	"github.com/lockstep-cache/lockstep/internal/events"
	"github.com/lockstep-cache/lockstep/internal/gate"
	"github.com/lockstep-cache/lockstep/internal/memory"
	"github.com/lockstep-cache/lockstep/internal/nils"
	"github.com/lockstep-cache/lockstep/internal/turn"
)

// Cache is a write-through cache in front of a Store. All methods may be called
// from many goroutines at once.
//
// It has three parts. memory holds the copies, and a hit touches nothing else.
// gate knows what is under way on each key, and decides what may enter memory.
// queue puts writes into batches. None of them does I/O; what calls the store is
// in read.go, write.go, settle.go and transact.go.
type Cache[K comparable, V any] struct {
	store   Store[K, V]
	can     Capabilities[K, V]
	options Options[K, V]
	copier  copier[V]

	clock   *memory.Clock
	memory  *memory.Map[K, V]
	gate    *gate.Gate[K, *entry[K, V]]
	queue   *commit.Queue[K, *write[K, V]]
	events  *events.Queue
	counts  counters
	hasty   context.Context // commits, for a store that is Immediate
	parting context.Context // life, for Parting
	limits  *limits         // of commits
	apart   chan struct{}   // holds one for each set that is committed apart
	ahead   ahead[K, V]
	usable  func(*entry[K, V]) bool // c.fresh, made once
	// plainHits: a hit is nothing but the value, without Clone and without a hook, and
	// memory alone has it.
	plainHits bool

	// behind is nil in every mode but WriteBehind.
	behind *writeBehind[K, V]

	// watchBegun is closed while the table is watched, and another one after that.
	watchBegun atomic.Pointer[chan struct{}]

	// unlisten ends the store's calls of replaced.
	unlisten func()

	// id orders caches in a transaction; owners numbers the holders of keys.
	id     uint64
	owners atomic.Uint64

	// life ends when Close gives up waiting, or has nothing left to wait for;
	// closing ends when Close is called.
	life, closing         context.Context
	commits               context.Context // life, for Store.Commit
	endLife, startClosing context.CancelCauseFunc
	closed                atomic.Bool // the first call of Close has it
	// tasks are the goroutines that Close waits for after life's end, joint those
	// that commit without the queue, and that it waits for before.
	tasks, joint *tasks
}

var cacheIDs atomic.Uint64

// turns are the process's: transactions may span caches.
var turns turn.Table

// New returns a cache in front of the store. It does no I/O. It starts two
// goroutines, which Close ends, one more with Options.AuditInterval, and one where
// the store watches the table for changes that others make: until the watch has
// begun, which needs the database, every read asks the database. The error is ErrInvalid and names every option
// that is wrong.
func New[K comparable, V any](store Store[K, V], options Options[K, V]) (*Cache[K, V], error) {
	if nils.Is(store) {
		return nil, fmt.Errorf("%w: store is nil", ErrInvalid)
	}
	can := store.Capabilities()
	options, err := options.resolve(can.Batch)
	if _, none := store.(handStore[K, V]); none != (options.Mode == CacheAside) {
		err = errors.Join(err, fmt.Errorf("%w option: Mode CacheAside and the store of ByHand are for each other; the mode is %v, and the store %q", ErrInvalid, options.Mode, can.Name))
	}
	if err != nil {
		return nil, err
	}
	c := &Cache[K, V]{
		store: store, can: can, options: options,
		copier: newCopier(options.Clone, can.Clone),
		clock:  memory.NewClock(),
		events: events.New(options.Logger),
		id:     cacheIDs.Add(1),
		limits: newLimits(options.CommitTimeout),
		tasks:  newTasks(), joint: newTasks(), apart: make(chan struct{}, maxApart),
	}
	c.usable = c.fresh
	c.plainHits = options.Clone == nil && options.Hooks.Hit == nil && options.Mode != WriteBehind && options.Mode != CacheAside
	c.life, c.endLife = context.WithCancelCause(context.Background())
	context.AfterFunc(c.life, c.limits.end)
	c.commits = context.WithValue(c.life, patientKey{}, true)
	c.hasty = context.WithValue(c.commits, hastyKey{}, true)
	c.parting = context.WithValue(c.life, partingKey{}, true)
	batches := context.WithValue(c.commits, partingKey{}, true)
	c.closing, c.startClosing = context.WithCancelCause(context.Background())
	if c.memory, err = memory.New(c.memoryConfig()); err != nil {
		c.clock.Close()
		return nil, fmt.Errorf("%w option: %w", ErrInvalid, err)
	}
	if options.Mode == WriteBehind {
		if c.behind, err = newWriteBehind(c); err != nil {
			c.memory.Close()
			c.clock.Close()
			return nil, err
		}
	}
	c.gate = gate.New(c.life, c.memory, c.noOlder)
	c.queue = commit.New(commit.Config[K, *write[K, V]]{
		MaxOps:   options.Batch.MaxOps,
		MaxBytes: cmp.Or(can.Batch.MaxBytes, DefaultBatchBytes),
		InFlight: options.Batch.InFlight,
		MaxDelay: options.Batch.MaxDelay,
		Limit:    options.QueueLimit,
		MaxWait:  options.CommitTimeout,
		Run: func(ops []*commit.Op[K, *write[K, V]]) {
			under := batches
			if ops[0].All {
				under = c.commits // nothing else may run beside it, so it has nobody to make way for
			}
			c.commitBatch(under, context.Background(), ops)
		},
		Dropped: c.dropped,
	})
	c.unlisten = func() {}
	if can.Replaced != nil {
		c.unlisten = can.Replaced(c.replaced)
	}
	if can.Watch != nil {
		c.gate.HoldAll() // until it has begun
		c.unwatched()
		c.tellOutside(OutsideEvent[K]{All: true, Blind: true})
		c.tasks.begin()
		go c.watch()
	}
	if c.behind != nil {
		c.tasks.begin()
		go c.behind.run()
	}
	if options.AuditInterval > 0 {
		c.tasks.begin()
		go c.auditInTurn()
	}
	return c, nil
}

func (c *Cache[K, V]) memoryConfig() memory.Config[K, V] {
	config := memory.Config[K, V]{
		MaxEntries: c.options.MaxEntries,
		MaxWeight:  uint64(c.options.MaxBytes),
		Removed:    c.removed,
		Clock:      c.clock,
	}
	if weigh := c.options.Weigher; weigh != nil {
		config.Weigh = func(e *entry[K, V]) (weight uint32) {
			// It runs with locks held, which whatever ends its goroutine would keep.
			err := aside("Weigher", nil, func() error {
				weight = weigh(e.Key, e.Value)
				return nil
			})
			if err != nil {
				c.options.Logger.Error("lockstep: an entry counts as one byte", "error", err)
			}
			return max(1, weight)
		}
	}
	return config
}

// removed is told, under a lock of memory's, of entries that memory removed by
// itself.
func (c *Cache[K, V]) removed(e *entry[K, V], cause memory.Cause) {
	counter, hook := &c.counts.evictions, c.options.Hooks.Evict
	if cause == memory.Expired {
		counter, hook = &c.counts.expirations, c.options.Hooks.Expire
	}
	counter.Add(1)
	if hook != nil {
		c.events.Push(func() { hook(e.Key) })
	}
	if ended := c.options.Hooks.Ended; ended != nil && cause == memory.Expired && e.Exists && c.lapsed(e) {
		c.events.Push(func() { ended(e.Key) })
	}
}

// Close refuses new calls, waits for what was accepted — queued writes, commits
// under way, settlements, hooks — and empties memory. It does not close the
// store, and does not wait for transactions of the program's that are open
// (InJoined). When ctx ends first, queued writes are dropped, which their callers are
// told as not applied, commits under way are abandoned, which their callers are
// told as unknown, and the error says how many of each there were. A ctx that has
// ended already, as a program's often has by then, waits for nothing: give Close
// context.WithoutCancel(ctx), or one with a time-out of its own. A second Close returns
// ErrClosed.
func (c *Cache[K, V]) Close(ctx context.Context) error {
	if c.closed.Swap(true) {
		return ErrClosed
	}
	c.startClosing(ErrClosed)
	// From here on every read misses, finds the cache closed, and nothing enters
	// memory any more.
	c.gate.HoldAll()

	var left error
	if c.behind != nil {
		left = c.behind.close(ctx)
	}
	for _, idle := range []<-chan struct{}{c.queue.Close(), c.joint.close()} {
		if before(ctx, idle) {
			continue
		}
		queued, underWay := c.queue.Drop()
		left = errors.Join(left, fmt.Errorf("lockstep: close: %w: %d queued writes dropped, %d under way or in doubt abandoned",
			ended(ctx), queued, underWay+c.joint.running()))
		break
	}
	c.endLife(ErrClosed)
	if !before(ctx, c.tasks.close()) {
		// What is given a cancelled context usually ends at once. Look again before
		// it is called stuck.
		if n := c.tasks.running(); n > 0 {
			left = errors.Join(left, fmt.Errorf("lockstep: close: %w: %d calls of the store have not returned", ended(ctx), n))
		}
	}
	if !c.events.Drain(ctx) {
		left = errors.Join(left, fmt.Errorf("lockstep: close: %w: hooks still running", ended(ctx)))
	}
	c.unlisten()
	c.memory.Close()
	c.clock.Close()
	return left
}

// before waits for what comes first, and tells whether it was done.
func before(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// admit is the first line of every call but a hit.
func (c *Cache[K, V]) admit(ctx context.Context, keys ...K) error {
	if c.closing.Err() != nil {
		return ErrClosed
	}
	if inTransaction(ctx) {
		return ErrInTransaction
	}
	for _, key := range keys {
		if key != key {
			return fmt.Errorf("%w: key %v is not equal to itself", ErrInvalid, key)
		}
	}
	if ctx.Err() != nil {
		return ended(ctx)
	}
	return nil
}

// Invalidate removes the key from memory, and defeats a load under way, so that
// the next read asks the database. The row is not touched.
func (c *Cache[K, V]) Invalidate(key K) {
	if key == key {
		c.gate.Invalidate(key)
	}
}

// InvalidateAll does for all keys what Invalidate does for one. It takes every
// shard's lock, one after the other.
func (c *Cache[K, V]) InvalidateAll() { c.gate.InvalidateAll() }

// copier makes the private copies that Update and In(tx).Get hand out.
type copier[V any] struct {
	copy func(V) (V, error)
	err  error
}

// newCopier prefers what knows the type best: the program's own function, then
// the type's structure or its Clone method, then the store's codec.
func newCopier[V any](program func(V) V, store func(V) (V, error)) copier[V] {
	if program != nil {
		return copier[V]{copy: func(v V) (V, error) { return program(v), nil }}
	}
	byType, err := deepcopy.For[V]()
	switch {
	case err == nil:
		return copier[V]{copy: byType.Copy}
	case store != nil:
		return copier[V]{copy: store}
	}
	return copier[V]{err: fmt.Errorf("%w: no private copy can be made, set Options.Clone: %w", ErrUnsupported, err)}
}

func (c copier[V]) private(v V) (V, error) {
	if c.err != nil {
		return v, c.err
	}
	return c.copy(v)
}

package lockstep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/lockstep-cache/lockstep/internal/events"
	"github.com/lockstep-cache/lockstep/internal/gate"
)

type flight[K comparable, V any] = gate.Flight[K, *entry[K, V]]

// Get returns the value of the key. An absent row is ErrNotFound.
//
// A hit takes no lock, allocates nothing, and does not look at ctx. A miss loads
// the row, or waits for a load that another reader has begun; when ctx ends
// first, its error is returned.
func (c *Cache[K, V]) Get(ctx context.Context, key K) (V, error) {
	// The most common hit, of a row without an end in a cache without Clone and Hit
	// hook, in as few steps as it can be: a processor looks a few hundred
	// instructions ahead, so what a hit is spared overlaps with the next one's wait
	// for main memory.
	if e, _ := c.memory.Get(key); e != nil && e.Exists && e.Lives == nil && c.plainHits && openTransactions.Load() == 0 {
		c.count(e)
		return e.Value, nil
	}
	if err := c.options.Mode.permitsRead("Get"); err != nil {
		var none V
		return none, err
	}
	e, err := c.read(ctx, key)
	if err != nil {
		var none V
		return none, err
	}
	if !e.Exists {
		var none V
		return none, ErrNotFound
	}
	return c.out(e), nil
}

// GetEntry is Get, with what the cache knows about the copy. It alone answers with a
// copy whose TTL is over while the database is away, if Options.StaleIfError asks for
// it: Entry.Stale says so.
func (c *Cache[K, V]) GetEntry(ctx context.Context, key K) (Entry[K, V], error) {
	if err := c.options.Mode.permitsRead("GetEntry"); err != nil {
		return Entry[K, V]{}, err
	}
	e, stale := c.hit(ctx, key), false
	if e == nil {
		if err := c.admit(ctx, key); err != nil {
			return Entry[K, V]{}, err
		}
		var err error
		if e, err = c.load(ctx, key, c.usable); err != nil {
			if e = c.staleIfError(ctx, key, err); e == nil {
				return Entry[K, V]{}, err
			}
			stale = true
		}
	}
	if !e.Exists {
		return Entry[K, V]{}, ErrNotFound
	}
	return c.public(key, e, stale), nil
}

// Exists tells whether the key has a row. It costs what Get costs.
func (c *Cache[K, V]) Exists(ctx context.Context, key K) (bool, error) {
	if err := c.options.Mode.permitsRead("Exists"); err != nil {
		return false, err
	}
	e, err := c.read(ctx, key)
	return err == nil && e.Exists, err
}

// Peek returns what memory would answer. It does not ask the database, is not
// counted, and does not keep the entry from being evicted.
func (c *Cache[K, V]) Peek(key K) (V, bool) {
	e, ok := c.held(key)
	if !ok || !e.Exists || !c.fresh(e) {
		var none V
		return none, false
	}
	return c.out(e), true
}

// read returns the entry for the key, which may say that there is no row.
func (c *Cache[K, V]) read(ctx context.Context, key K) (*entry[K, V], error) {
	if e := c.hit(ctx, key); e != nil {
		return e, nil
	}
	return c.miss(ctx, key)
}

// hit returns memory's answer, or nil.
func (c *Cache[K, V]) hit(ctx context.Context, key K) *entry[K, V] {
	e := c.peek(ctx, key)
	if e != nil {
		c.touch(ctx, key, e)
	}
	return e
}

// peek is hit, not yet counted.
func (c *Cache[K, V]) peek(ctx context.Context, key K) *entry[K, V] {
	e, ok := c.held(key)
	if !ok || !c.fresh(e) {
		return nil
	}
	// Contexts can be deep. They are searched only while some transaction runs.
	if openTransactions.Load() > 0 && inTransaction(ctx) {
		return nil
	}
	return e
}

// count counts a hit.
func (c *Cache[K, V]) count(e *entry[K, V]) {
	c.counts.hits.Add(1)
	c.memory.Used(e)
}

// touch counts a hit and tells the hook.
func (c *Cache[K, V]) touch(ctx context.Context, key K, e *entry[K, V]) {
	c.count(e)
	if e.Lives != nil && c.options.RefreshAhead > 0 {
		c.lookAhead(ctx, e)
	}
	if !e.Exists {
		c.counts.negativeHits.Add(1)
	}
	if hook := c.options.Hooks.Hit; hook != nil {
		events.Protect(c.options.Logger, func() { hook(key, !e.Exists) })
	}
}

func (c *Cache[K, V]) miss(ctx context.Context, key K) (*entry[K, V], error) {
	if err := c.admit(ctx, key); err != nil {
		return nil, err
	}
	return c.load(ctx, key, c.usable)
}

// load returns the entry from a load that nothing acknowledged before the call
// can be newer than. usable decides whether memory's copy will do after all.
func (c *Cache[K, V]) load(ctx context.Context, key K, usable func(*entry[K, V]) bool) (*entry[K, V], error) {
	for first := true; ; first = false {
		e, joined, err := c.loadOnce(ctx, key, usable)
		if err != nil || !joined || !c.lapsed(e) && (!first || c.fresh(e)) {
			return e, err
		}
	}
}

// loadOnce also tells whether the load may have begun before the call. A row
// whose lifetime is over when it arrives was then there when somebody asked, but
// not for everybody who did; and a copy that is older than its TTL may be older
// than the call. One that is joined the next time is not.
func (c *Cache[K, V]) loadOnce(ctx context.Context, key K, usable func(*entry[K, V]) bool) (e *entry[K, V], joined bool, err error) {
	f, start, e := c.gate.Join(key, usable)
	if f == nil {
		// Somebody's load landed between the look at memory and the look at the gate.
		c.touch(ctx, key, e)
		return e, false, nil
	}
	return c.ride(ctx, f, start, usable != nil)
}

// ride waits for a flight that the reader has joined, and launches it if that is the
// reader's to do.
func (c *Cache[K, V]) ride(ctx context.Context, f *flight[K, V], start, missed bool) (e *entry[K, V], joined bool, err error) {
	defer func() { c.gate.Leave(f, ended(ctx)) }()
	c.board(ctx, f, start, missed)
	select {
	case <-f.Done():
		e, err = f.Result()
		return e, !start, err
	case <-ctx.Done():
		return nil, !start, ended(ctx)
	}
}

// board counts a reader of a flight, and launches the flight if that is the
// reader's to do.
func (c *Cache[K, V]) board(ctx context.Context, f *flight[K, V], start, missed bool) {
	if missed {
		c.missed(f.Key)
	}
	if start {
		c.launch(ctx, f)
	} else {
		c.counts.joinedLoads.Add(1)
	}
}

func (c *Cache[K, V]) missed(key K) {
	c.counts.misses.Add(1)
	if hook := c.options.Hooks.Miss; hook != nil {
		c.events.Push(func() { hook(key) })
	}
}

// launch runs flights on a goroutine of their own: a reader whose context ends
// leaves at once, whatever the store does, and the load goes on for the others.
// It ends when nobody waits.
func (c *Cache[K, V]) launch(ctx context.Context, flights ...*flight[K, V]) {
	if c.admitFlights(flights) {
		go c.fly(ctx, flights)
	}
}

// flyHere runs them on this goroutine.
func (c *Cache[K, V]) flyHere(ctx context.Context, flights []*flight[K, V]) {
	if c.admitFlights(flights) {
		c.fly(ctx, flights)
	}
}

// admitFlights counts what runs the flights, or else lands them, for the cache is closed.
func (c *Cache[K, V]) admitFlights(flights []*flight[K, V]) bool {
	if c.tasks.begin() {
		return true
	}
	for len(flights) > 0 {
		flights = c.land(&flights, nil, 0, ErrClosed)
	}
	return false
}

// fly loads the flights' keys in one call and lands them; then those that waited
// for them to end, and so on.
//
// A load that the store refuses is made again in two halves, until the flight
// that is refused is alone: the others have nothing to do with it. Loads that
// fail in another way are not, because a database that is away would be asked
// once for each key. Loads take turns in the order in which they arose, so that
// a key which is asked for again and again keeps none of the others waiting.
//
// Every flight lands, also when the store, a hook or Clone ends the goroutine.
func (c *Cache[K, V]) fly(caller context.Context, flights []*flight[K, V]) {
	defer c.tasks.end()
	loads := [][]*flight[K, V]{flights}
	flights = nil
	defer func() {
		// Nothing is left unless the goroutine is being ended from within.
		if len(flights) > 0 {
			loads = append(loads, c.land(&flights, nil, 0, errLoadExited))
		}
		for _, flights := range loads {
			if len(flights) > 0 {
				c.launch(caller, flights...)
			}
		}
	}()
	for len(loads) > 0 {
		flights, loads = loads[0], loads[1:]
		rows, began, err := c.loadFlights(caller, flights)
		if half := len(flights) / 2; half > 0 && refused(err) {
			loads = append(loads, flights[:half], flights[half:])
			flights = nil
			continue
		}
		if waiting := c.land(&flights, rows, began, err); len(waiting) > 0 {
			loads = append(loads, waiting)
		}
	}
}

// refused tells whether the store has said of a load that it can never succeed.
func refused(err error) bool {
	return errors.Is(err, ErrInvalid) || errors.Is(err, ErrTooLarge)
}

func (c *Cache[K, V]) loadFlights(caller context.Context, flights []*flight[K, V]) (rows map[K]Row[V], began int64, err error) {
	keys := make([]K, len(flights))
	for i, f := range flights {
		keys[i] = f.Key
	}
	by, _ := flights[0].By.(*handReader[V])
	if by != nil {
		caller = by.caller
	}
	ctx, cancel := loadContext(caller, flights)
	defer cancel()
	began = c.clock.Precise()
	rows, err = c.loadRows(ctx, keys, by)
	return rows, began, err
}

// land takes the flights off the list as they land, and returns those that waited
// for them.
func (c *Cache[K, V]) land(flights *[]*flight[K, V], rows map[K]Row[V], began int64, err error) (waiting []*flight[K, V]) {
	if err != nil && c.closing.Err() != nil && c.life.Err() != nil {
		err = ErrClosed
	}
	for len(*flights) > 0 {
		f := (*flights)[0]
		var e *entry[K, V]
		keep, err := false, err
		if err == nil {
			e, keep, err = c.loaded(f.Key, rows[f.Key], began)
		}
		*flights = (*flights)[1:]
		if next := c.gate.Land(f, e, err, keep); next != nil {
			waiting = append(waiting, next)
		}
	}
	return waiting
}

// loaded makes a copy of a row that was loaded. A panic in the program's Clone is
// an error like one in the store's Load.
func (c *Cache[K, V]) loaded(key K, row Row[V], began int64) (e *entry[K, V], keep bool, err error) {
	ttl, keep := c.ttlOf(row)
	err = guarded("Clone", nil, func() error {
		e = c.newEntry(key, row, began, ttl)
		return nil
	})
	return e, keep && err == nil, err
}

// loadContext has the caller's values, for traces, and ends when nobody waits
// for any of the flights: because of what the last one has left for, so that who looks
// after the database can tell a deadline from a change of mind.
func loadContext[K comparable, V any](caller context.Context, flights []*flight[K, V]) (context.Context, context.CancelFunc) {
	if len(flights) == 1 {
		return valuesOf{flights[0].Ctx, caller}, func() {}
	}
	ctx, cancel := context.WithCancelCause(valuesOf{context.Background(), caller})
	var waited atomic.Int64
	waited.Store(int64(len(flights)))
	stops := make([]func() bool, len(flights))
	for i, f := range flights {
		stops[i] = context.AfterFunc(f.Ctx, func() {
			if waited.Add(-1) == 0 {
				cancel(context.Cause(f.Ctx))
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}

// valuesOf is a context with another one's values, without its transaction: a load
// is everybody's who waits for it, and a store may read other caches in it. The cause
// of its end, which package context looks for among the values, is its own.
type valuesOf struct {
	context.Context
	values context.Context
}

func (v valuesOf) Value(key any) any {
	if key == (transactionKey{}) {
		return nil
	}
	if own := v.Context.Value(key); own != nil {
		return own
	}
	return v.values.Value(key)
}

// loadRows calls the store, or a reader's own function, for which there is one key. A
// panic is an error for everybody who waits.
func (c *Cache[K, V]) loadRows(ctx context.Context, keys []K, by *handReader[V]) (rows map[K]Row[V], err error) {
	began := c.clock.Precise()
	err = errLoadExited // unless Load returns, or panics
	defer func() {
		if p := recover(); p != nil {
			who := "the store"
			if by != nil {
				who = "the function"
			}
			err = fmt.Errorf("lockstep: %s panicked in a load: %v\n%s", who, p, debug.Stack())
		}
		took := c.since(began)
		c.counts.loads.Add(1)
		c.counts.loadLatency.Record(took)
		if err != nil {
			c.counts.loadErrors.Add(1)
		}
		if hook := c.options.Hooks.Load; hook != nil {
			// Not here: a hook that reads the keys would wait for this load.
			event := LoadEvent[K]{Keys: keys, Duration: took, Err: err}
			c.events.Push(func() { hook(event) })
		}
	}()
	if by != nil {
		rows, err = loadEach(ctx, keys, func(ctx context.Context, _ K) (V, error) { return by.load(ctx) })
	} else {
		rows, err = c.store.Load(ctx, keys)
	}
	return rows, err
}

// GetMany returns the values of those keys that have rows. Hits come from
// memory; the rest is loaded in one call, which readers of single keys share.
// The values need not be of one moment; Transact gives that. When some keys
// cannot be read, the map has the others, and the error joins the causes. A key
// that the store refuses does not take the others with it, at the cost of a few
// loads more.
func (c *Cache[K, V]) GetMany(ctx context.Context, keys []K) (map[K]V, error) {
	if err := c.options.Mode.permitsRead("GetMany"); err != nil {
		return nil, err
	}
	values := make(map[K]V, len(keys))
	entries, err := c.readMany(ctx, keys)
	for key, e := range entries {
		if e.Exists {
			values[key] = c.out(e)
		}
	}
	return values, err
}

// readMany returns the entries of all keys that can be read.
func (c *Cache[K, V]) readMany(ctx context.Context, keys []K) (map[K]*entry[K, V], error) {
	if err := c.admit(ctx, keys...); err != nil {
		return nil, err
	}
	return c.collect(ctx, keys)
}

// collect is readMany for keys that were admitted, by a transaction perhaps.
func (c *Cache[K, V]) collect(ctx context.Context, keys []K) (map[K]*entry[K, V], error) {
	entries := make(map[K]*entry[K, V], len(keys))
	waits := make(map[K]*flight[K, V])
	defer func() {
		for _, f := range waits {
			c.gate.Leave(f, ended(ctx))
		}
	}()
	c.boardMany(ctx, keys, entries, waits)
	var errs []error
	for key, f := range waits {
		select {
		case <-f.Done():
		case <-ctx.Done():
			return entries, errors.Join(append(errs, ended(ctx))...)
		}
		e, err := f.Result()
		if err == nil && !c.fresh(e) {
			// See loadOnce. Whoever began the load could keep it, and may as well ask again.
			e, err = c.load(ctx, key, c.usable)
		}
		if err == nil {
			entries[key] = e
		} else if !containsSame(errs, err) {
			errs = append(errs, err)
		}
	}
	return entries, errors.Join(errs...)
}

// boardMany finds the keys' entries, or flights that will bring them, and launches
// those flights that are new.
func (c *Cache[K, V]) boardMany(ctx context.Context, keys []K, entries map[K]*entry[K, V], waits map[K]*flight[K, V]) {
	var starts []*flight[K, V]
	for _, key := range keys {
		if entries[key] != nil || waits[key] != nil {
			continue
		}
		if e := c.peek(ctx, key); e != nil {
			entries[key] = e
			continue
		}
		f, start, e := c.gate.Join(key, c.usable)
		if f == nil {
			entries[key] = e
			continue
		}
		waits[key] = f
		if start {
			starts = append(starts, f)
		} else {
			c.counts.joinedLoads.Add(1)
		}
	}
	for key := range waits {
		c.missed(key)
	}
	if len(starts) > 0 {
		c.launch(ctx, starts...)
	}
	// After it: a Hit hook that reads a key of starts would wait for itself.
	for key, e := range entries {
		c.touch(ctx, key, e)
	}
}

// containsSame tells whether the very same error is there: one load's, met at
// each of its keys.
func containsSame(errs []error, err error) bool {
	for _, e := range errs {
		if sameError(e, err) {
			return true
		}
	}
	return false
}

// sameError compares without panicking on errors of uncomparable types.
func sameError(a, b error) (same bool) {
	defer func() { _ = recover() }()
	return a == b
}

// Refresh loads the row now and replaces memory's copy, for a reader who knows
// or suspects that somebody else has changed it. When the load fails, the copy
// stays.
func (c *Cache[K, V]) Refresh(ctx context.Context, key K) error {
	if err := cmp.Or(c.options.Mode.permitsTable("Refresh"), c.admit(ctx, key)); err != nil {
		return err
	}
	if err := c.drain(ctx); err != nil {
		return err
	}
	_, err := c.load(ctx, key, nil)
	return err
}

package lockstep

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep/internal/commit"
	"github.com/lockstep-cache/lockstep/internal/gate"
)

// write is a change set on its way to the database.
type write[K comparable, V any] struct {
	verdict
	op      commit.Op[K, *write[K, V]]
	set     ChangeSet[K, V]
	ttl     time.Duration   // of the copies it leaves; 0: the cache's
	ttls    []time.Duration // of a transaction's, one each, in place of ttl
	purpose purpose
	left    atomic.Bool   // its caller has been, or is about to be, told that nobody knows
	result  *Outcome[V]   // written before the verdict is final, and nil where there is none
	free    chan struct{} // of one that is committed apart: closed when its keys are free
	// insertion is nil for a write whose keys are known.
	insertion *insertion

	// A write of one row, which most are, needs no slices of its own.
	key    [1]K
	change [1]Change[K, V]
}

// purpose is what a write is counted as.
type purpose uint8

const (
	plainWrite purpose = iota
	transaction
	// validation is of what a function has read that returned an error.
	validation
)

func (c *Cache[K, V]) newWrite(set ChangeSet[K, V]) *write[K, V] {
	w := &write[K, V]{set: set}
	w.op.Item, w.op.All = w, set.DeleteAll
	w.op.Keys = w.key[:0]
	for i := range set.Changes {
		w.op.Keys = append(w.op.Keys, set.Changes[i].Key)
	}
	return w
}

// outcome is what the store has said, where it was asked.
func (w *write[K, V]) outcome() Outcome[V] {
	if w.result == nil {
		return Outcome[V]{}
	}
	return *w.result
}

// readsOnly: the set only checks what a transaction has read.
func (w *write[K, V]) readsOnly() bool { return len(w.set.Changes) == 0 && !w.set.DeleteAll }

// perform queues the write and waits for its answer, or for ctx. This is the
// write path as its caller sees it; commitBatch is the rest.
func (c *Cache[K, V]) perform(ctx context.Context, w *write[K, V]) (Version, error) {
	if ctx.Err() != nil {
		return 0, c.refuse(ended(ctx)) // it ended in the program's code: Update's function, or Validate
	}
	started := c.clock.Precise()
	if c.behind != nil {
		err := c.behind.perform(ctx, w)
		c.counts.writeLatency.Record(c.since(started))
		return 0, err
	}
	c.tell(c.options.Hooks.Pending, &w.set, nil, nil)
	if !c.performHere(ctx, w) {
		if err := c.queue.Submit(&w.op); err != nil {
			c.dropped(&w.op, err)
		}
	}
	answered := w.answered()
	select {
	case <-answered: // first, for ctx may have ended while the write was committed here
	default:
		select {
		case <-answered:
		case <-ctx.Done():
			c.leave(ctx, w)
		}
	}
	c.counts.writeLatency.Record(c.since(started))
	return w.answer()
}

// performHere commits the write on this goroutine if it would be alone in its batch
// and nothing is under way, and the store allows it. It returns false if the write is
// still to be queued.
func (c *Cache[K, V]) performHere(ctx context.Context, w *write[K, V]) bool {
	under := c.hasty
	if !c.can.Immediate {
		if deadline, ok := ctx.Deadline(); !c.can.Interruptible || ok && time.Until(deadline) < unhurried {
			return false
		}
		under = c.parting
	}
	if !c.queue.Start(&w.op) {
		return false
	}
	caller := ctx
	if c.can.Immediate {
		caller = context.Background() // who leaves is answered when the disk has answered
	}
	batch := []*commit.Op[K, *write[K, V]]{&w.op}
	committed := false
	defer func() {
		if committed {
			c.queue.Finish(batch)
		} else {
			c.queue.Pass(batch)
		}
	}()
	committed = true // whatever ends this goroutine inside, commitBatch has dealt with it
	committed = c.commitBatch(under, caller, batch)
	return true
}

// unhurried is how far away the end of a caller's context has to be, for a commit
// that would be interrupted by it.
const unhurried = time.Second

// leave is a caller who stops waiting. A write that is still queued is taken
// out; one that is under way goes on without its caller, who no longer knows
// what comes of it: memory stops answering for its keys until that is known.
func (c *Cache[K, V]) leave(ctx context.Context, w *write[K, V]) {
	if c.queue.Leave(&w.op) || w.readsOnly() {
		c.finish(w, nil, ended(ctx))
		return
	}
	c.doubt(w, fmt.Errorf("the caller left during the commit: %w", ended(ctx)))
}

// ended is the error of a caller whose context is over, or nil: the context's own, and
// its cause. A cause may be anything, another call's error among it, as errgroup
// has it, which must not be read as this one's.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	switch {
	case err == nil:
		return nil
	case sameError(err, cause):
		return err
	case ours(cause):
		return fmt.Errorf("%w: %v", err, cause)
	default:
		return fmt.Errorf("%w: %w", err, cause)
	}
}

// ours tells whether an error has a meaning of ours, which it has for the call
// that it comes from, and not for one whose context it has ended.
func ours(err error) bool {
	for _, e := range []error{
		ErrNotFound, ErrConflict, ErrInvalid, ErrTooLarge, ErrUnavailable, ErrUnknownOutcome,
		ErrUnsupported, ErrInTransaction, ErrClosed, Keep,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// conflicted tells whether a write was not applied because of another one. An
// unknown outcome may have a conflict among its causes, and is none.
func conflicted(err error) bool {
	return errors.Is(err, ErrConflict) && !errors.Is(err, ErrUnknownOutcome)
}

// dropped is told of writes that never left the queue.
func (c *Cache[K, V]) dropped(op *commit.Op[K, *write[K, V]], reason error) {
	c.finish(op.Item, nil, c.unqueued(reason))
}

// unqueued is what a writer is told of the queue's error.
func (c *Cache[K, V]) unqueued(reason error) error {
	switch {
	case errors.Is(reason, commit.ErrClosed):
		return ErrClosed
	case errors.Is(reason, commit.ErrFull):
		return fmt.Errorf("%w: %d writes are waiting (QueueLimit)", ErrUnavailable, c.options.QueueLimit)
	case errors.Is(reason, commit.ErrStale):
		return fmt.Errorf("%w: no commit could begin within %v (CommitTimeout)", ErrUnavailable, c.options.CommitTimeout)
	}
	return reason
}

// commitBatch takes a batch through its four steps: gate, commit, memory,
// announcement. It runs on a goroutine of the queue's or, hasty, of the writer's own,
// and then returns false if nothing has come of it because the store would have to
// wait. The commit ends with caller's context.
func (c *Cache[K, V]) commitBatch(under, caller context.Context, ops []*commit.Op[K, *write[K, V]]) bool {
	// Gate. From here on no load of these keys fills memory.
	began := c.clock.Precise()
	start := c.clock.Time(began)
	owner := c.owners.Add(1)
	sets := make([]ChangeSet[K, V], len(ops))
	for i, op := range ops {
		sets[i] = op.Item.set
		c.hold(op.Item, owner)
	}

	outcomes, err := c.send(under, caller, ops, sets)
	if errors.Is(err, ErrWouldWait) && Hasty(under) {
		for _, op := range ops {
			c.publish(op.Item, &Outcome[V]{Err: err}, began)
		}
		return false
	}
	took := c.since(began)
	c.counts.commitLatency.Record(took)
	c.counts.batches.Add(1)
	for _, op := range ops {
		c.counts.batchedRows.Add(uint64(len(op.Item.set.Changes)))
		c.counts.queueWait.Record(op.Waited(start))
	}

	if errors.Is(err, ErrUnknownOutcome) {
		c.settleBatch(ops, sets, err)
		return true
	}
	if len(ops) > 1 { // nobody waits for a single writer to come back
		c.queue.Answer(ops, took)
	}
	c.conclude(ops, outcomes, err, began)
	return true
}

// send commits the sets, under a deadline that is the cache's: no caller can end
// it, but one whose write is alone, and is committed by himself. A store that does not come back by then keeps its keys, but not its callers.
// One that ends the goroutine instead is settled here: as after a panic, nobody
// knows.
func (c *Cache[K, V]) send(under, caller context.Context, ops []*commit.Op[K, *write[K, V]], sets []ChangeSet[K, V]) ([]Outcome[V], error) {
	ctx := c.limits.supervise(under, nil, func(why, _ error) {
		for _, op := range ops {
			c.doubt(op.Item, why)
		}
	})
	ctx.endWith(caller)
	returned := false
	defer func() {
		ctx.stop()
		if !returned {
			c.settleBatch(ops, sets, errCommitExited)
		}
	}()
	outcomes, err := c.commit(ctx, sets)
	returned = true
	return outcomes, err
}

// conclude is what follows a commit whose outcome is known.
func (c *Cache[K, V]) conclude(ops []*commit.Op[K, *write[K, V]], outcomes []Outcome[V], err error, began int64) {
	// Memory, all of it, before any answer: of two writes of one key in the batch
	// the first is old already.
	var aside []*commit.Op[K, *write[K, V]]
	for i, op := range ops {
		if o := outcome(outcomes, i, err); blocked(o, op) {
			aside = append(aside, op)
		} else {
			c.publish(op.Item, o, began)
		}
	}
	for i, op := range ops {
		if outcome(outcomes, i, err).Err == nil {
			c.observe(&op.Item.set)
		}
	}
	// Announcement.
	for i, op := range ops {
		o := outcome(outcomes, i, err)
		if blocked(o, op) {
			continue
		}
		op.Item.result = o
		c.finish(op.Item, o.Rows, o.Err)
	}
	if len(aside) > 0 {
		c.setAside(aside)
	}
}

// outcome is set i's, where err stands for all of them.
func outcome[V any](outcomes []Outcome[V], i int, err error) *Outcome[V] {
	if err != nil {
		return &Outcome[V]{Err: err}
	}
	return &outcomes[i]
}

// commit calls the store, and turns what breaks the contract into what it must
// be taken for: nobody knows what happened.
func (c *Cache[K, V]) commit(ctx context.Context, sets []ChangeSet[K, V]) (outcomes []Outcome[V], err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the store panicked in a commit: %v\n%s", ErrUnknownOutcome, p, debug.Stack())
		}
	}()
	outcomes, err = c.store.Commit(ctx, sets)
	if err != nil {
		return nil, err
	}
	if len(outcomes) != len(sets) {
		return nil, fmt.Errorf("%w: the store returned %d outcomes for %d sets", ErrUnknownOutcome, len(outcomes), len(sets))
	}
	for i, o := range outcomes {
		if errors.Is(o.Err, ErrUnknownOutcome) {
			return nil, o.Err
		}
		if o.Err == nil && o.Rows != nil && len(o.Rows) != len(sets[i].Changes) {
			return nil, fmt.Errorf("%w: the store returned %d rows for %d changes", ErrUnknownOutcome, len(o.Rows), len(sets[i].Changes))
		}
		if o.Err == nil && inserts(&sets[i]) {
			if _, told := insertedKey[K](o); !told {
				return nil, fmt.Errorf("%w: the store does not tell the key of a row that it has inserted", ErrUnknownOutcome)
			}
		}
	}
	return outcomes, nil
}

// hold makes the write's keys busy. Those of a set that names several leave memory
// at once: a reader who found one of them there, old, and the other new, would
// have seen half of the set. A row that was only checked counts: what is written
// to it next, which may be acknowledged first, comes after the set.
func (c *Cache[K, V]) hold(w *write[K, V], owner uint64) {
	if w.set.DeleteAll {
		c.gate.HoldAll()
		return
	}
	if w.insertion != nil {
		c.beginInsertion(w)
		return
	}
	several := len(w.op.Keys) > 1
	for _, check := range w.set.Checks {
		several = several || !w.readsOnly() && check.Key != w.set.Changes[0].Key
	}
	for _, key := range w.op.Keys {
		c.gate.Hold(key, owner, several)
	}
	// The caller may have left after the write was taken from the queue and before
	// the hold: what a load has brought back between goes now.
	if w.left.Load() {
		c.evict(w)
	}
}

func (c *Cache[K, V]) evict(w *write[K, V]) {
	if w.insertion != nil {
		c.doubtInsertion(w)
		return
	}
	for _, key := range w.op.Keys {
		c.gate.Evict(key)
	}
}

// publish puts into memory what the database now holds, and ends the hold.
func (c *Cache[K, V]) publish(w *write[K, V], o *Outcome[V], began int64) {
	if errors.Is(o.Err, ErrConflict) {
		// Whatever memory made the caller expect is not what the database holds, and
		// the caller is about to know it.
		for _, check := range w.set.Checks {
			c.gate.Invalidate(check.Key)
		}
		defer c.tellRefuted(&w.set)
	}
	if w.set.DeleteAll {
		c.gate.ReleaseAll()
		return
	}
	if w.insertion != nil {
		if key, told := insertedKey[K](*o); told && o.Err == nil {
			c.gate.Inserted(key, w.insertion.number, c.publication(w, o, 0, key, began))
		}
		c.endInsertion(w)
		return
	}
	for i, key := range w.op.Keys {
		c.gate.Release(key, c.publication(w, o, i, key, began))
	}
}

// observe is for a set that was committed, after all of its batch was published:
// what it has checked, and not written, is about to be told. A commit under way
// that somebody else's write has followed would publish an older row.
func (c *Cache[K, V]) observe(set *ChangeSet[K, V]) {
	if len(set.Checks) == 0 {
		return
	}
	written := make(map[K]struct{}, len(set.Changes))
	for i := range set.Changes {
		written[set.Changes[i].Key] = struct{}{}
	}
	for _, check := range set.Checks {
		if _, its := written[check.Key]; its {
			continue
		}
		row := Row[V]{Version: check.Version, Exists: !check.Absent}
		if row.Exists {
			row.Value, _ = check.Value.(V) // a nil is of no type
		}
		c.gate.Observe(check.Key, func(e *entry[K, V]) bool { return c.atLeast(e, row) })
	}
}

func (c *Cache[K, V]) publication(w *write[K, V], o *Outcome[V], i int, key K, began int64) gate.Publication[*entry[K, V]] {
	switch {
	case errors.Is(o.Err, ErrConflict):
		return gate.Drop[*entry[K, V]]()
	case o.Err != nil:
		return gate.Unchanged[*entry[K, V]]()
	case o.Rows == nil, c.options.Mode == WriteAround:
		return gate.Drop[*entry[K, V]]()
	}
	ttl, keep := c.ttlOf(o.Rows[i])
	if !keep {
		return gate.Drop[*entry[K, V]]()
	}
	own := w.ttl
	if w.ttls != nil {
		own = w.ttls[i]
	}
	if own > 0 {
		ttl = own
	}
	if c.options.Clone == nil {
		return gate.Install(c.newEntry(key, o.Rows[i], began, ttl))
	}
	return c.clonedPublication(key, o.Rows[i], began, ttl)
}

// clonedPublication calls the program's Clone, whose panic does not undo a commit.
func (c *Cache[K, V]) clonedPublication(key K, row Row[V], began int64, ttl time.Duration) gate.Publication[*entry[K, V]] {
	publication := gate.Drop[*entry[K, V]]()
	if err := aside("Clone", nil, func() error {
		publication = gate.Install(c.newEntry(key, row, began, ttl))
		return nil
	}); err != nil {
		c.options.Logger.Error("lockstep: a committed row is not kept in memory", "error", err)
	}
	return publication
}

// doubt tells the writer that nobody knows, once memory has stopped answering
// for its keys. They are busy, so nothing brings them back before the outcome.
func (c *Cache[K, V]) doubt(w *write[K, V], why error) {
	if w.readsOnly() {
		// Not %w: an unknown outcome of nothing is no unknown outcome.
		c.finish(w, nil, fmt.Errorf("%w: what was read could not be validated: %v", ErrUnavailable, why))
		return
	}
	w.left.Store(true) // before the eviction: see hold, and beginInsertion
	c.evict(w)
	c.queue.Doubt(&w.op)
	w.verdict.doubt(why, func(err error) {
		c.counts.doubted()
		c.tell(c.options.Hooks.Unknown, &w.set, nil, err)
	})
}

// ended counts how a write ended, for its purpose. A validation that succeeds is
// the end of something else: of a transaction that was not to be committed.
func (n *counters) ended(purpose purpose, err error, wasDoubted bool) {
	if err == nil && purpose == validation {
		return
	}
	n.outcome(err, wasDoubted)
	if err == nil && purpose == transaction {
		n.transactions.Add(1)
	}
}

// finish makes the write's verdict final, counts it and reports it. An err that
// is ErrUnknownOutcome says that it will never be known.
func (c *Cache[K, V]) finish(w *write[K, V], rows []Row[V], err error) {
	var version Version
	if len(rows) > 0 {
		version = rows[0].Version
	}
	set := &w.set
	if w.insertion != nil {
		c.endInsertion(w) // it may never have begun, and be in doubt all the same
		set = w.inserted(err)
	}
	w.verdict.finish(version, err, func(wasDoubted bool) {
		c.counts.ended(w.purpose, err, wasDoubted)
		if err == nil {
			c.counts.applied(sizes(set))
		}
		c.tellEnd(set, rows, err, wasDoubted)
	})
}

package lockstep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep/internal/behind"
	"github.com/lockstep-cache/lockstep/internal/commit"
	"github.com/lockstep-cache/lockstep/internal/nils"
)

// Defaults of Behind.
const (
	DefaultBehindWrites   = 65_536
	DefaultBehindBytes    = 64 << 20
	DefaultBehindRejected = 1024
)

// Behind bounds Mode WriteBehind, and is for it alone.
type Behind[K comparable, V any] struct {
	// MaxWrites is how many changes of rows may be acknowledged and not yet in the
	// database, each counted, also where later ones have taken the place of earlier
	// ones: it is what a crash of the program can lose. A write that finds no room goes
	// through: its call returns when the database has it, or has refused it. Zero means
	// DefaultBehindWrites.
	MaxWrites int

	// MaxBytes is what they may come to in bytes, as the store encodes values, and less
	// those that later writes have taken the places of. Zero means DefaultBehindBytes.
	// With a Journal those count as well, which has them until they are over.
	MaxBytes int64

	// MaxOps is the number of rows that are flushed in one transaction. Zero means what
	// the store advises, or DefaultBatchOps. It is less where their values come to more
	// than the store advises, or DefaultBatchBytes, and more for a SetMany that is larger.
	// With a store that is not Atomic it is 1.
	MaxOps int

	// MaxDelay is how old the oldest write may become before a flush begins that has
	// less than MaxOps rows. Zero means not at all: a flush takes what was acknowledged
	// while the last one was under way, so that the database is behind by about one
	// commit. The longer it is, the more writes of one key become one row, and the more a
	// crash can lose. A flush begins sooner where half of MaxWrites or MaxBytes is used, a
	// write waits for room, or Flush, Close or a call that reads past memory asks for it.
	MaxDelay time.Duration

	// MaxRejected is how many rows that the database has refused are kept for Rejected.
	// Further ones take the places of the oldest. Zero means DefaultBehindRejected.
	MaxRejected int

	// Journal, when set, keeps every write until the database has it, and a write is
	// acknowledged, and seen, when the journal has it: package journal has one on a disk of
	// this machine. What a crash of the program would lose is then made by New of the
	// next one, which reads see at once. Without it writes are kept in memory alone.
	Journal Journal[K, V]
}

// resolve names what is wrong, and fills in the defaults. Batches there are only of the
// writes that find no room, which are bounded as the store advises.
func (b *Behind[K, V]) resolve(mode Mode, batch Batch, advice BatchAdvice, refuse func(format string, args ...any)) {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"MaxWrites", int64(b.MaxWrites)}, {"MaxBytes", b.MaxBytes}, {"MaxOps", int64(b.MaxOps)},
		{"MaxDelay", int64(b.MaxDelay)}, {"MaxRejected", int64(b.MaxRejected)},
	} {
		switch {
		case f.value < 0:
			refuse("Behind.%s is negative", f.name)
		case f.value > 0 && mode != WriteBehind:
			refuse("Behind.%s needs Mode WriteBehind", f.name)
		}
	}
	if b.Journal != nil && mode != WriteBehind {
		refuse("Behind.Journal needs Mode WriteBehind")
	}
	if b.Journal != nil && nils.Is(b.Journal) {
		refuse("Behind.Journal is a nil %T", b.Journal)
	}
	if mode == WriteBehind && batch != (Batch{}) {
		refuse("Batch contradicts Mode %v: Behind.MaxOps and Behind.MaxDelay bound its flushes", mode)
	}
	b.MaxWrites = cmp.Or(b.MaxWrites, DefaultBehindWrites)
	b.MaxBytes = cmp.Or(b.MaxBytes, DefaultBehindBytes)
	b.MaxOps = cmp.Or(b.MaxOps, advice.MaxOps, DefaultBatchOps)
	b.MaxRejected = cmp.Or(b.MaxRejected, DefaultBehindRejected)
}

// writeBehind is what a cache has in Mode WriteBehind; in every other one it has none.
//
// docs/design/write-behind.md has its states and invariants. In short: order has the
// acknowledged writes that the database has not, and answers for their keys before
// memory does. One goroutine flushes them, in order, a transaction at a time, and keeps
// their keys busy in the gate meanwhile, so that memory follows as it does after a write
// that goes through.
type writeBehind[K comparable, V any] struct {
	c        *Cache[K, V]
	order    *behind.Order[K, *dirty[K, V]]
	journal  Journal[K, V] // may be nil
	doubts   doubts[K, V]
	rejected rejections[K, V]
	counts   behindCounts
	// ended is closed when nothing will be flushed any more.
	ended chan struct{}
}

// dirty is a row that the database has not.
type dirty[K comparable, V any] struct {
	entry  *entry[K, V] // for readers
	change Change[K, V] // for the database
}

func newWriteBehind[K comparable, V any](c *Cache[K, V]) (*writeBehind[K, V], error) {
	o := &c.options.Behind
	switch {
	case c.can.ReadOnly:
		return nil, fmt.Errorf("%w: Mode WriteBehind over a store that is read-only", ErrUnsupported)
	case c.can.Settle == nil:
		// What comes after an unknown flush waits until it is settled.
		return nil, fmt.Errorf("%w: Mode WriteBehind over a store that cannot settle unknown outcomes (Capabilities.Settle)", ErrUnsupported)
	}
	if !c.can.Atomic {
		o.MaxOps = 1
	}
	b := &writeBehind[K, V]{
		c: c, journal: o.Journal,
		rejected: rejections[K, V]{most: o.MaxRejected},
		ended:    make(chan struct{}),
	}
	config := behind.Config{
		MaxWrites: o.MaxWrites, MaxBytes: o.MaxBytes, MaxWaiting: c.options.QueueLimit,
		MaxRows: o.MaxOps, MaxSegmentBytes: int64(cmp.Or(c.can.Batch.MaxBytes, DefaultBatchBytes)),
		MaxDelay: o.MaxDelay,
		Apart:    !c.can.Atomic,
	}
	var records []JournalRecord[K, V]
	if b.journal != nil {
		var err error
		if records, err = b.useJournal(&config); err != nil {
			return nil, err
		}
	}
	b.order = behind.New[K, *dirty[K, V]](config)
	return b, b.recover(records)
}

// get is what the key's readers see before they look at memory; nil for nothing.
func (b *writeBehind[K, V]) get(key K) *entry[K, V] {
	if d, found := b.order.Get(key); found {
		return d.entry
	}
	return nil
}

// held is what the cache has for the key. What the database has not goes before what
// memory has, and is looked at first: it leaves only when memory is right.
func (c *Cache[K, V]) held(key K) (*entry[K, V], bool) {
	if c.behind != nil {
		if e := c.behind.get(key); e != nil {
			return e, true
		}
	}
	return c.memory.Get(key)
}

// perform acknowledges the write, or has it go through.
func (b *writeBehind[K, V]) perform(ctx context.Context, w *write[K, V]) error {
	c := b.c
	op := b.inLine(w) // calls Clone
	if b.journal != nil && !op.All {
		var err error
		if op.Record, err = b.journal.Encode(w.set.Changes); err != nil {
			return c.refuse(err)
		}
	}
	// What is refused, and what panics in the program's own code, was never pending.
	c.tell(c.options.Hooks.Pending, &w.set, nil, nil)
	w.result = &Outcome[V]{Existed: []bool{b.known(w)}}
	waits, err := b.order.Submit(op)
	switch {
	case errors.Is(err, behind.ErrDoubtful):
		b.doubt(op, err)
	case err != nil:
		c.finish(w, nil, b.untaken(err))
	case waits:
		b.await(ctx, w, op)
	}
	if err == nil && !waits {
		return nil
	}
	_, err = w.answer()
	return err
}

// inLine is the write as the order has it.
func (b *writeBehind[K, V]) inLine(w *write[K, V]) *behind.Write[K, *dirty[K, V]] {
	op := &behind.Write[K, *dirty[K, V]]{Owner: w, All: w.set.DeleteAll}
	op.Items = make([]behind.Item[K, *dirty[K, V]], len(w.set.Changes))
	for i, change := range w.set.Changes {
		op.Items[i] = behind.Item[K, *dirty[K, V]]{
			Key:   change.Key,
			Value: &dirty[K, V]{change: change, entry: b.c.newEntry(change.Key, Row[V]{Value: change.Value, Exists: !change.Delete}, 0, 0)},
			Bytes: shareOf(w.op.Bytes, i, len(w.set.Changes)),
		}
	}
	return op
}

// shareOf is item i's part of the bytes of n. Their sum is what counts.
func shareOf(bytes, i, n int) int { return bytes*(i+1)/n - bytes*i/n }

// known tells whether the cache knows of a row that the write deletes.
func (b *writeBehind[K, V]) known(w *write[K, V]) bool {
	if len(w.set.Changes) != 1 {
		return false
	}
	e, ok := b.c.held(w.set.Changes[0].Key)
	return ok && e.Exists && b.c.fresh(e)
}

func (b *writeBehind[K, V]) untaken(reason error) error {
	switch {
	case errors.Is(reason, behind.ErrFull):
		reason = commit.ErrFull
	case errors.Is(reason, behind.ErrClosed):
		reason = commit.ErrClosed
	}
	return b.c.unqueued(reason)
}

// await waits for the answer of a write that goes through, or for ctx.
func (b *writeBehind[K, V]) await(ctx context.Context, w *write[K, V], op *behind.Write[K, *dirty[K, V]]) {
	c := b.c
	stale := time.NewTimer(c.options.CommitTimeout)
	defer stale.Stop()
	overdue := stale.C
	for {
		select {
		case <-w.answered():
			return
		case <-overdue:
			overdue = nil // if it is on its way, the queue sees to it
			if b.order.Leave(op) {
				c.finish(w, nil, c.unqueued(commit.ErrStale))
			}
		case <-ctx.Done():
			if b.order.Leave(op) {
				c.finish(w, nil, ended(ctx))
			} else {
				c.leave(ctx, w)
			}
			<-w.answered()
			return
		}
	}
}

// Flush waits until every write that was acknowledged before the call is over, in the
// database or Rejected, and has the flush begin without Behind.MaxDelay. The error is that
// of ctx, ErrClosed, or ErrInvalid if changes were rejected meanwhile, those among them of
// which nobody can tell; it does not speak of earlier ones. In other modes than WriteBehind there is nothing to wait for.
func (c *Cache[K, V]) Flush(ctx context.Context) error {
	if err := c.admit(ctx); err != nil || c.behind == nil {
		return err
	}
	before := c.behind.order.State().Rejected
	if err := c.drain(ctx); err != nil {
		return err
	}
	if n := c.behind.order.State().Rejected - before; n > 0 {
		return fmt.Errorf("%w: %d changes were rejected (Rejected)", ErrInvalid, n)
	}
	return nil
}

// drain is for calls that read past memory, or are about to: what they say is not older
// than what was acknowledged before them.
func (c *Cache[K, V]) drain(ctx context.Context) error {
	if c.behind == nil {
		return nil
	}
	err := c.behind.order.Drain(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, behind.ErrClosed):
		return ErrClosed
	}
	err = ended(ctx)
	if why := c.behind.counts.failure.Load(); why != nil {
		err = fmt.Errorf("%w: the last flush has failed: %v", err, *why)
	}
	return err
}

// close flushes what there is. When ctx ends first, the error says how much is left.
func (b *writeBehind[K, V]) close(ctx context.Context) error {
	b.order.Close()
	flushed := before(ctx, b.ended)
	for _, op := range b.order.Stop() {
		b.c.finish(op.Owner.(*write[K, V]), nil, ErrClosed)
	}
	n := b.order.State().Writes
	if n == 0 {
		return nil // what is under way is counted by who waits for it
	}
	reason := ended(ctx)
	if flushed { // as far as that goes
		reason = fmt.Errorf("%w: a flush cannot be settled", ErrUnknownOutcome)
	}
	err := fmt.Errorf("lockstep: close: %w: %d acknowledged writes are not in the database", reason, n)
	if b.journal != nil {
		err = fmt.Errorf("%w, and are in the journal", err)
	}
	if why := b.counts.failure.Load(); why != nil {
		err = fmt.Errorf("%w: the last flush has failed: %v", err, *why)
	}
	return err
}

func (b *writeBehind[K, V]) report(s *Stats) {
	state := b.order.State()
	s.DirtyWrites, s.DirtyBytes = state.Writes, state.Bytes
	if !state.Oldest.IsZero() {
		s.DirtyAge = time.Since(state.Oldest)
	}
	s.CoalescedWrites, s.WritesThrough = state.Coalesced, state.Waited
	s.QueueLength += state.Waiting
	s.Flushes, s.FlushedRows = b.counts.flushes.Load(), b.counts.rows.Load()
	s.FlushRetries, s.RejectedWrites = b.counts.retries.Load(), b.counts.rejected.Load()
}

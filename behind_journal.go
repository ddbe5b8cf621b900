package lockstep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/lockstep-cache/lockstep/internal/behind"
)

// Journal keeps the acknowledged writes of a cache in Mode WriteBehind until the database
// has them. Package journal has one, on a disk; what follows is what a cache asks of it.
//
// Records have numbers that count up by one. The database holds one number, the position:
// all records up to it are over. It is moved in the transaction that makes their rows, so
// that a record is either to be made again, or never. A record is over when the database
// has made its rows, or they were rejected.
type Journal[K comparable, V any] interface {
	// Begin takes the journal for one cache, and returns the number of its last record and the records
	// that are not over, in order; the last of them has that number. Later calls are
	// refused.
	Begin() (last uint64, records []JournalRecord[K, V], err error)
	// Encode returns a record's bytes. Its error is ErrInvalid or
	// ErrTooLarge. It may be called at any time.
	Encode(changes []Change[K, V]) ([]byte, error)
	// Append makes records durable, which follow the last one. Its error is
	// ErrUnknownOutcome where they may be found by a later Begin, and else says that they
	// will not, and then the same numbers come again. It is given no context: every write waits
	// for it, whatever its own says. After the former the journal takes nothing before Renew. It is called by one
	// goroutine at a time, and may be beside the methods that follow.
	Append(records []JournalEntry) error

	// Database is that which holds the position: the cache's store has the same
	// Capabilities.Database.
	Database() any
	// Mark moves the position in a transaction of that database. It is moved when the
	// transaction is committed, if nobody else has moved it since; Marked then says so.
	Mark(ctx context.Context, txn Txn, number uint64) error
	Marked(number uint64)
	// Position asks the database for it.
	Position(ctx context.Context) (number uint64, err error)
	// Renew moves the position to a number that Append may have left a record of, when all
	// before are over. With nil, no later Begin finds that record, and Append goes on.
	Renew(ctx context.Context, number uint64) error
}

// JournalRecord is an acknowledged write of one call. Its changes have nothing Prepared.
type JournalRecord[K comparable, V any] struct {
	Number  uint64
	Changes []Change[K, V]
}

// JournalEntry is a record as Append takes it.
type JournalEntry struct {
	Number uint64
	Data   []byte
}

// useJournal takes what the journal has kept, and has writes kept in it from now on.
func (b *writeBehind[K, V]) useJournal(config *behind.Config) (records []JournalRecord[K, V], err error) {
	can := &b.c.can
	switch {
	case can.Begin == nil || can.Apply == nil || can.Database == nil:
		return nil, fmt.Errorf("%w: Behind.Journal over a store without transactions (Capabilities.Begin and Apply)", ErrUnsupported)
	case can.Database != b.journal.Database():
		return nil, fmt.Errorf("%w option: Behind.Journal keeps its position by way of another database handle than that of the cache's store", ErrInvalid)
	}
	if config.First, records, err = b.journal.Begin(); err != nil {
		return nil, err
	}
	config.First -= uint64(len(records))
	config.Log = func(writes []behind.Logged) error {
		entries := make([]JournalEntry, len(writes))
		for i, w := range writes {
			entries[i] = JournalEntry{Number: w.Number, Data: w.Record}
		}
		err := aside("the journal", ErrUnknownOutcome, func() error { return b.journal.Append(entries) })
		if errors.Is(err, ErrUnknownOutcome) {
			return doubtfulError{err}
		}
		return err
	}
	return records, nil
}

// doubtfulError is an unknown outcome of the journal's, as package behind knows it.
type doubtfulError struct{ error }

func (d doubtfulError) Unwrap() error        { return d.error }
func (d doubtfulError) Is(target error) bool { return target == behind.ErrDoubtful }

// recover acknowledges again what the journal has kept.
func (b *writeBehind[K, V]) recover(records []JournalRecord[K, V]) error {
	for _, r := range records {
		w := b.c.newWrite(ChangeSet[K, V]{})
		for _, change := range r.Changes {
			change, size, err := b.c.prepare(change)
			if err != nil {
				return fmt.Errorf("lockstep: write %d of the journal cannot be made (open it with the store's limits and codec as they were): %w", r.Number, err)
			}
			w.set.Changes = append(w.set.Changes, change)
			w.op.Bytes += size
		}
		op := b.inLine(w)
		op.Number = r.Number
		b.order.Recover(op)
	}
	return nil
}

// doubts are writes that the journal may have kept or not, until it is renewed.
type doubts[K comparable, V any] struct {
	mu      sync.Mutex
	writes  []*behind.Write[K, *dirty[K, V]] // guarded by mu, as what follows
	renewed uint64                           // the doubtful writes up to it are not applied
	over    bool                             // nothing will be renewed any more
}

// doubt tells the writer that nobody knows. The keys are not held: nothing of it will be in
// the database while this program runs, so what a load brings is right.
func (b *writeBehind[K, V]) doubt(op *behind.Write[K, *dirty[K, V]], why error) {
	b.c.doubt(op.Owner.(*write[K, V]), why)
	b.doubts.mu.Lock()
	defer b.doubts.mu.Unlock()
	b.doubts.writes = append(b.doubts.writes, op)
	b.settleDoubtsLocked()
}

func (b *writeBehind[K, V]) settleDoubtsLocked() {
	d := &b.doubts
	d.writes = slices.DeleteFunc(d.writes, func(op *behind.Write[K, *dirty[K, V]]) bool {
		w := op.Owner.(*write[K, V])
		switch {
		case op.Number <= d.renewed:
			b.c.finish(w, nil, fmt.Errorf("%w: the journal has not kept it", ErrUnavailable))
		case d.over:
			b.c.finish(w, nil, errUnsettled)
		default:
			return false
		}
		return true
	})
}

// renew moves the position beyond what the journal may have kept without having said so.
// It returns false if Close has given up before.
func (b *writeBehind[K, V]) renew(number uint64) bool {
	for delay := firstFlushDelay; ; delay = min(2*delay, lastFlushDelay) {
		ctx, cancel := context.WithTimeout(b.c.life, b.c.options.CommitTimeout)
		err := aside("the journal", nil, func() error { return b.journal.Renew(ctx, number) })
		cancel()
		if err == nil {
			break
		}
		if !b.pause(delay, "lockstep: the journal could not be renewed, will try again", err) {
			return false
		}
	}
	b.counts.failure.Store(nil)
	b.doubts.mu.Lock()
	defer b.doubts.mu.Unlock()
	b.doubts.renewed = number
	b.settleDoubtsLocked()
	return true
}

// endDoubts is called when nothing will be renewed any more.
func (b *writeBehind[K, V]) endDoubts() {
	b.doubts.mu.Lock()
	defer b.doubts.mu.Unlock()
	b.doubts.over = true
	b.settleDoubtsLocked()
}

// journaled is attempt where there is a journal: rows and position are one transaction.
//
// The database refuses a transaction, and does not say because of which set. So when it
// has refused the whole, the sets are applied one by one; each that is refused has it begin
// again without that one, and with those before it as one.
func (b *writeBehind[K, V]) journaled(f *flush[K, V]) error {
	c := b.c
	ctx, cancel := context.WithTimeout(c.commits, c.options.CommitTimeout)
	defer cancel()
	began := c.clock.Precise()
	parts := f.parts()
	last := !f.alone || len(f.left) <= 1 // nothing is left after them
	var txn Txn
	var rows [][]Row[V]
	refused, why := -1, error(nil)
	err := aside("a flush", nil, func() (err error) {
		if txn, err = c.can.Begin(ctx); err != nil {
			return err
		}
		for i, part := range parts {
			set := f.changes(f.places(part))
			o, err := c.can.Apply(ctx, txn, set)
			if err == nil {
				err = o.Err
			}
			if hopeless(err) {
				refused, why = i, err
				return nil
			}
			if err != nil {
				return err
			}
			rows = append(rows, o.Rows)
			c.counts.batchedRows.Add(uint64(len(set.Changes)))
		}
		if last {
			return b.journal.Mark(ctx, txn, f.Last)
		}
		return nil
	})
	if err != nil || refused >= 0 {
		b.rollBack(txn)
		if err != nil {
			return certain(err)
		}
		f.refuse(parts, refused, why)
		return nil
	}
	err = aside("a commit", ErrUnknownOutcome, func() error { return txn.Commit(ctx) })
	c.counts.commitLatency.Record(c.since(began))
	c.counts.batches.Add(1)
	if errors.Is(err, ErrUnknownOutcome) {
		rows = make([][]Row[V], len(parts)) // somebody else may have written since
		if err = b.settleFlush(txn, f, last); errors.Is(err, errUnsettled) {
			return err
		}
	}
	switch {
	case err == nil:
		for i, part := range parts {
			f.keep(f.places(part), rows[i], began)
		}
	case errors.Is(err, ErrUnknownOutcome):
		for _, part := range parts {
			for _, set := range part {
				f.rejected[set] = err
			}
		}
	case hopeless(err):
		// A constraint that is checked at the end. Which set it is about shows when each is
		// committed by itself.
		f.alone = true
		if len(parts) == 1 && len(parts[0]) == 1 {
			f.rejected[parts[0][0]] = err
			f.left = f.left[1:]
		}
		return nil
	default:
		return err
	}
	for _, part := range parts {
		f.left = f.left[len(part):]
	}
	if f.marked = last; last {
		b.journal.Marked(f.Last)
	}
	return nil
}

// refuse notes that a part was refused, when those before it were not.
func (f *flush[K, V]) refuse(parts [][]int, at int, why error) {
	part := parts[at]
	switch {
	case len(part) == 1:
		f.rejected[part[0]] = why
		before := 0
		for _, p := range parts[:at] {
			before += len(p)
		}
		f.left = slices.Delete(f.left, before, before+1)
		if f.apart && !f.wary {
			f.accepted = before
		}
	case f.apart:
		// They were accepted one by one, in their order, and are not as one.
		f.wary, f.accepted = true, 0
	default:
		f.apart = true
	}
}

// settleFlush waits until it is known what became of the transaction's commit. A journal
// knows by its position what the database has forgotten.
func (b *writeBehind[K, V]) settleFlush(txn Txn, f *flush[K, V], marks bool) error {
	c := b.c
	p := patience{life: c.life, timeout: c.options.CommitTimeout, logger: c.options.Logger, hopeless: func() { <-c.closing.Done() }}
	applied, lost := false, error(nil)
	err := p.until(func(ctx context.Context) error {
		return aside("Settle", nil, func() (err error) {
			if applied, err = txn.Settle(ctx); errors.Is(err, ErrUnknownOutcome) && marks {
				var position uint64
				position, err = b.journal.Position(ctx)
				applied = position >= f.Last
			} else if errors.Is(err, ErrUnknownOutcome) {
				lost, err = err, nil
			}
			return err
		})
	})
	switch {
	case err != nil:
		return err
	case lost != nil:
		return fmt.Errorf("%w: settled, but it cannot be told which way: %w", ErrUnknownOutcome, lost)
	case !applied:
		return fmt.Errorf("%w: the database did not commit it", ErrUnavailable)
	}
	return nil
}

func (b *writeBehind[K, V]) rollBack(txn Txn) {
	if txn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.c.options.CommitTimeout)
	defer cancel()
	if err := aside("Rollback", nil, func() error { return txn.Rollback(ctx) }); err != nil {
		b.c.options.Logger.Warn("lockstep: a flush could not be rolled back", "error", err)
	}
}

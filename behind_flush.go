package lockstep

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep/internal/behind"
	"github.com/lockstep-cache/lockstep/internal/gate"
)

const (
	firstFlushDelay = 20 * time.Millisecond
	lastFlushDelay  = 5 * time.Second
)

// behindCounts is what a cache counts in Mode WriteBehind.
type behindCounts struct {
	flushes, rows, retries, rejected atomic.Uint64
	// failure is why the last attempt was in vain; nil where it was not.
	failure atomic.Pointer[error]
}

// run brings what stands first in the order to its end, again and again, until nothing
// will come any more, or Close gives up.
func (b *writeBehind[K, V]) run() {
	defer b.c.tasks.end()
	defer close(b.ended)
	defer b.endDoubts()
	for {
		turn, ok := b.order.Next(b.c.life)
		switch {
		case !ok:
			return
		case turn.Segment != nil:
			f := b.begin(turn.Segment)
			if !b.flush(f) {
				return
			}
			b.conclude(f)
		case turn.Passing != nil:
			if !b.pass(turn.Passing) {
				return
			}
			b.order.Passed()
		default:
			if !b.renew(turn.Renew) {
				return
			}
			b.order.Renewed()
		}
	}
}

// pass has writes go through that found no room: by the write path, as in Mode
// WriteThrough, but after everything before them. It waits until they are settled, for
// what is flushed next might otherwise be undone by one that arrives late. It returns
// false if Close has given up.
func (b *writeBehind[K, V]) pass(passing []*behind.Write[K, *dirty[K, V]]) bool {
	for _, op := range passing {
		w := op.Owner.(*write[K, V])
		if err := b.c.queue.Submit(&w.op); err != nil {
			b.c.dropped(&w.op, err)
		}
	}
	for _, op := range passing {
		select {
		case <-op.Owner.(*write[K, V]).settled():
		case <-b.c.life.Done():
			return false
		}
	}
	return true
}

// flush is a segment on its way to the database. Its keys are busy.
type flush[K comparable, V any] struct {
	*behind.Segment[K, *dirty[K, V]]
	// left are those of its Sets that are neither committed nor rejected.
	left []int
	// How what is left is divided, each way tried when the one before was refused. First as
	// one set; then apart: set by set, in one transaction, which with a journal a refusal
	// ends, so that the first accepted of them are made as one in the next; wary: that was
	// refused, too, so set by set for good; alone: the commit itself was refused, so a
	// transaction for each, the last with the position.
	apart       bool
	accepted    int
	wary, alone bool
	// marked: a journal's position is beyond it.
	marked bool
	made   []made[V] // by the places of Items
	// rejected are the errors of sets that will not be committed.
	rejected map[int]error
}

// made is what the database now holds, where it has told.
type made[V any] struct {
	row   *Row[V]
	began int64 // of the commit
}

func (b *writeBehind[K, V]) begin(segment *behind.Segment[K, *dirty[K, V]]) *flush[K, V] {
	f := &flush[K, V]{Segment: segment, made: make([]made[V], len(segment.Items)), rejected: make(map[int]error)}
	for i := range segment.Sets {
		f.left = append(f.left, i)
	}
	owner := b.c.owners.Add(1)
	for _, item := range segment.Items {
		// An old copy may stay in memory meanwhile, even one of several: nobody sees it,
		// because order answers for the key.
		b.c.gate.Hold(item.Key, owner, false)
	}
	return f
}

// flush commits until nothing is left, as often as it takes. It returns false if Close
// has given up before.
func (b *writeBehind[K, V]) flush(f *flush[K, V]) bool {
	attempt := b.attempt
	if b.journal != nil {
		attempt = b.journaled
	} else {
		f.marked = true
	}
	for delay := firstFlushDelay; len(f.left) > 0 || !f.marked; {
		err := attempt(f)
		switch {
		case errors.Is(err, errUnsettled):
			return false
		case err == nil:
			delay = firstFlushDelay
			continue
		}
		b.counts.retries.Add(1)
		if !b.pause(delay, "lockstep: a flush has failed, will try again", err) {
			return false
		}
		delay = min(2*delay, lastFlushDelay)
	}
	b.counts.failure.Store(nil)
	return true
}

// pause waits before something is tried again that has failed. It returns false if Close
// has given up.
func (b *writeBehind[K, V]) pause(delay time.Duration, what string, err error) bool {
	b.counts.failure.Store(&err)
	pause := delay/2 + rand.N(delay/2)
	b.c.options.Logger.Warn(what, "error", err, "after", pause)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-b.c.life.Done():
		return false
	}
}

// attempt makes one commit of what is left. Its error says that some of it has to be
// tried again, later.
//
// What is left is one set of changes, so that the database makes all of it or nothing.
// Of several it would leave out one whose row somebody else has locked, and commit the
// others: a crash would then not leave a prefix. Only when it has refused the whole are
// the sets committed as several, so that it can say which of them it refuses.
func (b *writeBehind[K, V]) attempt(f *flush[K, V]) error {
	parts := f.parts()
	sets, places := make([]ChangeSet[K, V], len(parts)), make([][]int, len(parts))
	for i, part := range parts {
		places[i] = f.places(part)
		sets[i] = f.changes(places[i])
	}
	outcomes, began, err := b.commit(sets)
	if errors.Is(err, ErrUnknownOutcome) {
		outcomes, err = b.settle(err, sets)
	}
	if errors.Is(err, errUnsettled) {
		return err
	}
	f.left = nil
	var again error
	for i, part := range parts {
		o := outcome(outcomes, i, err)
		switch {
		case o.Err == nil:
			f.keep(places[i], o.Rows, began)
		case errors.Is(o.Err, ErrUnknownOutcome), hopeless(o.Err) && len(part) == 1:
			// Nobody will ever know whether an unknown one was made. To make it again would
			// undo what somebody else may have written since.
			for _, set := range part {
				f.rejected[set] = o.Err
			}
		case hopeless(o.Err):
			f.left, f.apart = append(f.left, part...), true
		default:
			f.left, again = append(f.left, part...), o.Err
		}
	}
	return again
}

// hopeless tells whether the database will never accept the set.
func hopeless(err error) bool {
	return errors.Is(err, ErrInvalid) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrConflict)
}

// parts are those of the sets that are left which are committed as one.
func (f *flush[K, V]) parts() (parts [][]int) {
	left := f.left
	switch {
	case len(left) == 0:
		return nil
	case f.alone:
		return [][]int{left[:1]}
	case !f.apart:
		return [][]int{left}
	case f.accepted > 0:
		parts, left = [][]int{left[:f.accepted]}, left[f.accepted:]
	}
	for _, set := range left {
		parts = append(parts, []int{set})
	}
	return parts
}

// keep notes what the database has told of the rows at the places.
func (f *flush[K, V]) keep(places []int, rows []Row[V], began int64) {
	if rows == nil {
		return
	}
	for i, place := range places {
		f.made[place] = made[V]{&rows[i], began}
	}
}

// places are the items of the sets, in the order of the segment.
func (f *flush[K, V]) places(sets []int) (places []int) {
	for _, set := range sets {
		places = append(places, f.Sets[set].Places...)
	}
	slices.Sort(places)
	return places
}

func (f *flush[K, V]) changes(places []int) ChangeSet[K, V] {
	changes := make([]Change[K, V], len(places))
	for i, place := range places {
		changes[i] = f.Items[place].Value.change
	}
	return ChangeSet[K, V]{Changes: changes}
}

func (b *writeBehind[K, V]) commit(sets []ChangeSet[K, V]) (outcomes []Outcome[V], began int64, err error) {
	c := b.c
	ctx, cancel := context.WithTimeout(c.commits, c.options.CommitTimeout)
	defer cancel()
	began = c.clock.Precise()
	err = aside("a commit", ErrUnknownOutcome, func() (err error) {
		outcomes, err = c.commit(ctx, sets)
		return err
	})
	c.counts.commitLatency.Record(c.since(began))
	c.counts.batches.Add(1)
	for i := range sets {
		c.counts.batchedRows.Add(uint64(len(sets[i].Changes)))
	}
	return outcomes, began, err
}

// settle waits until an unknown commit is settled, and returns what it was.
func (b *writeBehind[K, V]) settle(cause error, sets []ChangeSet[K, V]) ([]Outcome[V], error) {
	settlement, err := b.c.settle(cause, len(sets))
	if err != nil {
		return nil, err
	}
	outcomes := make([]Outcome[V], len(sets))
	for i := range sets {
		outcomes[i] = settled(settlement, &sets[i], i, nil)
		outcomes[i].Rows = nil // somebody else may have written since
	}
	return outcomes, nil
}

// conclude puts into memory what the database now holds, and ends the segment: in this
// order, so that a reader who does not find a row here any more finds it there. What was
// rejected is kept and counted before that, for a Flush that waits.
func (b *writeBehind[K, V]) conclude(f *flush[K, V]) {
	c := b.c
	var plain write[K, V] // one without a TTL of its own
	rejected := 0
	for i, set := range f.Sets {
		err := f.rejected[i]
		for _, place := range set.Places {
			key, made := f.Items[place].Key, f.made[place]
			p := gate.Drop[*entry[K, V]]()
			switch {
			case err != nil && !errors.Is(err, ErrUnknownOutcome):
				p = gate.Unchanged[*entry[K, V]]()
			case made.row != nil:
				p = c.publication(&plain, &Outcome[V]{Rows: []Row[V]{*made.row}}, 0, key, made.began)
			}
			c.gate.Release(key, p)
		}
		if err != nil {
			b.reject(f, set, err)
			rejected += set.Writes
			continue
		}
		changes := f.changes(set.Places)
		b.counts.rows.Add(uint64(len(changes.Changes)))
		c.counts.committed.Add(uint64(set.Calls))
		c.counts.applied(sizes(&changes))
	}
	b.counts.flushes.Add(1)
	b.order.Over(rejected)
	for i, set := range f.Sets {
		changes := f.changes(set.Places)
		if err := f.rejected[i]; err != nil {
			b.tellRejected(&changes, err)
			continue
		}
		rows := make([]Row[V], len(set.Places))
		for at, place := range set.Places {
			if row := f.made[place].row; row != nil {
				rows[at] = *row
			}
		}
		c.tell(c.options.Hooks.Committed, &changes, rows, nil)
		c.tell(c.options.Hooks.Synchronized, &changes, rows, nil)
	}
}

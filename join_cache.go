package lockstep

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep/internal/gate"
)

// InJoined is a cache inside a transaction that the program began. Its methods may
// be called by the goroutine to which the transaction belongs. They are executed in the
// transaction, at once, and neither fill memory nor are answered by it.
type InJoined[K comparable, V any] struct {
	j     *Joined
	share *joinedShare[K, V]
}

// InJoined returns the cache as a part of a transaction that the program began. Several
// caches whose stores share a database handle may take part. The error is
// ErrUnsupported for a cache of another database, or whose store cannot do it.
//
// A cache that is closed while the transaction is open has no part in it any more, and
// Close does not wait for the transaction: what was written in it can still be committed.
func (c *Cache[K, V]) InJoined(j *Joined) (InJoined[K, V], error) {
	if err := c.options.Mode.permitsTable("InJoined"); err != nil {
		return InJoined[K, V]{}, err
	}
	switch {
	case c.closing.Err() != nil:
		return InJoined[K, V]{}, ErrClosed
	case c.options.Mode == WriteBehind:
		return InJoined[K, V]{}, fmt.Errorf("%w: InJoined in Mode %v", ErrUnsupported, c.options.Mode)
	case c.can.Apply == nil || c.can.Read == nil || c.can.ReadOnly:
		return InJoined[K, V]{}, fmt.Errorf("%w: transactions that the program began (InJoined)", ErrUnsupported)
	case c.can.Database == nil || c.can.Database != j.database:
		return InJoined[K, V]{}, fmt.Errorf("%w: the transaction was joined by way of another database handle than that of the cache's store", ErrUnsupported)
	}
	s, err := j.join(c.id, func() joinedStake {
		if !c.tasks.begin() {
			return nil
		}
		s := &joinedShare[K, V]{c: c, owner: c.owners.Add(1), places: make(map[K]int)}
		s.unwatch = context.AfterFunc(c.closing, func() { j.leave(s) })
		return s
	})
	if err != nil {
		return InJoined[K, V]{}, err
	}
	return InJoined[K, V]{j: j, share: s.(*joinedShare[K, V])}, nil
}

// Get returns the value that the transaction sees: what was written in it, or else the
// row, as the transaction's isolation level has it. An absent row is ErrNotFound. It
// takes no lock of the row: with what has been read, Set is to be called with IfVersion.
func (a InJoined[K, V]) Get(ctx context.Context, key K) (V, error) {
	rows, err := a.read(ctx, key)
	if err != nil {
		var none V
		return none, err
	}
	row := rows[key]
	if !row.Exists || row.over() {
		var none V
		return none, ErrNotFound
	}
	return row.Value, nil
}

// GetEntry is Get, with the row's version, by which Set can be made to depend on it.
func (a InJoined[K, V]) GetEntry(ctx context.Context, key K) (Entry[K, V], error) {
	began := a.share.c.clock.Precise()
	rows, err := a.read(ctx, key)
	if err != nil {
		return Entry[K, V]{}, err
	}
	e := a.share.c.newEntry(key, rows[key], began, 0)
	if !e.Exists {
		return Entry[K, V]{}, ErrNotFound
	}
	return a.share.c.public(key, e, false), nil
}

// GetMany is Get for several keys. It returns those that have rows.
func (a InJoined[K, V]) GetMany(ctx context.Context, keys []K) (map[K]V, error) {
	rows, err := a.read(ctx, keys...)
	if err != nil {
		return nil, err
	}
	values := make(map[K]V, len(rows))
	for key, row := range rows {
		if row.Exists && !row.over() {
			values[key] = row.Value
		}
	}
	return values, nil
}

// read asks the database, in the transaction.
func (a InJoined[K, V]) read(ctx context.Context, keys ...K) (rows map[K]Row[V], err error) {
	c := a.share.c
	if err := c.admit(ctx, keys...); err != nil || len(keys) == 0 {
		return nil, err
	}
	under, leave, err := a.j.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	err = guarded("Read", nil, func() (err error) {
		rows, err = c.can.Read(under, a.j.txn, keys)
		return err
	})
	if err != nil {
		return nil, a.j.because(err)
	}
	for _, key := range keys {
		row := rows[key]
		c.gate.Observe(key, func(e *entry[K, V]) bool { return c.atLeast(e, row) })
	}
	return rows, nil
}

// Set writes the row, and returns the version that it has if the transaction commits.
// The options are IfVersion or IfAbsent, and Lifetime or ExpiresAt.
//
// An error that is ErrInvalid, ErrTooLarge or ErrUnsupported because of the key, the value
// or an option has left no trace, nor has the refusal of a key of which an earlier write
// is not settled (ErrUnavailable): who settles may have to wait for this transaction. After
// any other, a condition that does not hold among them, the transaction can only be rolled
// back, and Commit does that: not every database can go on with a transaction in which
// something has failed.
//
// It waits for a row that somebody else has locked as long as ctx allows.
func (a InJoined[K, V]) Set(ctx context.Context, key K, value V, options ...WriteOption) (Version, error) {
	o, err := a.share.c.gather(options, ofJoinedSet)
	if err != nil {
		return 0, a.share.c.refuse(err)
	}
	outcome, err := a.change(ctx, Change[K, V]{Key: key, Value: value, Expect: o.expect, Lifetime: o.lifetime, ExpiresAt: o.expiresAt})
	if err != nil || len(outcome.Rows) == 0 {
		return 0, err
	}
	return outcome.Rows[0].Version, nil
}

// Delete removes the row, and tells whether there was one. An absent row is no error.
// The option is IfVersion. Its errors are as Set's.
func (a InJoined[K, V]) Delete(ctx context.Context, key K, options ...WriteOption) (existed bool, err error) {
	o, err := a.share.c.gather(options, ofJoinedDelete)
	if err != nil {
		return false, a.share.c.refuse(err)
	}
	outcome, err := a.change(ctx, Change[K, V]{Key: key, Delete: true, Expect: o.expect})
	if err != nil {
		return false, err
	}
	return len(outcome.Existed) > 0 && outcome.Existed[0], nil
}

// change makes one change in the transaction.
func (a InJoined[K, V]) change(ctx context.Context, change Change[K, V]) (o Outcome[V], err error) {
	s, c := a.share, a.share.c
	if err = c.admit(ctx, change.Key); err == nil {
		change, _, err = c.prepare(change)
	}
	if err != nil {
		return o, c.refuse(err)
	}
	under, leave, err := a.j.enter(ctx)
	if err != nil {
		return o, notApplied(err)
	}
	defer leave()
	if err := a.j.usable(); err != nil {
		return o, notApplied(err)
	}
	if !s.certain(under, change.Key) {
		return o, notApplied(fmt.Errorf("%w: an earlier write of %s is not settled; end the transaction and run it again", ErrUnavailable, named(change)))
	}
	if err := s.hold(change); err != nil {
		return o, notApplied(err)
	}
	failed := fmt.Errorf("%w: the store ended the goroutine of a call (runtime.Goexit)", ErrUnavailable)
	defer func() {
		if failed != nil {
			a.j.fail(failed)
		}
	}()
	failed = guarded("Apply", nil, func() (err error) {
		o, err = c.can.Apply(under, a.j.txn, ChangeSet[K, V]{Changes: []Change[K, V]{change}})
		if err == nil {
			err = o.Err
		}
		return err
	})
	if failed != nil {
		failed = a.j.because(certain(failed))
		return o, notApplied(failed)
	}
	s.changed(change.Key, o)
	return o, nil
}

// joinedShare is a cache's part in a transaction that the program began.
type joinedShare[K comparable, V any] struct {
	c       *Cache[K, V]
	owner   uint64
	unwatch func() bool

	mu     sync.Mutex
	places map[K]int // of each key that is held, in set and rows; guarded by mu, as what follows
	set    ChangeSet[K, V]
	rows   []Row[V]
	gone   bool // the cache is closed, or the transaction over
}

func (s *joinedShare[K, V]) cache() uint64 { return s.c.id }
func (s *joinedShare[K, V]) host() host    { return s.c.host() }

// doubtGrace is how long a key in doubt is waited for: an outcome is told a moment before
// its keys are free.
const doubtGrace = 50 * time.Millisecond

// certain tells whether the key is not in doubt. What is may arrive late, and would undo
// what has passed it. Who settles it may have to wait for this transaction, which so
// cannot wait for him.
func (s *joinedShare[K, V]) certain(ctx context.Context, key K) bool {
	wait, cancel := context.WithTimeout(ctx, doubtGrace)
	defer cancel()
	return s.c.queue.Await(wait, []K{key}) == nil
}

// hold makes the change's key busy, before anybody can have seen the change.
func (s *joinedShare[K, V]) hold(change Change[K, V]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return ErrClosed
	}
	if place, held := s.places[change.Key]; held {
		s.set.Changes[place] = change
		return nil
	}
	s.places[change.Key] = len(s.set.Changes)
	s.set.Changes = append(s.set.Changes, change)
	s.rows = append(s.rows, Row[V]{})
	s.c.gate.Hold(change.Key, s.owner, true)
	s.c.tell(s.c.options.Hooks.Pending, &ChangeSet[K, V]{Changes: []Change[K, V]{change}}, nil, nil)
	return nil
}

// changed notes what a row has become.
func (s *joinedShare[K, V]) changed(key K, o Outcome[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := Row[V]{}
	if len(o.Rows) > 0 {
		row.Version = o.Rows[0].Version
	}
	s.rows[s.places[key]] = row
}

// keys may be called once nothing is written any more.
func (s *joinedShare[K, V]) keys() []K {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]K, len(s.set.Changes))
	for i := range s.set.Changes {
		keys[i] = s.set.Changes[i].Key
	}
	return keys
}

// release leaves nothing in memory: which of the writes beside it came last is not
// known here.
func (s *joinedShare[K, V]) release(error) {
	keys := s.keys()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	s.gone = true
	for _, key := range keys {
		s.c.gate.Release(key, gate.Drop[*entry[K, V]]())
	}
}

func (s *joinedShare[K, V]) enter() bool { return s.unwatch() && s.c.joint.begin() }

func (s *joinedShare[K, V]) leave() {
	s.c.joint.end()
	s.c.tasks.end()
}

func (s *joinedShare[K, V]) withdraw() {
	s.release(ErrClosed)
	s.c.tasks.end()
}

func (s *joinedShare[K, V]) block()   { s.c.queue.Take(s.keys()) }
func (s *joinedShare[K, V]) abandon() { s.c.queue.Abandon(s.keys(), false) }
func (s *joinedShare[K, V]) unblock() { s.c.queue.Return(s.keys()) }

func (s *joinedShare[K, V]) unknown(err error) {
	s.c.tell(s.c.options.Hooks.Unknown, &s.set, nil, err)
}

func (s *joinedShare[K, V]) finished(err error, wasDoubted bool) {
	rows := s.rows
	if err == nil {
		s.c.counts.applied(sizes(&s.set))
	} else {
		rows = nil
	}
	s.c.tellEnd(&s.set, rows, err, wasDoubted)
}

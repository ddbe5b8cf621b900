package lockstep

import (
	"context"
	"fmt"
	"hash/maphash"
)

// InTx is a cache inside a transaction. Its methods may be called by the
// transaction's function only.
type InTx[K comparable, V any] struct {
	tx    *Tx
	share *share[K, V]
	err   error
}

// In returns the cache as a part of the transaction.
func (c *Cache[K, V]) In(tx *Tx) InTx[K, V] {
	if c.closing.Err() != nil {
		return InTx[K, V]{err: ErrClosed}
	}
	if !c.can.Checks {
		return InTx[K, V]{err: fmt.Errorf("%w: Transact", ErrUnsupported)}
	}
	p, err := tx.join(c.id, c.can.Database, func() part {
		return &share[K, V]{c: c, read: make(map[K]*entry[K, V]), written: make(map[K]int)}
	})
	if err != nil {
		return InTx[K, V]{err: err}
	}
	return InTx[K, V]{tx: tx, share: p.(*share[K, V])}
}

func (a InTx[K, V]) admit(key K) error {
	switch {
	case a.err != nil:
		return a.err
	case a.tx.done.Load():
		return fmt.Errorf("%w: the transaction is over", ErrInvalid)
	case key != key:
		return fmt.Errorf("%w: key %v is not equal to itself", ErrInvalid, key)
	}
	return nil
}

// Get returns a private copy of the value: what the transaction has written, or
// else the row. An absent row is ErrNotFound.
func (a InTx[K, V]) Get(ctx context.Context, key K) (V, error) {
	var none V
	if err := a.admit(key); err != nil {
		return none, err
	}
	s := a.share
	if i, ok := s.written[key]; ok {
		if s.changes[i].Delete {
			return none, ErrNotFound
		}
		return s.c.copier.private(s.changes[i].Value)
	}
	e, ok := s.read[key]
	if !ok {
		var err error
		if e, s.loaded, err = s.c.readOwn(ctx, key); err != nil {
			return none, err
		}
		s.read[key] = e
	}
	if !e.Exists {
		return none, ErrNotFound
	}
	return s.c.copier.private(e.Value)
}

// Set writes the row when the transaction commits.
func (a InTx[K, V]) Set(_ context.Context, key K, value V) error {
	return a.change(Change[K, V]{Key: key, Value: value})
}

// Delete removes the row when the transaction commits. An absent row is no
// error.
func (a InTx[K, V]) Delete(_ context.Context, key K) error {
	return a.change(Change[K, V]{Key: key, Delete: true})
}

func (a InTx[K, V]) change(change Change[K, V]) error {
	if err := a.admit(change.Key); err != nil {
		return err
	}
	change, size, err := a.share.c.prepare(change)
	if err != nil {
		return err
	}
	s := a.share
	if i, again := s.written[change.Key]; again {
		s.changes[i], s.sizes[i] = change, size
		return nil
	}
	s.written[change.Key] = len(s.changes)
	s.changes, s.sizes = append(s.changes, change), append(s.sizes, size)
	return nil
}

// readOwn is read for a caller that goes on to write what it has read, or refuses
// to: a transaction, which ctx may be inside of, and Update. It also tells whether
// the row comes from a load that was begun for it.
func (c *Cache[K, V]) readOwn(ctx context.Context, key K) (e *entry[K, V], loaded bool, err error) {
	if e, ok := c.memory.Get(key); ok && c.fresh(e) {
		c.touch(key, e)
		return e, false, nil
	}
	if ctx.Err() != nil {
		return nil, false, ended(ctx)
	}
	remembered := false // since the look above
	usable := func(e *entry[K, V]) bool {
		remembered = c.fresh(e)
		return remembered
	}
	for {
		e, joined, err := c.loadOnce(ctx, key, usable)
		if err != nil || !joined || !c.lapsed(e) {
			return e, !joined && !remembered, err
		}
	}
}

// share is one cache's part of a transaction.
type share[K comparable, V any] struct {
	c       *Cache[K, V]
	read    map[K]*entry[K, V]
	loaded  bool // the last read comes from a load that was begun for it
	changes []Change[K, V]
	sizes   []int     // of the changes' values
	written map[K]int // index into changes
}

func (s *share[K, V]) cache() (uint64, any) { return s.c.id, s.c.can.Database }
func (s *share[K, V]) reads() int           { return len(s.read) }
func (s *share[K, V]) writes() int          { return len(s.changes) }

func (s *share[K, V]) countRerun() { s.c.counts.reruns.Add(1) }

func (s *share[K, V]) begin(ctx context.Context) (Txn, error) { return s.c.begin(ctx) }

func (s *share[K, V]) host() host { return s.c.host() }

func (s *share[K, V]) keys() []K {
	keys := make([]K, len(s.changes))
	for i := range s.changes {
		keys[i] = s.changes[i].Key
	}
	return keys
}

func (s *share[K, V]) doubted() bool { return s.c.queue.Doubted(s.keys()) }

func (s *share[K, V]) await(ctx context.Context) error { return s.c.await(ctx, s.keys()) }

func (s *share[K, V]) discardWrites() {
	s.changes, s.sizes, s.written = nil, nil, make(map[K]int)
}

func (s *share[K, V]) outdated() *ConflictError {
	for key, e := range s.read {
		now, ok := s.c.memory.Get(key)
		if ok && s.c.fresh(now) && (now.Version != e.Version || now.Exists != e.Exists) {
			return &ConflictError{Key: key, Exists: now.Exists, Version: Version(now.Version)}
		}
	}
	return nil
}

func (s *share[K, V]) confirm(ctx context.Context) error {
	if s.loaded {
		return nil
	}
	for key, e := range s.read {
		if err := s.c.confirm(ctx, key, e); err != nil {
			return err
		}
	}
	return nil
}

func (s *share[K, V]) turns(all bool) []uint64 {
	var ids []uint64
	for i := range s.changes {
		ids = append(ids, s.c.turnOf(s.changes[i].Key))
	}
	if all {
		for key := range s.read {
			ids = append(ids, s.c.turnOf(key))
		}
	}
	return ids
}

var turnSeed = maphash.MakeSeed()

// turnOf is the key's turn. Caches over one table should share turns, but need
// not: the database decides.
func (c *Cache[K, V]) turnOf(key K) uint64 {
	return maphash.Comparable(turnSeed, key) ^ c.id*0x9e3779b97f4a7c15
}

// set is what the transaction asks of the store.
func (s *share[K, V]) set() ChangeSet[K, V] {
	set := ChangeSet[K, V]{Changes: s.changes}
	for key, e := range s.read {
		set.Checks = append(set.Checks, checkOf(key, e))
	}
	return set
}

func (s *share[K, V]) commit(ctx context.Context, purpose purpose) error {
	if !s.c.can.Atomic {
		return s.c.refuse(fmt.Errorf("%w: Transact", ErrUnsupported))
	}
	w := s.c.newWrite(s.set())
	w.purpose = purpose
	for _, size := range s.sizes {
		w.op.Bytes += size
	}
	_, err := s.c.perform(ctx, w)
	return err
}

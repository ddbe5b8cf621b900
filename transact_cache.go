package lockstep

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"time"
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
	if c.options.Mode == WriteBehind {
		return InTx[K, V]{err: fmt.Errorf("%w: Transact in Mode %v", ErrUnsupported, c.options.Mode)}
	}
	if err := c.options.Mode.permitsTable("Transact"); err != nil {
		return InTx[K, V]{err: err}
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
	if change := s.ownWrite(key); change != nil {
		if absent(change, time.Now()) {
			return none, ErrNotFound
		}
		return s.c.copier.private(change.Value)
	}
	e, err := s.readKey(ctx, key)
	if err != nil {
		return none, err
	}
	if !e.Exists {
		return none, ErrNotFound
	}
	return s.c.copier.private(e.Value)
}

// GetEntry is Get, with the row's version and its end. Of a row that the transaction has
// written itself, the version, which the commit will give it, is 0, and an end that is
// counted from the commit is what it would be if that were now, by this machine's clock.
//
// That the end is still the same is checked with the version, so not where the store keeps
// none.
func (a InTx[K, V]) GetEntry(ctx context.Context, key K) (Entry[K, V], error) {
	if err := a.admit(key); err != nil {
		return Entry[K, V]{}, err
	}
	s := a.share
	if change := s.ownWrite(key); change != nil {
		now := time.Now()
		if absent(change, now) {
			return Entry[K, V]{}, ErrNotFound
		}
		value, err := s.c.copier.private(change.Value)
		if err != nil {
			return Entry[K, V]{}, err
		}
		own := Entry[K, V]{Key: key, Value: value, CreatedAt: now, AccessedAt: now, ExpiresAt: change.ExpiresAt}
		if change.Lifetime > 0 {
			own.ExpiresAt = now.Add(change.Lifetime)
		}
		return own, nil
	}
	e, err := s.readKey(ctx, key)
	if err != nil {
		return Entry[K, V]{}, err
	}
	if !e.Exists {
		return Entry[K, V]{}, ErrNotFound
	}
	value, err := s.c.copier.private(e.Value)
	if err != nil {
		return Entry[K, V]{}, err
	}
	p := s.c.public(key, e, false)
	p.Value = value
	return p, nil
}

// GetMany is Get for several keys: it returns those that have rows. What memory has not
// is loaded in one call.
func (a InTx[K, V]) GetMany(ctx context.Context, keys []K) (map[K]V, error) {
	var missing []K
	for _, key := range keys {
		if err := a.admit(key); err != nil {
			return nil, err
		}
		if a.share.ownWrite(key) == nil && a.share.read[key] == nil {
			missing = append(missing, key)
		}
	}
	if err := a.share.readKeys(ctx, missing); err != nil {
		return nil, err
	}
	values := make(map[K]V, len(keys))
	for _, key := range keys {
		switch v, err := a.Get(ctx, key); {
		case err == nil:
			values[key] = v
		case !errors.Is(err, ErrNotFound):
			return nil, err
		}
	}
	return values, nil
}

// Set writes the row when the transaction commits. The options are Lifetime or
// ExpiresAt, TTL, and IfVersion or IfAbsent. Without an end, a row that had one stays from
// now on.
//
// A condition is decided at once, and what it has seen is checked with everything else
// that the transaction has read: one that does not hold is a *ConflictError of this call,
// nothing is written, and when the function returns it, Transact does, once it is
// validated. Somebody who makes the condition untrue, or true, before the commit has the
// function run again. Of a row that the transaction has written itself there is no version
// yet, and IfVersion is ErrInvalid. TTL has nothing to do where the transaction is one of
// several caches, which leaves no copy in memory.
func (a InTx[K, V]) Set(ctx context.Context, key K, value V, options ...WriteOption) error {
	if a.err != nil {
		return a.err
	}
	o, err := a.share.c.gather(options, ofTxSet)
	if err != nil {
		return err
	}
	return a.change(ctx, Change[K, V]{Key: key, Value: value, Expect: o.expect, Lifetime: o.lifetime, ExpiresAt: o.expiresAt}, o.ttl)
}

// Delete removes the row when the transaction commits. An absent row is no
// error. The option is IfVersion, as for Set.
func (a InTx[K, V]) Delete(ctx context.Context, key K, options ...WriteOption) error {
	if a.err != nil {
		return a.err
	}
	o, err := a.share.c.gather(options, ofTxDelete)
	if err != nil {
		return err
	}
	return a.change(ctx, Change[K, V]{Key: key, Delete: true, Expect: o.expect}, 0)
}

func (a InTx[K, V]) change(ctx context.Context, change Change[K, V], ttl time.Duration) error {
	if err := a.admit(change.Key); err != nil {
		return err
	}
	s := a.share
	change, size, err := s.c.prepare(change)
	if err != nil {
		return err
	}
	if err := s.meets(ctx, change.Key, change.Expect); err != nil {
		return err
	}
	change.Expect = Expect{} // the check of what was read is as good, and there may be two changes of a row
	if i, again := s.written[change.Key]; again {
		s.changes[i], s.sizes[i], s.ttls[i] = change, size, ttl
		return nil
	}
	s.written[change.Key] = len(s.changes)
	s.changes, s.sizes, s.ttls = append(s.changes, change), append(s.sizes, size), append(s.ttls, ttl)
	return nil
}

// meets decides a condition by what the transaction sees.
func (s *share[K, V]) meets(ctx context.Context, key K, expect Expect) error {
	if expect.Kind == ExpectAnything {
		return nil
	}
	found := &ConflictError{Key: key}
	if change := s.ownWrite(key); change != nil {
		if found.Exists = !absent(change, time.Now()); found.Exists && expect.Kind == ExpectVersion {
			return fmt.Errorf("%w option: IfVersion of key %v, which the transaction has written itself: it has no version before the commit", ErrInvalid, key)
		}
	} else {
		e, err := s.readKey(ctx, key)
		if err != nil {
			return err
		}
		found.Exists, found.Version = e.Exists, Version(e.Version)
	}
	if expect.Kind == ExpectAbsent && !found.Exists || expect.Kind == ExpectVersion && found.Exists && found.Version == expect.Version {
		return nil
	}
	return found
}

// absent tells whether there is no row after a change, as far as is known before the
// commit.
func absent[K comparable, V any](change *Change[K, V], now time.Time) bool {
	return change.Delete || change.Lifetime == 0 && !change.ExpiresAt.IsZero() && !now.Before(change.ExpiresAt)
}

// ownWrite is what the transaction has made of the row, or nil.
func (s *share[K, V]) ownWrite(key K) *Change[K, V] {
	if i, ok := s.written[key]; ok {
		return &s.changes[i]
	}
	return nil
}

// readKey reads the row once: whoever asks again in this transaction gets the same.
func (s *share[K, V]) readKey(ctx context.Context, key K) (*entry[K, V], error) {
	if e, ok := s.read[key]; ok {
		return e, nil
	}
	e, loaded, err := s.c.readOwn(ctx, key)
	s.loaded = loaded
	if err != nil {
		return nil, err
	}
	s.read[key] = e
	return e, nil
}

// readKeys reads rows, of which none was read before, together.
func (s *share[K, V]) readKeys(ctx context.Context, keys []K) error {
	if len(keys) < 2 {
		return nil // readKey tells more
	}
	entries, err := s.c.collect(ctx, keys)
	if err != nil {
		return err
	}
	for key, e := range entries {
		s.read[key] = e
	}
	s.loaded = false
	return nil
}

// readOwn is read for a caller that goes on to write what it has read, or refuses
// to: a transaction, which ctx may be inside of, and Update. It also tells whether
// the row comes from a load that was begun for it.
func (c *Cache[K, V]) readOwn(ctx context.Context, key K) (e *entry[K, V], loaded bool, err error) {
	if e, ok := c.memory.Get(key); ok && c.fresh(e) {
		c.touch(ctx, key, e)
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
	sizes   []int // of the changes' values
	ttls    []time.Duration
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
	s.changes, s.sizes, s.ttls, s.written = nil, nil, nil, make(map[K]int)
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
	w.purpose, w.ttls = purpose, s.ttls
	for _, size := range s.sizes {
		w.op.Bytes += size
	}
	_, err := s.c.perform(ctx, w)
	return err
}

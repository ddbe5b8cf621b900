// Package memstore is a lockstep.Store whose database is memory: the reference
// that the other stores are compared with, and the database of tests and
// examples. It keeps the whole contract: versions that outlive deletion, row
// lifetimes, checks, transactions over several stores, scans. What it lacks is
// durability: the rows are gone with the last reference to their Database.
//
// It has no goroutine of its own and reads no clock but time.Now, so that a
// testing/synctest bubble drives it.
package memstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Options are the settings of New. The zero value is a store in a database of
// its own.
type Options[K comparable, V any] struct {
	// Database holds the rows. Stores that share one can be changed in one
	// transaction; each has a table of its own in it. Nil stands for a new one.
	Database *Database

	// Clone returns a copy of a value that shares nothing mutable with it. It is
	// called on every value that comes in or goes out, never under a lock.
	//
	// Nil stands for plain assignment where V holds nothing but numbers,
	// strings, booleans, time.Time, and structs and arrays of these, and for a
	// round trip through encoding/json everywhere else. Such a store treats
	// values as one that keeps JSON does: unexported fields are lost, and a value
	// that does not encode is refused as lockstep.ErrInvalid.
	Clone func(V) V

	// NewKey, when set, makes a store that inserts: it gives the key of each new row,
	// as a database's sequence does, and is called with the database locked. An
	// insertion whose key has a row is refused.
	NewKey func() K
}

// Store is one table of a Database. Its methods may be called from many
// goroutines at once. Loads never wait for writers; commits wait for each other
// and for open transactions of the same Database, as long as their context
// lasts.
type Store[K comparable, V any] struct {
	db     *Database
	table  table[K, V]
	keys   keyRule[K]
	values valueRule[V]
	newKey func() K
}

// New returns a store over a new and empty table.
func New[K comparable, V any](o Options[K, V]) *Store[K, V] {
	db := o.Database
	if db == nil {
		db = NewDatabase()
	}
	return &Store[K, V]{
		db:     db,
		table:  newTable[K, V](),
		keys:   newKeyRule[K](),
		values: newValueRule(o.Clone),
		newKey: o.NewKey,
	}
}

// Load implements lockstep.Store. It costs one map access and one copy a key.
func (s *Store[K, V]) Load(ctx context.Context, keys []K) (map[K]lockstep.Row[V], error) {
	if err := ended(ctx, "load"); err != nil {
		return nil, err
	}
	for _, key := range keys {
		if err := s.keys.check(key); err != nil {
			return nil, err
		}
	}
	found := make(map[K]lockstep.Row[V], len(keys))
	s.db.mu.RLock()
	now := time.Now()
	for _, key := range keys {
		if r, ok := s.table.rows[key]; ok {
			found[key] = r.view(now)
		}
	}
	s.db.mu.RUnlock()

	for key, row := range found {
		if err := s.disown(key, &row); err != nil {
			return nil, err
		}
		found[key] = row
	}
	return found, nil
}

// Commit implements lockstep.Store. Its error is never
// lockstep.ErrUnknownOutcome. Changes need not have been prepared.
func (s *Store[K, V]) Commit(ctx context.Context, sets []lockstep.ChangeSet[K, V]) ([]lockstep.Outcome[V], error) {
	own := make([]lockstep.ChangeSet[K, V], len(sets))
	refused := make([]error, len(sets))
	for i, set := range sets {
		own[i], refused[i] = s.adopt(set)
	}

	if err := s.db.lock(ctx, "commit"); err != nil {
		return nil, err
	}
	outcomes := make([]lockstep.Outcome[V], len(sets))
	d := newDraft(&s.table, time.Now())
	for i, set := range own {
		if refused[i] != nil {
			outcomes[i].Err = refused[i]
			continue
		}
		if isInsertion(set) {
			outcomes[i] = s.insert(d, &own[i])
		} else {
			outcomes[i] = d.apply(set)
		}
	}
	s.db.publish(d)
	s.db.unlock()

	for i, set := range own {
		s.disownOutcome(set, &outcomes[i])
	}
	return outcomes, nil
}

// insert makes a row under a new key, which the set has from then on.
func (s *Store[K, V]) insert(d *draft[K, V], set *lockstep.ChangeSet[K, V]) lockstep.Outcome[V] {
	c := set.Changes[0]
	c.Key = s.newKey()
	err := s.keys.check(c.Key)
	if err == nil && d.get(c.Key).view(d.now).Exists {
		err = fmt.Errorf("memstore: insert: %w: NewKey has returned %v, which has a row", lockstep.ErrInvalid, c.Key)
	}
	if err != nil {
		return lockstep.Outcome[V]{Err: err}
	}
	set.Changes = []lockstep.Change[K, V]{c}
	o := d.apply(*set)
	o.Keys = []any{c.Key}
	return o
}

func isInsertion[K comparable, V any](set lockstep.ChangeSet[K, V]) bool {
	return slices.ContainsFunc(set.Changes, func(c lockstep.Change[K, V]) bool { return c.Insert })
}

// insertable refuses an insertion that the store, or any store, cannot make.
func (s *Store[K, V]) insertable(set lockstep.ChangeSet[K, V]) error {
	c := set.Changes[0]
	switch {
	case s.newKey == nil:
		return fmt.Errorf("memstore: insert: %w: the store has no NewKey", lockstep.ErrUnsupported)
	case len(set.Changes)+len(set.Checks) > 1, set.DeleteAll, c.Delete, c.Expect.Kind != lockstep.ExpectAnything:
		return fmt.Errorf("memstore: insert: %w: beside other changes, checks or conditions", lockstep.ErrInvalid)
	}
	return nil
}

// Capabilities implements lockstep.Store: everything is there, but ReadOnly, Report
// and, without NewKey, Inserts.
func (s *Store[K, V]) Capabilities() lockstep.Capabilities[K, V] {
	return lockstep.Capabilities[K, V]{
		Name:       "memory",
		Versions:   true,
		Checks:     true,
		Atomic:     true,
		Tombstones: true,
		Lifetimes:  true,
		DeleteAll:  true,
		Inserts:    s.newKey != nil,
		Prepare:    s.prepare,
		Clone:      s.values.clone,
		Settle:     s.settle,
		Scan:       s.scan,
		Table:      s,
		Database:   s.db,
		Begin:      s.db.begin,
		Apply:      s.apply,
		Read:       s.read,
	}
}

func (s *Store[K, V]) prepare(c lockstep.Change[K, V]) (lockstep.Change[K, V], int, error) {
	if c.Insert && s.newKey == nil {
		return c, 0, s.insertable(lockstep.ChangeSet[K, V]{Changes: []lockstep.Change[K, V]{c}})
	}
	if err := s.keys.check(c.Key); err != nil {
		return c, 0, err
	}
	if c.Delete {
		return c, 0, nil
	}
	value, size, err := s.values.measure(c.Value)
	if err != nil {
		return c, 0, badValue(c.Key, err)
	}
	c.Value = value
	return c, size, nil
}

// settle answers for errors that a wrapping store may bring here. Once Commit
// has returned nothing of it can happen later, and its own errors all say "not
// applied"; what somebody else called unknown stays so.
func (s *Store[K, V]) settle(ctx context.Context, err error) (lockstep.Settlement[V], error) {
	if ctxErr := ended(ctx, "settle"); ctxErr != nil {
		return lockstep.Settlement[V]{}, ctxErr
	}
	return lockstep.Settlement[V]{Err: fmt.Errorf("memstore: not an outcome of this store: %w", err)}, nil
}

// scan serves rows in the order in which their keys were first written. The
// cursor is the place of the last row served, so a page costs a binary search
// and its own rows, and rows that come or go in between disturb no other.
func (s *Store[K, V]) scan(ctx context.Context, cursor any, limit int) (lockstep.Page[K, V], error) {
	var page lockstep.Page[K, V]
	if err := ended(ctx, "scan"); err != nil {
		return page, err
	}
	if limit < 1 {
		return page, fmt.Errorf("memstore: scan: %w: limit is %d", lockstep.ErrInvalid, limit)
	}
	var after uint64
	if cursor != nil {
		place, ok := cursor.(uint64)
		if !ok {
			return page, fmt.Errorf("memstore: scan: %w: cursor is a %T", lockstep.ErrInvalid, cursor)
		}
		after = place
	}

	s.db.mu.RLock()
	now, last := time.Now(), after
	for key, r := range s.table.after(after) {
		row := r.view(now)
		if !row.Exists {
			continue
		}
		if len(page.Keys) == limit {
			page.Next = last
			break
		}
		page.Keys = append(page.Keys, key)
		page.Rows = append(page.Rows, row)
		last = r.place
	}
	s.db.mu.RUnlock()

	for i := range page.Rows {
		if err := s.disown(page.Keys[i], &page.Rows[i]); err != nil {
			return lockstep.Page[K, V]{}, err
		}
	}
	return page, nil
}

// adopt copies a set, so that nothing in it is shared with the caller.
func (s *Store[K, V]) adopt(set lockstep.ChangeSet[K, V]) (lockstep.ChangeSet[K, V], error) {
	own := set
	if set.DeleteAll && len(set.Changes)+len(set.Checks) > 0 {
		return own, fmt.Errorf("memstore: DeleteAll beside changes or checks: %w", lockstep.ErrInvalid)
	}
	if isInsertion(set) {
		if err := s.insertable(set); err != nil {
			return own, err
		}
	}
	own.Changes = make([]lockstep.Change[K, V], len(set.Changes))
	for i, c := range set.Changes {
		if err := s.keys.check(c.Key); err != nil {
			return own, err
		}
		if !c.Delete {
			value, err := s.values.clone(c.Value)
			if err != nil {
				return own, badValue(c.Key, err)
			}
			c.Value = value
		}
		own.Changes[i] = c
	}
	for _, c := range set.Checks {
		if err := s.keys.check(c.Key); err != nil {
			return own, err
		}
	}
	return own, nil
}

// disown replaces a row's value by a copy. The table's values never change once
// stored, so no lock is needed to copy them.
func (s *Store[K, V]) disown(key K, row *lockstep.Row[V]) error {
	if !row.Exists {
		return nil
	}
	value, err := s.values.clone(row.Value)
	if err != nil {
		return badValue(key, err)
	}
	row.Value = value
	return nil
}

// disownOutcome copies an outcome's values. A value that was copied on its way
// in and cannot be copied again leaves Rows nil: the set is committed all the
// same, and the cache will ask for it.
func (s *Store[K, V]) disownOutcome(set lockstep.ChangeSet[K, V], o *lockstep.Outcome[V]) {
	for i := range o.Rows {
		if s.disown(set.Changes[i].Key, &o.Rows[i]) != nil {
			o.Rows = nil
			return
		}
	}
}

func badValue(key any, err error) error {
	return fmt.Errorf("memstore: value of key %v: %w: %w", key, lockstep.ErrInvalid, err)
}

// ended returns an error if ctx has ended: nothing was done.
func ended(ctx context.Context, doing string) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("memstore: %s: %w: %w", doing, lockstep.ErrUnavailable, context.Cause(ctx))
}

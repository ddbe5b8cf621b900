package lockstep

import (
	"context"
	"fmt"
	"sync"
)

// Insert makes a new row whose key the database gives, and returns that key and the
// row's committed version. With nil, the row is committed, and no read that starts
// afterwards misses it. Memory has it as the database holds it, with its defaults and
// generated columns, or does not have it. Insertions share commits as other writes
// do, and wait for no write of any key.
//
// The error is a *WriteError. One that is ErrUnknownOutcome comes without the key,
// and Wait tells whether there is a row; which one it is, the row itself has to tell
// (a column with a value of the caller's own making), or Hooks.Settled, where the
// store could find out. Until it is settled, memory answers for no absent row. A row
// that the database refuses is ErrInvalid, and fails alone; so is one for which the
// database gives a key that has a row, as a sequence does that is behind.
//
// It needs a store that inserts, and is ErrUnsupported elsewhere: mapped tables of
// PostgreSQL, MariaDB, MySQL and SQLite can whose primary key is one column that the
// database fills.
// The options are Lifetime or ExpiresAt, and TTL. A transaction has no Insert: it writes when its
// function has returned, which the key would come too late for.
func (c *Cache[K, V]) Insert(ctx context.Context, value V, options ...WriteOption) (K, Version, error) {
	var none K
	o, err := c.gather(options, ofInsert)
	if err != nil {
		return none, 0, c.refuse(err)
	}
	if !c.can.Inserts || c.can.ReadOnly {
		return none, 0, c.refuse(fmt.Errorf("%w: Insert needs a store that gives new rows their keys, as a mapped table does whose primary key is one column that the database fills", ErrUnsupported))
	}
	w, err := c.single(ctx, Change[K, V]{Insert: true, Value: value, Lifetime: o.lifetime, ExpiresAt: o.expiresAt}, nil)
	if err != nil {
		return none, 0, c.refuse(err)
	}
	w.ttl = o.ttl
	version, err := c.perform(ctx, w)
	if err != nil {
		return none, 0, err
	}
	key, _ := insertedKey[K](w.outcome()) // commit has seen that it is there
	return key, version, nil
}

// insertion is what the gate has to know of a write whose key the database gives. It
// begins when its batch does; a hasty one that has to wait begins twice.
type insertion struct {
	number uint64 // the gate's; written when it begins

	mu             sync.Mutex
	begun, doubted bool // as the gate was told; guarded by mu, as what follows
	over           bool // doubt comes too late
}

func (c *Cache[K, V]) beginInsertion(w *write[K, V]) {
	n := w.insertion
	n.mu.Lock()
	n.begun, n.over = true, false
	n.number = c.gate.BeginInsertion()
	n.mu.Unlock()
	// Its caller may have left while it was not begun.
	if w.left.Load() {
		c.doubtInsertion(w)
	}
}

// doubtInsertion takes from memory whatever the row may have made untrue. It may come
// before the insertion has begun, and after it is over.
func (c *Cache[K, V]) doubtInsertion(w *write[K, V]) {
	n := w.insertion
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.doubted && !n.over {
		n.doubted = true
		c.gate.DoubtInsertion()
	}
}

func (c *Cache[K, V]) endInsertion(w *write[K, V]) {
	n := w.insertion
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.doubted {
		c.gate.SettleInsertion()
	}
	if n.begun {
		c.gate.EndInsertion()
	}
	n.begun, n.doubted, n.over = false, false, true
}

// inserts tells whether the set is an insertion.
func inserts[K comparable, V any](set *ChangeSet[K, V]) bool {
	return len(set.Changes) == 1 && set.Changes[0].Insert
}

// insertedKey is the key of a row that was inserted.
func insertedKey[K comparable, V any](o Outcome[V]) (key K, told bool) {
	if len(o.Keys) != 1 {
		return key, false
	}
	key, told = o.Keys[0].(K)
	return key, told && key == key
}

// inserted is the set of an insertion that has ended, with the key if it is known.
// It is a copy: whoever doubts the write may be looking at the other.
func (w *write[K, V]) inserted(err error) *ChangeSet[K, V] {
	change := w.change[0]
	if err == nil {
		change.Key, _ = insertedKey[K](w.outcome())
	}
	return &ChangeSet[K, V]{Changes: []Change[K, V]{change}}
}

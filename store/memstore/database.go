package memstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Database holds the tables of any number of stores. One commit or transaction
// is under way at a time; reads see what is committed and wait for nobody.
type Database struct {
	// turn is the write lock: whoever has put a token into it may commit. It is
	// a channel and not a mutex, so that those who wait can leave when their
	// context ends.
	turn chan struct{}

	// mu guards the tables of all stores, for the moment of a map access. They
	// are changed with both turn and mu held, so that the holder of turn may read
	// them without mu. It is one lock for all tables, so that a transaction over
	// several becomes visible at once.
	mu sync.RWMutex
}

// NewDatabase returns an empty database.
func NewDatabase() *Database {
	return &Database{turn: make(chan struct{}, 1)}
}

func (d *Database) lock(ctx context.Context, doing string) error {
	if err := ended(ctx, doing); err != nil {
		return err
	}
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ended(ctx, doing)
	}
}

func (d *Database) unlock() { <-d.turn }

// installer is a draft, whatever its types.
type installer interface{ install() }

// publish makes drafts visible, all at once. The caller holds turn.
func (d *Database) publish(drafts ...installer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, draft := range drafts {
		draft.install()
	}
}

// txn is an open transaction. It holds the database's turn until it ends.
type txn struct {
	db     *Database
	drafts map[any]installer // by *table
	// failed is why the transaction can only be rolled back.
	failed  error
	over    bool
	applied bool
}

var errOver = errors.New("memstore: the transaction is over")

func (d *Database) begin(ctx context.Context) (lockstep.Txn, error) {
	if err := d.lock(ctx, "begin"); err != nil {
		return nil, err
	}
	return &txn{db: d, drafts: make(map[any]installer)}, nil
}

// apply is Capabilities.Apply.
func (s *Store[K, V]) apply(ctx context.Context, open lockstep.Txn, set lockstep.ChangeSet[K, V]) (lockstep.Outcome[V], error) {
	var none lockstep.Outcome[V]
	t, ok := open.(*txn)
	if !ok || t.db != s.db {
		return none, fmt.Errorf("memstore: apply: %w: the transaction is another database's", lockstep.ErrInvalid)
	}
	switch {
	case t.over:
		return none, fmt.Errorf("%w: %w", lockstep.ErrInvalid, errOver)
	case t.failed != nil:
		return none, fmt.Errorf("%w: it can only be rolled back: %w", lockstep.ErrInvalid, t.failed)
	}
	if err := ended(ctx, "apply"); err != nil {
		t.failed = err
		return none, err
	}
	own, err := s.adopt(set)
	if err == nil && isInsertion(set) {
		err = fmt.Errorf("memstore: apply: %w: an insertion in a transaction", lockstep.ErrUnsupported)
	}
	if err != nil {
		t.failed = err
		return lockstep.Outcome[V]{Err: err}, nil
	}
	d, ok := t.drafts[&s.table].(*draft[K, V])
	if !ok {
		d = newDraft(&s.table, time.Now())
		t.drafts[&s.table] = d
	}
	d.now = time.Now()
	outcome := d.apply(own)
	t.failed = outcome.Err
	s.disownOutcome(own, &outcome)
	return outcome, nil
}

// read is Capabilities.Read.
func (s *Store[K, V]) read(ctx context.Context, open lockstep.Txn, keys []K) (map[K]lockstep.Row[V], error) {
	t, ok := open.(*txn)
	switch {
	case !ok || t.db != s.db:
		return nil, fmt.Errorf("memstore: read: %w: the transaction is another database's", lockstep.ErrInvalid)
	case t.over:
		return nil, fmt.Errorf("%w: %w", lockstep.ErrInvalid, errOver)
	}
	found, err := s.Load(ctx, keys)
	if err != nil {
		return nil, err
	}
	d, ok := t.drafts[&s.table].(*draft[K, V])
	if !ok {
		return found, nil
	}
	now := time.Now()
	for _, key := range keys {
		r, ok := d.rows[key]
		if !ok {
			continue
		}
		row := r.view(now)
		if err := s.disown(key, &row); err != nil {
			return nil, err
		}
		found[key] = row
	}
	return found, nil
}

func (t *txn) Commit(ctx context.Context) error {
	if t.over {
		return fmt.Errorf("%w: %w", lockstep.ErrInvalid, errOver)
	}
	defer t.end()
	if t.failed != nil {
		return fmt.Errorf("memstore: rolled back: %w", t.failed)
	}
	if err := ended(ctx, "commit"); err != nil {
		return err
	}
	drafts := make([]installer, 0, len(t.drafts))
	for _, d := range t.drafts {
		drafts = append(drafts, d)
	}
	t.db.publish(drafts...)
	t.applied = true
	return nil
}

func (t *txn) Rollback(context.Context) error {
	if !t.over {
		t.end()
	}
	return nil
}

// Settle tells what Commit did; its outcome was never unknown.
func (t *txn) Settle(context.Context) (bool, error) {
	if !t.over {
		t.end()
	}
	return t.applied, nil
}

func (t *txn) end() {
	t.over = true
	t.drafts = nil
	t.db.unlock()
}

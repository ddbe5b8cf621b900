package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/nils"
)

// position is the journal's row in the database. It is only ever moved from the version
// that it was left at: so nothing that an earlier program of this journal has sent can
// arrive once the row was taken, and two copies of a journal find out about each other.
type position struct {
	store lockstep.Store[string, int64]
	caps  lockstep.Capabilities[string, int64]
	key   string

	mu      sync.Mutex
	value   uint64 // as this program has left it; guarded by mu, as what follows
	version lockstep.Version
	next    lockstep.Version // what the transaction that was marked last will have made of it
	left    bool             // the directory is not this program's any more
}

func newPosition(store lockstep.Store[string, int64]) (*position, error) {
	if nils.Is(store) {
		return nil, fmt.Errorf("journal: %w option: Positions is nil", lockstep.ErrInvalid)
	}
	caps := store.Capabilities()
	if caps.Database == nil || caps.Apply == nil || !caps.Versions || caps.ReadOnly {
		return nil, fmt.Errorf("journal: %w option: Positions is a store without transactions or versions", lockstep.ErrUnsupported)
	}
	return &position{store: store, caps: caps}, nil
}

// load asks the database. It returns ErrForeign where there is no such row.
func (p *position) load(ctx context.Context) (uint64, lockstep.Version, error) {
	rows, err := p.store.Load(ctx, []string{p.key})
	if err != nil {
		return 0, 0, fmt.Errorf("journal: its position: %w", err)
	}
	row := rows[p.key]
	if !row.Exists || row.Value < 0 {
		return 0, 0, fmt.Errorf("%w: it has no position of the journal %s", ErrForeign, p.key)
	}
	return uint64(row.Value), row.Version, nil
}

// begin makes the row of a new journal.
func (p *position) begin(ctx context.Context, key string) error {
	p.key = key
	return p.commit(ctx, 0, lockstep.Expect{Kind: lockstep.ExpectAbsent})
}

// take returns the position, after making sure that it stays where it is: a transaction of
// a program that was killed may still be under way, and either is before this one, or
// fails.
func (p *position) take(ctx context.Context) (uint64, error) {
	for {
		value, version, err := p.load(ctx)
		if err != nil {
			return 0, err
		}
		err = p.commit(ctx, value, lockstep.Expect{Kind: lockstep.ExpectVersion, Version: version})
		if !errors.Is(err, lockstep.ErrConflict) {
			return value, err
		}
	}
}

// move moves the row by itself.
func (p *position) move(ctx context.Context, number uint64) error {
	value, version, err := p.load(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	known, taken := p.value, p.left && version != p.version
	p.mu.Unlock()
	if value != known && value != number || taken {
		return p.stolen(value, known)
	}
	return p.commit(ctx, number, lockstep.Expect{Kind: lockstep.ExpectVersion, Version: version})
}

func (p *position) commit(ctx context.Context, value uint64, expect lockstep.Expect) error {
	change, err := p.change(value, expect)
	if err != nil {
		return err
	}
	outcomes, err := p.store.Commit(ctx, []lockstep.ChangeSet[string, int64]{{Changes: []lockstep.Change[string, int64]{change}}})
	if err == nil {
		err = outcomes[0].Err
	}
	if err != nil {
		return fmt.Errorf("journal: its position: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.value, p.version = value, outcomes[0].Rows[0].Version
	return nil
}

func (p *position) change(value uint64, expect lockstep.Expect) (lockstep.Change[string, int64], error) {
	change := lockstep.Change[string, int64]{Key: p.key, Value: int64(value), Expect: expect}
	if p.caps.Prepare == nil {
		return change, nil
	}
	change, _, err := p.caps.Prepare(change)
	return change, err
}

func (p *position) mark(ctx context.Context, txn lockstep.Txn, number uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	change, err := p.change(number, lockstep.Expect{Kind: lockstep.ExpectVersion, Version: p.version})
	if err != nil {
		return err
	}
	o, err := p.caps.Apply(ctx, txn, lockstep.ChangeSet[string, int64]{Changes: []lockstep.Change[string, int64]{change}})
	if err == nil {
		err = o.Err
	}
	switch {
	case err == nil:
		p.next = o.Rows[0].Version
		return nil
	case !errors.Is(err, lockstep.ErrConflict):
		return fmt.Errorf("journal: its position: %w", err)
	}
	// Its own doing, perhaps: a move that was thought to have failed.
	value, version, err := p.load(ctx)
	if err != nil {
		return err
	}
	if value != p.value || p.left {
		return p.stolen(value, p.value)
	}
	p.version = version
	return fmt.Errorf("journal: %w: its position had to be read again", lockstep.ErrUnavailable)
}

// leave is for a journal that is closed: from now on whoever has moved the row, or taken it
// as it is, has the directory. Flushes that come nevertheless may move it if nobody has.
func (p *position) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = true
}

// stolen is the error of a position that this program has not moved. It is not refused for
// good: the program goes on keeping writes, and says so again and again.
func (p *position) stolen(value, known uint64) error {
	return fmt.Errorf("journal: %w: its position is %d, and was left at %d by this program: somebody uses a copy of the journal, or the journal since it was closed here, or has restored the database", lockstep.ErrUnavailable, value, known)
}

// marked says that the transaction that was marked last is committed.
func (p *position) marked(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.value, p.version = number, p.next
}

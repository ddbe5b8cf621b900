package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/lockstep-cache/lockstep"
)

var (
	errNeverSent = errors.New("fault: the request was lost on purpose")
	errFenced    = errors.New("fault: the commit was fenced off before it was applied")
	errForgotten = errors.New("fault: what became of the commit was forgotten on purpose")
)

// lostCommit is a commit whose outcome its caller does not know, and the error
// that says so.
type lostCommit[K comparable, V any] struct {
	store *Store[K, V]
	visit *visit
	ended error // how the caller's context ended, if it did

	// turn is held, as a token, by whoever decides or reads what follows, also
	// while the database works: a settlement waits for a late commit under way.
	turn     chan struct{}
	sets     []lockstep.ChangeSet[K, V] // of a late commit that is not decided
	decided  bool
	outcomes []lockstep.Outcome[V]
	spared   bool  // the outcomes are not forgotten
	err      error // why it was not applied, or what the store inside calls unknown
}

func (f *Store[K, V]) lost(v *visit) *lostCommit[K, V] {
	return &lostCommit[K, V]{store: f, visit: v, turn: make(chan struct{}, 1)}
}

func (l *lostCommit[K, V]) Error() string {
	text := fmt.Sprintf("fault: nobody was told what became of commit %d", l.visit.number)
	if l.ended != nil {
		text += ": " + l.ended.Error()
	}
	return text
}

// Is makes the error ErrUnknownOutcome.
func (l *lostCommit[K, V]) Is(target error) bool { return target == lockstep.ErrUnknownOutcome }

// Unwrap returns how the caller's context ended, if it did.
func (l *lostCommit[K, V]) Unwrap() error { return l.ended }

func (l *lostCommit[K, V]) decide(sets []lockstep.ChangeSet[K, V], outcomes []lockstep.Outcome[V], err error) {
	l.decided, l.outcomes, l.err, l.sets = true, outcomes, err, nil
	for i, o := range outcomes {
		// A settlement without outcomes says that every set without conditions was
		// committed. A store that has left one out cannot forget it.
		l.spared = l.spared || o.Err != nil && !conditional(sets[i])
	}
}

func conditional[K comparable, V any](set lockstep.ChangeSet[K, V]) bool {
	return len(set.Checks) > 0 || slices.ContainsFunc(set.Changes, func(c lockstep.Change[K, V]) bool {
		return c.Expect.Kind != lockstep.ExpectAnything
	})
}

// lateCommits are those that are neither applied nor fenced off.
type lateCommits[K comparable, V any] struct {
	mu   sync.Mutex
	list []*lostCommit[K, V]
	// open counts transactions. While there is one, no late commit arrives with a
	// load: the goroutine that loads may be the one that it would wait for.
	open int
}

// postpone keeps a private copy of a batch, to be applied later.
func (f *Store[K, V]) postpone(ctx context.Context, v *visit, sets []lockstep.ChangeSet[K, V]) (*lostCommit[K, V], error) {
	l := f.lost(v)
	l.sets = slices.Clone(sets)
	for i, set := range sets {
		l.sets[i].Changes = slices.Clone(set.Changes)
		l.sets[i].Checks = slices.Clone(set.Checks)
		for j := range l.sets[i].Changes {
			c := &l.sets[i].Changes[j]
			if c.Delete || f.below.Clone == nil {
				continue
			}
			var err error
			if c.Value, err = f.below.Clone(c.Value); err != nil {
				return nil, fmt.Errorf("fault: value of key %v: %w: %w", c.Key, lockstep.ErrInvalid, err)
			}
		}
	}
	f.late.mu.Lock()
	defer f.late.mu.Unlock()
	f.late.list = append(f.late.list, l)
	return l, nil
}

// arriveLate applies some of the late commits, before another operation.
func (f *Store[K, V]) arriveLate(ctx context.Context) {
	f.late.mu.Lock()
	var due []*lostCommit[K, V]
	if f.late.open == 0 && ctx.Err() == nil {
		f.late.list = slices.DeleteFunc(f.late.list, func(l *lostCommit[K, V]) bool {
			if l.visit.random.IntN(3) != 0 {
				return false
			}
			due = append(due, l)
			return true
		})
	}
	f.late.mu.Unlock()
	for _, l := range due {
		l.turn <- struct{}{}
		l.arrive(ctx)
		<-l.turn
	}
}

// arrive applies a late commit, unless it is decided. It goes on when the
// context of the operation that it comes before ends: it is not its own.
func (l *lostCommit[K, V]) arrive(ctx context.Context) {
	if !l.decided {
		outcomes, err := l.store.inner.Commit(context.WithoutCancel(ctx), l.sets)
		l.decide(l.sets, outcomes, err)
	}
}

// settle is Capabilities.Settle.
func (f *Store[K, V]) settle(ctx context.Context, err error) (lockstep.Settlement[V], error) {
	var none lockstep.Settlement[V]
	v := f.in.arrive(Settle, nil)
	if err := v.before(ctx); err != nil {
		return none, err
	}
	settled, settleErr := f.settleNow(ctx, err)
	if lost := v.answered(ctx); settleErr == nil && lost != nil {
		return none, lost
	}
	return settled, settleErr
}

func (f *Store[K, V]) settleNow(ctx context.Context, err error) (settled lockstep.Settlement[V], _ error) {
	var l *lostCommit[K, V]
	if !errors.As(err, &l) || l.store != f {
		return f.below.Settle(ctx, err)
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return settled, fmt.Errorf("fault: settle: %w: %w", lockstep.ErrUnavailable, context.Cause(ctx))
	}
	if !l.decided {
		f.forgetLate(l)
		if l.visit.random.IntN(2) == 0 {
			l.arrive(ctx)
		} else {
			l.decide(nil, nil, errFenced)
		}
	}
	if l.visit.fault.forget == forgetOutcome {
		return lockstep.Settlement[V]{Err: errForgotten}, nil
	}
	switch {
	case errors.Is(l.err, lockstep.ErrUnknownOutcome):
		return f.below.Settle(ctx, l.err)
	case l.err != nil:
		return lockstep.Settlement[V]{}, nil
	}
	settled.Applied = true
	if l.visit.fault.forget != forgetRows || l.spared {
		settled.Outcomes = f.copies(l.outcomes)
	}
	return settled, nil
}

func (f *Store[K, V]) forgetLate(l *lostCommit[K, V]) {
	f.late.mu.Lock()
	defer f.late.mu.Unlock()
	f.late.list = slices.DeleteFunc(f.late.list, func(other *lostCommit[K, V]) bool { return other == l })
}

// copies returns outcomes that the receiver may keep: a settlement can be asked
// for again. Rows that cannot be copied are left out.
func (f *Store[K, V]) copies(outcomes []lockstep.Outcome[V]) []lockstep.Outcome[V] {
	list := slices.Clone(outcomes)
	for i := range list {
		list[i].Existed = slices.Clone(list[i].Existed)
		list[i].Rows = slices.Clone(list[i].Rows)
		for j := range list[i].Rows {
			row := &list[i].Rows[j]
			if !row.Exists || f.below.Clone == nil {
				continue
			}
			var err error
			if row.Value, err = f.below.Clone(row.Value); err != nil {
				list[i].Rows = nil
				break
			}
		}
	}
	return list
}

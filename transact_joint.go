package lockstep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-cache/lockstep/internal/gate"
)

// A transaction of several caches does not travel in their batches. It opens a
// transaction of the database, in which each cache applies its own set, and the
// caches' keys are busy meanwhile. Writes of the same keys may be under way in
// batches at the same time: the database orders them, and since neither knows
// which came last, memory keeps neither. Waiting for the keys in each cache's
// queue, one cache after the other, would give the same promise with less to
// reload, and was rejected: a batch that waits for the database's write lock
// would wait for a transaction that waits for the batch.

// jointPart is one cache's share of a joint transaction, its types forgotten.
type jointPart interface {
	begin(ctx context.Context) (Txn, error)
	apply(ctx context.Context, txn Txn) error
	// lapsed is a conflict if the lifetime of a row that was read may be over.
	lapsed() error
	// context is the commit's own: no caller can end it.
	context() (context.Context, context.CancelFunc)
	overdue() time.Duration

	// enter and leave count a goroutine of the cache's; enter fails after Close.
	enter() bool
	leave()
	hold()
	// release ends hold. Memory keeps nothing of what was written, and after a
	// conflict nothing of what was read.
	release(err error)
	// block makes the cache's own writes of these keys wait, until unblock.
	block()
	unblock()
	settle(func(context.Context) (bool, error)) (applied bool, err error)

	changes() bool
	pending()
	unknown(err error)
	finished(err error, wasDoubted bool)
	// count counts the transaction, once, with the first of its caches.
	count(err error, wasDoubted bool)
	countUnknown()
}

// commitJointly commits the parts in one transaction. The parts are in the order
// in which every joint transaction takes them.
func commitJointly(ctx context.Context, parts []jointPart) error {
	if ctx.Err() != nil {
		return notApplied(ended(ctx))
	}
	for i, p := range parts {
		if !p.enter() {
			for _, q := range parts[:i] {
				q.leave()
			}
			return notApplied(ErrClosed)
		}
	}
	v := newVerdict()
	for _, p := range parts {
		p.pending()
		p.hold() // before anybody can be told that the outcome is unknown
	}
	go runJointly(&v, parts)
	select {
	case <-v.answered:
	case <-ctx.Done():
		if !changeAnything(parts) {
			return notApplied(ended(ctx))
		}
		doubtJointly(&v, parts, fmt.Errorf("the caller left during the commit: %w", ended(ctx)))
	}
	_, err := v.answer()
	return err
}

func changeAnything(parts []jointPart) bool {
	return slices.ContainsFunc(parts, jointPart.changes)
}

func doubtJointly(v *verdict, parts []jointPart, why error) {
	if !changeAnything(parts) {
		// An unknown outcome of nothing is no unknown outcome.
		v.finish(0, fmt.Errorf("%w: what was read could not be validated: %v", ErrUnavailable, why), func(bool) {})
		return
	}
	v.doubt(why, func(err error) {
		parts[0].countUnknown()
		for _, p := range parts {
			p.unknown(err)
		}
	})
}

func runJointly(v *verdict, parts []jointPart) {
	lead := parts[0]
	ctx, cancel := lead.context()
	defer cancel()
	overdue := time.AfterFunc(lead.overdue(), func() {
		doubtJointly(v, parts, errors.New("the commit did not return in time (CommitTimeout)"))
	})
	abandoned := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), ErrClosed) {
			doubtJointly(v, parts, errors.New("the cache was closed during the commit"))
		}
	})
	err := fmt.Errorf("%w: the store ended the transaction's goroutine (runtime.Goexit)", ErrUnavailable)
	var txn Txn
	returned := false
	defer func() {
		overdue.Stop()
		abandoned()
		if returned {
			concludeJointly(v, parts, txn, err)
		} else {
			go concludeJointly(v, parts, txn, err)
		}
	}()
	if open, refusal := applyJointly(ctx, parts); refusal != nil {
		err = refusal
	} else {
		txn, err = open, errCommitExited // unless Commit returns, or panics
		err = guarded("Commit", ErrUnknownOutcome, func() error { return txn.Commit(ctx) })
	}
	returned = true
}

// concludeJointly ends a joint transaction, whose outcome is err.
func concludeJointly(v *verdict, parts []jointPart, txn Txn, err error) {
	defer func() {
		for _, p := range parts {
			p.leave()
		}
	}()
	if !changeAnything(parts) {
		err = certain(err)
	}
	if errors.Is(err, ErrUnknownOutcome) {
		cause := err
		for _, p := range parts {
			p.block()
		}
		doubtJointly(v, parts, cause)
		var applied bool
		// The cache that settles may be closed meanwhile. The others' keys are still in
		// doubt then, and one of them goes on.
		for _, p := range parts {
			if applied, err = p.settle(txn.Settle); !errors.Is(err, errUnsettled) {
				break
			}
		}
		if err == nil && !applied {
			err = fmt.Errorf("%w: the database did not commit it", ErrUnavailable)
		}
		defer func() {
			for _, p := range parts {
				p.unblock()
			}
		}()
	}
	for _, p := range parts {
		p.release(err)
	}
	v.finish(0, err, func(wasDoubted bool) {
		parts[0].count(err, wasDoubted)
		for _, p := range parts {
			p.finished(err, wasDoubted)
		}
	})
}

// applyJointly does all but the commit. On error the transaction is gone, and
// was not applied.
func applyJointly(ctx context.Context, parts []jointPart) (txn Txn, err error) {
	err = guarded("Begin", nil, func() (err error) {
		txn, err = parts[0].begin(ctx)
		return err
	})
	if err != nil {
		return nil, certain(err)
	}
	open, applied := txn, false
	defer func() {
		if applied {
			return
		}
		// Deferred, because Apply may be ending the goroutine. Rollback has a deadline
		// of its own: the commit's may be the reason.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), parts[0].overdue())
		defer cancel()
		rollback := guarded("Rollback", nil, func() error { return open.Rollback(undo) })
		err = certain(errors.Join(err, rollback))
	}()
	for _, p := range parts {
		if err = guarded("Apply", nil, func() error { return p.apply(ctx, txn) }); err != nil {
			return nil, err
		}
	}
	// The checks were made one cache after the other, each with waits of its own. A
	// row that has ended meanwhile was not changed by anybody: no lock of the
	// database's has kept it.
	for _, p := range parts {
		if err = p.lapsed(); err != nil {
			return nil, err
		}
	}
	applied = true
	return txn, nil
}

// certain is an error of a transaction that was never committed: whatever it
// says, nothing was applied.
func certain(err error) error {
	if errors.Is(err, ErrUnknownOutcome) {
		return fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	return err
}

// jointShare is a share in a joint transaction.
type jointShare[K comparable, V any] struct {
	c       *Cache[K, V]
	purpose purpose
	set     ChangeSet[K, V]
	read    map[K]*entry[K, V]
	keys    []K
	owner   uint64
	rows    []Row[V]
}

func (s *share[K, V]) joint(purpose purpose) jointPart {
	j := &jointShare[K, V]{c: s.c, purpose: purpose, set: s.set(), read: s.read, owner: s.c.owners.Add(1)}
	for i := range j.set.Changes {
		j.keys = append(j.keys, j.set.Changes[i].Key)
	}
	return j
}

func (j *jointShare[K, V]) begin(ctx context.Context) (Txn, error) {
	if j.c.can.Begin == nil || j.c.can.Apply == nil {
		return nil, fmt.Errorf("%w: transactions of several caches", ErrUnsupported)
	}
	return j.c.can.Begin(ctx)
}

func (j *jointShare[K, V]) apply(ctx context.Context, txn Txn) error {
	o, err := j.c.can.Apply(ctx, txn, j.set)
	if err == nil {
		err = o.Err
	}
	j.rows = o.Rows
	return err
}

func (j *jointShare[K, V]) lapsed() error {
	for key, e := range j.read {
		if j.c.lapsed(e) {
			return &ConflictError{Key: key, Version: Version(e.Version)}
		}
	}
	return nil
}

func (j *jointShare[K, V]) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(j.c.commits, j.c.options.CommitTimeout)
}

func (j *jointShare[K, V]) overdue() time.Duration {
	return overdueAfter(j.c.options.CommitTimeout)
}

func (j *jointShare[K, V]) enter() bool {
	if !j.c.joint.begin() {
		return false
	}
	if !j.c.tasks.begin() {
		j.c.joint.end()
		return false
	}
	return true
}

func (j *jointShare[K, V]) leave() {
	j.c.joint.end()
	j.c.tasks.end()
}

func (j *jointShare[K, V]) hold() {
	for _, key := range j.keys {
		j.c.gate.Hold(key, j.owner, true)
	}
}

func (j *jointShare[K, V]) release(err error) {
	p := gate.Drop[*entry[K, V]]()
	if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrUnknownOutcome) {
		p = gate.Unchanged[*entry[K, V]]()
	}
	for _, key := range j.keys {
		j.c.gate.Release(key, p)
	}
	if errors.Is(err, ErrConflict) {
		for _, check := range j.set.Checks {
			j.c.gate.Invalidate(check.Key)
		}
	}
}

func (j *jointShare[K, V]) block()   { j.c.queue.Take(j.keys) }
func (j *jointShare[K, V]) unblock() { j.c.queue.Return(j.keys) }

func (j *jointShare[K, V]) settle(ask func(context.Context) (bool, error)) (applied bool, err error) {
	j.c.counts.inDoubt.Add(1)
	defer j.c.counts.inDoubt.Add(-1)
	s, err := j.c.settle(func(ctx context.Context) (s Settlement[V], err error) {
		err = aside("Settle", nil, func() (err error) {
			s.Applied, err = ask(ctx)
			return err
		})
		if errors.Is(err, ErrUnknownOutcome) {
			s.Err, err = err, nil // a Txn's word for "nobody will ever know"
		}
		return s, err
	})
	return s.Applied, err
}

func (j *jointShare[K, V]) pending() { j.c.tell(j.c.options.Hooks.Pending, &j.set, nil, nil) }

func (j *jointShare[K, V]) changes() bool { return len(j.keys) > 0 }
func (j *jointShare[K, V]) countUnknown() { j.c.counts.unknown.Add(1) }

func (j *jointShare[K, V]) unknown(err error) {
	j.c.tell(j.c.options.Hooks.Unknown, &j.set, nil, err)
}

func (j *jointShare[K, V]) finished(err error, wasDoubted bool) {
	if err == nil {
		j.c.counts.applied(sizes(&j.set))
	}
	j.c.tellEnd(&j.set, j.rows, err, wasDoubted)
}

func (j *jointShare[K, V]) count(err error, wasDoubted bool) {
	j.c.counts.ended(j.purpose, err, wasDoubted)
}

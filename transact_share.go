package lockstep

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep/internal/gate"
)

// jointShare is a share in a joint transaction.
type jointShare[K comparable, V any] struct {
	c     *Cache[K, V]
	set   ChangeSet[K, V]
	read  map[K]*entry[K, V]
	keys  []K
	owner uint64
	rows  []Row[V]
}

func (s *share[K, V]) joint() jointPart {
	return &jointShare[K, V]{c: s.c, set: s.set(), read: s.read, keys: s.keys(), owner: s.c.owners.Add(1)}
}

func (j *jointShare[K, V]) begin(ctx context.Context) (Txn, error) { return j.c.begin(ctx) }

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

func (j *jointShare[K, V]) host() host { return j.c.host() }

func (c *Cache[K, V]) host() host {
	return host{
		life: c.life, closing: c.closing, commits: c.commits,
		limits: c.limits, logger: c.options.Logger, counts: &c.counts, tasks: c.tasks,
	}
}

func (j *jointShare[K, V]) enter() error {
	if !j.c.joint.begin() {
		return ErrClosed
	}
	if !j.c.tasks.begin() {
		j.c.joint.end()
		return ErrClosed
	}
	if err := j.c.queue.Enter(); err != nil {
		j.leave()
		return j.c.unqueued(err)
	}
	return nil
}

func (j *jointShare[K, V]) begun() { j.c.queue.Exit() }

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
	if err == nil {
		j.c.observe(&j.set)
	}
	if errors.Is(err, ErrConflict) {
		for _, check := range j.set.Checks {
			j.c.gate.Invalidate(check.Key)
		}
		j.c.tellRefuted(&j.set)
	}
}

func (j *jointShare[K, V]) block()   { j.c.queue.Take(j.keys) }
func (j *jointShare[K, V]) abandon() { j.c.queue.Abandon(j.keys, false) }
func (j *jointShare[K, V]) unblock() { j.c.queue.Return(j.keys) }

func (j *jointShare[K, V]) await(ctx context.Context) error { return j.c.await(ctx, j.keys) }

// await waits until none of the keys is in doubt, for as long as a write waits in
// the queue.
func (c *Cache[K, V]) await(ctx context.Context, keys []K) error {
	err := c.queue.Await(ctx, keys)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: a write of one of the keys was not settled within %v (CommitTimeout)", ErrUnavailable, c.options.CommitTimeout)
	}
	return c.unqueued(err)
}

func (j *jointShare[K, V]) pending() { j.c.tell(j.c.options.Hooks.Pending, &j.set, nil, nil) }

func (j *jointShare[K, V]) changes() bool { return len(j.keys) > 0 }

func (j *jointShare[K, V]) unknown(err error) {
	j.c.tell(j.c.options.Hooks.Unknown, &j.set, nil, err)
}

func (j *jointShare[K, V]) finished(err error, wasDoubted bool) {
	if err != nil {
		j.c.tellEnd(&j.set, nil, err, wasDoubted) // Apply may be writing the rows
		return
	}
	j.c.counts.applied(sizes(&j.set))
	j.c.tellEnd(&j.set, j.rows, nil, wasDoubted)
}

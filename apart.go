package lockstep

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep/internal/commit"
)

// maxApart is how many sets are committed apart at once. Each may keep one of the
// store's connections waiting for as long as somebody else holds its row, and the
// batches need connections too.
const maxApart = 4

// blocked tells whether a set is to be committed apart. One that was set aside already
// has waited as long as it could.
func blocked[K comparable, V any](o *Outcome[V], op *commit.Op[K, *write[K, V]]) bool {
	return o.Blocked && o.Err != nil && op.Item.free == nil && !op.All
}

// setAside has sets committed alone that their batch has left out, because somebody
// else holds rows of them. Their keys stay taken and busy, so no write of them passes
// them; those of other keys go on. Two of one key go one after the other, in their
// order: memory holds what the last of them publishes.
func (c *Cache[K, V]) setAside(ops []*commit.Op[K, *write[K, V]]) {
	sharing := make(map[K][]*write[K, V], len(ops))
	for _, op := range ops {
		w := op.Item
		c.counts.blocked.Add(1)
		op.Keep()
		w.free = make(chan struct{})
		var before [][]*write[K, V]
		for _, key := range op.Keys {
			before = append(before, sharing[key])
			sharing[key] = append(sharing[key], w)
		}
		if !c.tasks.begin() { // Close has given up
			c.concludeAside(op, nil, ErrClosed, 0)
			continue
		}
		go func() {
			defer c.tasks.end()
			c.commitAside(op, before)
		}()
	}
}

func (c *Cache[K, V]) commitAside(op *commit.Op[K, *write[K, V]], before [][]*write[K, V]) {
	if err := c.waitAside(before); err != nil {
		c.concludeAside(op, nil, err, 0)
		return
	}
	defer func() { <-c.apart }()
	began := c.clock.Precise()
	sets := []ChangeSet[K, V]{op.Item.set}
	outcomes, err := c.send(c.commits, context.Background(), []*commit.Op[K, *write[K, V]]{op}, sets)
	c.concludeAside(op, outcomes, err, began)
}

func (c *Cache[K, V]) concludeAside(op *commit.Op[K, *write[K, V]], outcomes []Outcome[V], err error, began int64) {
	ops := []*commit.Op[K, *write[K, V]]{op}
	if errors.Is(err, ErrUnknownOutcome) {
		c.settleBatch(ops, []ChangeSet[K, V]{op.Item.set}, err) // which releases it
		return
	}
	c.conclude(ops, outcomes, err, began)
	c.release(op)
}

// waitAside waits until those that were set aside before have left the keys, and for
// one of the places, which is then the caller's.
func (c *Cache[K, V]) waitAside(before [][]*write[K, V]) error {
	wait, stop := context.WithTimeout(c.life, c.options.CommitTimeout)
	defer stop()
	gaveUp := func(what string) error {
		if c.life.Err() != nil {
			return ErrClosed
		}
		return fmt.Errorf("%w: somebody else holds a row of it locked, and %s (CommitTimeout)", ErrUnavailable, what)
	}
	for _, writes := range before {
		for _, w := range writes {
			select {
			case <-w.free:
			case <-wait.Done():
				return gaveUp("an earlier write of the row waits for that")
			}
			if errors.Is(w.outcome().Err, errUnsettled) {
				return ErrClosed // it may still arrive, and would undo what passes it
			}
		}
	}
	select {
	case c.apart <- struct{}{}:
		return nil
	case <-wait.Done():
		return gaveUp(fmt.Sprintf("%d writes wait for other rows", maxApart))
	}
}

// release frees the keys of a write that has kept them.
func (c *Cache[K, V]) release(op *commit.Op[K, *write[K, V]]) {
	c.queue.Release(op)
	if op.Item.free != nil {
		close(op.Item.free)
	}
}

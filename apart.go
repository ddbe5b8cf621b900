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

// blocked tells whether a set is to be committed apart. One that was alone already
// has waited as long as it could.
func blocked[K comparable, V any](o Outcome[V], ops []*commit.Op[K, *write[K, V]]) bool {
	return o.Blocked && o.Err != nil && len(ops) > 1
}

// setAside has a set committed alone that its batch has left out, because somebody
// else holds a row of it. Its keys stay taken and busy, so no write of them passes
// it; those of other keys go on.
func (c *Cache[K, V]) setAside(op *commit.Op[K, *write[K, V]]) {
	c.counts.blocked.Add(1)
	op.Keep()
	if !c.tasks.begin() { // Close has given up
		c.concludeAside(op, nil, ErrClosed, 0)
		return
	}
	go func() {
		defer c.tasks.end()
		c.commitAside(op)
	}()
}

func (c *Cache[K, V]) commitAside(op *commit.Op[K, *write[K, V]]) {
	wait, stop := context.WithTimeout(c.life, c.options.CommitTimeout)
	select {
	case c.apart <- struct{}{}:
		stop()
	case <-wait.Done():
		stop()
		err := fmt.Errorf("%w: somebody else holds a row of it locked, and %d writes wait for other rows (CommitTimeout)", ErrUnavailable, maxApart)
		if c.life.Err() != nil {
			err = ErrClosed
		}
		c.concludeAside(op, nil, err, 0)
		return
	}
	defer func() { <-c.apart }()
	began := c.clock.Precise()
	sets := []ChangeSet[K, V]{op.Item.set}
	outcomes, err := c.send(c.commits, []*commit.Op[K, *write[K, V]]{op}, sets)
	c.concludeAside(op, outcomes, err, began)
}

func (c *Cache[K, V]) concludeAside(op *commit.Op[K, *write[K, V]], outcomes []Outcome[V], err error, began int64) {
	ops := []*commit.Op[K, *write[K, V]]{op}
	if errors.Is(err, ErrUnknownOutcome) {
		c.settleBatch(ops, []ChangeSet[K, V]{op.Item.set}, err) // which releases it
		return
	}
	c.conclude(ops, outcomes, err, began)
	c.queue.Release(op)
}

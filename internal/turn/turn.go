// Package turn lets those who read a row and then write it do so one after the
// other. They would otherwise collide in the database, and n of them would read
// the row n times over to write it once.
//
// A turn decides nothing: whether a write may happen is the database's to say.
// So turns are taken on 64-bit hashes of the keys; two keys that share a hash
// wait for each other now and then, and that is all.
package turn

import (
	"context"
	"slices"
	"sync"
)

// Table holds turns. The zero value is ready. It is safe for concurrent use, and
// fair: turns are given in the order in which they were asked for.
type Table struct {
	mu    sync.Mutex
	queue map[uint64][]chan struct{} // the first has the turn
}

// Take waits until all the ids are the caller's. Ids are taken in ascending
// order by everybody, so there is no deadlock among those who Take once; a
// caller that has turns must Give them back before it takes others. On error,
// which is the context's, nothing is taken.
func (t *Table) Take(ctx context.Context, ids []uint64) error {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	for i, id := range ids {
		if err := t.take(ctx, id); err != nil {
			t.Give(ids[:i])
			return err
		}
	}
	return nil
}

func (t *Table) take(ctx context.Context, id uint64) error {
	t.mu.Lock()
	if t.queue == nil {
		t.queue = make(map[uint64][]chan struct{})
	}
	waiting := t.queue[id]
	if len(waiting) == 0 {
		t.queue[id] = append(waiting, nil)
		t.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	t.queue[id] = append(waiting, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.queue[id], mine)
	if i == 0 { // given just now
		t.passLocked(id)
	} else {
		t.queue[id] = slices.Delete(t.queue[id], i, i+1)
	}
	return context.Cause(ctx)
}

// Give gives the turns back.
func (t *Table) Give(ids []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		t.passLocked(id)
	}
}

func (t *Table) passLocked(id uint64) {
	rest := t.queue[id][1:]
	if len(rest) == 0 {
		delete(t.queue, id)
		return
	}
	t.queue[id] = rest
	close(rest[0])
}

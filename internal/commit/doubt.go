package commit

import "context"

// Doubt notes that nobody knows what has become of a write, or will for a while.
// It does nothing unless the write is taken, and lasts until its keys are free.
func (q *Queue[K, T]) Doubt(op *Op[K, T]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.doubtLocked(op)
}

func (q *Queue[K, T]) doubtLocked(op *Op[K, T]) {
	if op.state != taken || op.doubted {
		return
	}
	op.doubted = true
	if op.All {
		q.doubtedAll++
	}
	for _, key := range op.Keys {
		q.keys[key].doubted++
	}
}

// certainLocked ends Doubt.
func (q *Queue[K, T]) certainLocked(op *Op[K, T]) {
	if !op.doubted {
		return
	}
	op.doubted = false
	if op.All {
		q.doubtedAll--
	}
	for _, key := range op.Keys {
		q.keys[key].doubted--
	}
	if q.certain != nil {
		close(q.certain)
		q.certain = nil
	}
}

// Take marks keys as taken, and in doubt, whatever is under way on them, until
// Return. It is for a writer that does not travel in batches: those that do wait
// for it.
func (q *Queue[K, T]) Take(keys []K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken++
	q.lent++
	for _, key := range keys {
		ks := q.key(key)
		ks.taken++
		ks.doubted++
	}
}

// Return ends Take.
func (q *Queue[K, T]) Return(keys []K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lent--
	q.freeLocked(&Op[K, T]{Keys: keys, doubted: true})
	q.dispatch()
}

// Await waits until none of the keys is in doubt. It is for the same writer. The
// error is ctx's, or ErrClosed for keys that were given to Abandon.
func (q *Queue[K, T]) Await(ctx context.Context, keys []K) error {
	for {
		certain, err := q.nextCertainty(keys)
		if certain == nil {
			return err
		}
		select {
		case <-certain:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Doubted tells whether one of the keys is in doubt.
func (q *Queue[K, T]) Doubted(keys []K) bool {
	certain, err := q.nextCertainty(keys)
	return certain != nil || err != nil
}

// nextCertainty returns what to wait for; nil when there is nothing, or no use.
func (q *Queue[K, T]) nextCertainty(keys []K) (<-chan struct{}, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	doubted := q.doubtedAll > 0
	for _, key := range keys {
		if q.lostAll || q.lost[key] {
			return nil, ErrClosed
		}
		doubted = doubted || q.keys[key] != nil && q.keys[key].doubted > 0
	}
	if !doubted || len(keys) == 0 {
		return nil, nil
	}
	if q.certain == nil {
		q.certain = make(chan struct{})
	}
	return q.certain, nil
}

// Abandon is for keys, or all keys, whose doubt ends without an answer, because
// the queue is being closed: what has been sent may still arrive, and would undo
// what passes it. Whatever waits for the keys is dropped, with ErrClosed, and the
// queue refuses new writes. The keys must still be taken.
func (q *Queue[K, T]) Abandon(keys []K, all bool) {
	q.mu.Lock()
	q.closed = true
	q.lostAll = q.lostAll || all
	if q.lost == nil {
		q.lost = make(map[K]bool)
	}
	for _, key := range keys {
		q.lost[key] = true
	}
	var ops []*Op[K, T]
	for op := q.eldest; op != nil; {
		next := op.newer
		if q.lostLocked(op) && q.removeLocked(op) {
			ops = append(ops, op)
		}
		op = next
	}
	q.dispatch()
	q.mu.Unlock()
	for _, op := range ops {
		q.config.Dropped(op, ErrClosed)
	}
}

// lostLocked tells whether the write names a key that was given to Abandon.
func (q *Queue[K, T]) lostLocked(op *Op[K, T]) bool {
	if q.lostAll || op.All {
		return true
	}
	for _, key := range op.Keys {
		if q.lost[key] {
			return true
		}
	}
	return false
}

// Enter counts a writer that does not travel in batches among the writes that
// wait, until Exit. The error is ErrFull or ErrClosed.
func (q *Queue[K, T]) Enter() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return ErrClosed
	case q.waiting+q.guests >= q.config.Limit:
		return ErrFull
	}
	q.guests++
	return nil
}

// Exit ends Enter.
func (q *Queue[K, T]) Exit() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.guests--
}

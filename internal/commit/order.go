package commit

import (
	"cmp"
	"slices"
	"time"
)

// key returns the key's state, making it if there is none. q.mu is held, here
// and in the rest of this file.
func (q *Queue[K, T]) key(key K) *keyState[K, T] {
	ks := q.keys[key]
	if ks == nil {
		if n := len(q.spare); n > 0 {
			ks, q.spare = q.spare[n-1], q.spare[:n-1]
		} else {
			ks = &keyState[K, T]{}
		}
		q.keys[key] = ks
	}
	return ks
}

// maxSpare bounds how many states of keys are kept to be used again.
const maxSpare = 1024

// forget ends the state of a key at which nothing is.
func (q *Queue[K, T]) forget(key K, ks *keyState[K, T]) {
	delete(q.keys, key)
	if len(q.spare) < maxSpare {
		*ks = keyState[K, T]{}
		q.spare = append(q.spare, ks)
	}
}

// takeLocked removes the next batch from the ready list, parks what it has to
// step over, and marks the batch's keys as taken.
func (q *Queue[K, T]) takeLocked() []*Op[K, T] {
	most := q.config.MaxOps
	if q.returning {
		most = q.shareLocked()
	}
	batch := make([]*Op[K, T], 0, min(q.readyCount, most))
	bytes := 0
	for op := q.first; op != nil && len(batch) < most; op = q.first {
		if op.All {
			if len(batch) > 0 || q.taken > 0 || q.readyCount < q.waiting {
				// Something before it is under way or parked. Nothing behind it may pass.
				break
			}
			q.exclusive = true
			q.popReady(op)
			batch = append(batch, op)
			break
		}
		if q.blockedLocked(op) {
			q.popReady(op)
			q.parkLocked(op)
			continue
		}
		if len(batch) > 0 && q.overfull(bytes+op.Bytes) {
			break // and not passed by smaller ones, of which there might always be more
		}
		q.popReady(op)
		batch = append(batch, op)
		bytes += op.Bytes
	}
	// Marked only now: two writes of one key may share a batch.
	for _, op := range batch {
		op.state = taken
		q.taken++
		q.waiting--
		q.dropAge(op)
		for _, key := range op.Keys {
			q.key(key).taken++
		}
	}
	return batch
}

// overfull tells whether so many bytes are more than a batch may have.
func (q *Queue[K, T]) overfull(bytes int) bool {
	return q.config.MaxBytes > 0 && bytes > q.config.MaxBytes
}

// blockedLocked: a batch under way has one of the keys, or an older write waits
// at it.
func (q *Queue[K, T]) blockedLocked(op *Op[K, T]) bool {
	for _, key := range op.Keys {
		if ks := q.keys[key]; ks != nil && (ks.taken > 0 || len(ks.parked) > 0 && ks.parked[0].number < op.number) {
			return true
		}
	}
	return false
}

// parkLocked puts a write at its keys, nearly always behind all others. One that
// had become ready, and found a key taken again, goes before the younger ones.
func (q *Queue[K, T]) parkLocked(op *Op[K, T]) {
	op.state = parked
	for _, key := range op.Keys {
		ks := q.key(key)
		i := len(ks.parked)
		for i > 0 && ks.parked[i-1].number > op.number {
			i--
		}
		ks.parked = slices.Insert(ks.parked, i, op)
	}
}

// freeLocked ends a write's hold on its keys, and makes those ready that waited
// for just that.
func (q *Queue[K, T]) freeLocked(op *Op[K, T]) {
	q.certainLocked(op)
	op.state = gone
	q.taken--
	if op.All {
		q.exclusive = false
	}
	awaited := false
	for _, key := range op.Keys {
		ks := q.keys[key]
		ks.taken--
		if ks.taken == 0 && len(ks.parked) == 0 {
			q.forget(key, ks) // as nearly always
		} else {
			awaited = true
		}
	}
	if awaited {
		q.unparkLocked(op.Keys)
	}
}

// unparkLocked looks at the heads of the keys' parked writes. A write becomes
// ready when it is the head at each of its keys and none of them is taken; the
// one behind it may then be ready too, and will be in the same batch or wait its
// turn behind it in the ready list. That list is by number, because a write may
// become ready later than a younger one on another key, or than an older one on
// the same that has no place yet.
func (q *Queue[K, T]) unparkLocked(keys []K) {
	var freed []*Op[K, T]
	work := slices.Clone(keys)
	for len(work) > 0 {
		key := work[len(work)-1]
		work = work[:len(work)-1]
		ks := q.keys[key]
		if ks == nil {
			continue
		}
		if ks.taken == 0 && len(ks.parked) == 0 {
			q.forget(key, ks)
			continue
		}
		if ks.taken > 0 || len(ks.parked) == 0 || !q.headLocked(ks.parked[0]) {
			continue
		}
		op := ks.parked[0]
		for _, k := range op.Keys {
			other := q.keys[k]
			other.parked = other.parked[1:]
		}
		freed = append(freed, op)
		// Those behind it may come along, as far as a batch has room. The others
		// would only be looked at and parked again, thousands of them for each write
		// of a key that everybody writes. The last one freed wakes them.
		if len(freed) < q.config.MaxOps {
			work = append(work, op.Keys...)
		}
	}
	slices.SortFunc(freed, func(a, b *Op[K, T]) int { return cmp.Compare(a.number, b.number) })
	// What is ready and was never parked is younger than all of them, so the walk
	// ends early.
	at := q.first
	for _, op := range freed {
		for at != nil && at.number < op.number {
			at = at.next
		}
		q.insertReady(op, at)
	}
}

func (q *Queue[K, T]) headLocked(op *Op[K, T]) bool {
	for _, key := range op.Keys {
		if ks := q.keys[key]; ks.taken > 0 || ks.parked[0] != op {
			return false
		}
	}
	return true
}

// removeLocked takes a waiting write out of the queue.
func (q *Queue[K, T]) removeLocked(op *Op[K, T]) bool {
	switch op.state {
	case ready:
		q.popReady(op)
	case parked:
		for _, key := range op.Keys {
			ks := q.keys[key]
			if i := slices.Index(ks.parked, op); i == 0 {
				ks.parked = ks.parked[1:]
			} else {
				ks.parked = slices.Delete(ks.parked, i, i+1)
			}
		}
	default:
		return false
	}
	q.unparkLocked(op.Keys)
	op.state = gone
	q.waiting--
	q.dropAge(op)
	return true
}

// mustGatherLocked says that the batch may still grow, and arms the timer that
// ends the wait.
func (q *Queue[K, T]) mustGatherLocked() bool {
	if q.config.MaxDelay <= 0 || q.first == nil || q.closed || q.readyCount >= q.config.MaxOps || q.overfull(q.readyBytes) {
		return false
	}
	left := q.config.MaxDelay - q.first.Waited(time.Now())
	if left <= 0 {
		return false
	}
	if q.delayTimer == nil {
		q.delayTimer = time.AfterFunc(left, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.dispatch()
		})
	} else {
		q.delayTimer.Reset(left)
	}
	return true
}

// armStale makes sure that a timer runs while something waits.
func (q *Queue[K, T]) armStale() {
	if q.eldest == nil || q.staleArmed {
		return
	}
	q.staleArmed = true
	left := max(0, q.config.MaxWait-q.eldest.Waited(time.Now()))
	if q.staleTimer == nil {
		q.staleTimer = time.AfterFunc(left, q.dropStale)
	} else {
		q.staleTimer.Reset(left)
	}
}

// dropStale gives up the writes that have waited too long. One timer serves the
// queue: a timer a write would cost more than the rest of Submit.
func (q *Queue[K, T]) dropStale() {
	q.mu.Lock()
	q.staleArmed = false
	var stale []*Op[K, T]
	for op := q.eldest; op != nil && op.Waited(time.Now()) >= q.config.MaxWait; op = q.eldest {
		stale = append(stale, op)
		q.removeLocked(op)
	}
	q.armStale()
	if len(stale) > 0 {
		q.dispatch()
	}
	q.mu.Unlock()
	for _, op := range stale {
		q.config.Dropped(op, ErrStale)
	}
}

// The ready list.

// insertReady puts the write before another one, or last.
func (q *Queue[K, T]) insertReady(op, before *Op[K, T]) {
	op.state = ready
	op.next = before
	if before == nil {
		op.prev, q.last = q.last, op
	} else {
		op.prev, before.prev = before.prev, op
	}
	if op.prev == nil {
		q.first = op
	} else {
		op.prev.next = op
	}
	q.readyCount++
	q.readyBytes += op.Bytes
}

func (q *Queue[K, T]) popReady(op *Op[K, T]) {
	if op.prev == nil {
		q.first = op.next
	} else {
		op.prev.next = op.next
	}
	if op.next == nil {
		q.last = op.prev
	} else {
		op.next.prev = op.prev
	}
	op.prev, op.next = nil, nil
	q.readyCount--
	q.readyBytes -= op.Bytes
}

// The list by age, of whatever waits.

func (q *Queue[K, T]) pushAge(op *Op[K, T]) {
	op.older = q.youngest
	if q.youngest == nil {
		q.eldest = op
	} else {
		q.youngest.newer = op
	}
	q.youngest = op
}

func (q *Queue[K, T]) dropAge(op *Op[K, T]) {
	if op.older == nil {
		q.eldest = op.newer
	} else {
		op.older.newer = op.newer
	}
	if op.newer == nil {
		q.youngest = op.older
	} else {
		op.newer.older = op.older
	}
	op.older, op.newer = nil, nil
}

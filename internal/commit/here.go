package commit

import "time"

// Start takes a write for a batch of its own, which the caller runs on its own
// goroutine, and then Finish or Pass. It returns false, and has done nothing, unless
// the queue is empty and nothing is under way: a write that goes by itself saves
// nobody a commit, and its writer two hand-overs between goroutines. Those wake a
// core that sleeps, which can take as long as a tenth of a sync.
func (q *Queue[K, T]) Start(op *Op[K, T]) bool {
	now := time.Since(began)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || op.All || q.waiting+q.guests+q.inFlight > 0 || q.exclusive || q.config.MaxDelay > 0 || q.blockedLocked(op) {
		return false
	}
	q.submitted++
	op.number, op.enqueued = q.submitted, now
	op.state = taken
	q.taken++
	for _, key := range op.Keys {
		q.key(key).taken++
	}
	q.inFlight++
	q.unanswered++
	return true
}

// Finish ends a batch that Start has begun. What has been queued meanwhile goes to
// a goroutine of the queue's.
func (q *Queue[K, T]) Finish(batch []*Op[K, T]) {
	if next := q.done(batch, nil); next != nil {
		q.give(next)
	}
}

// Pass has a goroutine of the queue's run a batch that Start has begun.
func (q *Queue[K, T]) Pass(batch []*Op[K, T]) { q.give(batch) }

// give hands a batch that has its place to a worker.
func (q *Queue[K, T]) give(batch []*Op[K, T]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.giveLocked(batch)
}

func (q *Queue[K, T]) giveLocked(batch []*Op[K, T]) {
	if n := len(q.parked); n > 0 {
		worker := q.parked[n-1]
		q.parked = q.parked[:n-1]
		worker <- batch // it has room for one
	} else {
		go q.work(batch)
	}
}

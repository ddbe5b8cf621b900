package commit

import "time"

// Batches that are under way at once are even shares of the crowd: of the writes that
// there lately were at once. Each batch costs the database a statement and a sync,
// whatever is in it, and the writers of one write again while it works on another. Who
// gave a free place at once to those that are back first would make a small batch, then
// a large one of all the others, whose writers then come back in the same two parts.
//
// So while the writers of the last batch come back, for as long as that batch took and no
// longer than longestReturn, a batch takes no more than its share, and beside another one
// begins when most of a share is ready, or as many have come as were away. Nothing waits
// longer beside a batch that does not return, however many others do; and nothing at all
// when nobody was answered lately.

// longestReturn is about what a thousand writers take to come back. It bounds a hold as a
// whole, too.
const longestReturn = 5 * time.Millisecond

// crowdMemory is in about how many batches a crowd that has gone is forgotten.
const crowdMemory = 16

// straggling is which part of a share is not waited for.
const straggling = 32

// Answer is called by Run when the commit of its batch, which took so long, is over, and
// before the writes are answered: those who wait for them will write again, as a rule.
func (q *Queue[K, T]) Answer(batch []*Op[K, T], took time.Duration) {
	took = min(took, longestReturn)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.answeredLocked(batch)
	if took <= 0 || q.config.InFlight == 1 || q.config.MaxDelay > 0 || q.closed || q.shareLocked() == 1 {
		return
	}
	if q.holding {
		took = min(took, max(0, q.heldSince+longestReturn-time.Since(began)))
	}
	q.returning = true
	q.away += len(batch)
	if q.returnTimer == nil {
		q.returnTimer = time.AfterFunc(took, q.allReturned)
	} else {
		q.returnTimer.Reset(took)
	}
}

// answeredLocked is called once more when the batch's place is free. q.mu is held, here and
// in the rest of this file.
func (q *Queue[K, T]) answeredLocked(batch []*Op[K, T]) {
	if !batch[0].answered {
		batch[0].answered = true
		q.unanswered -= len(batch)
	}
}

// allReturned may come late, and end the return of another batch. What begins then is
// smaller than it could be, and nothing else.
func (q *Queue[K, T]) allReturned() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.returning, q.away = false, 0
	q.dispatch()
}

// countLocked counts the crowd, before a batch is taken.
func (q *Queue[K, T]) countLocked() {
	q.crowd -= (q.crowd + crowdMemory - 1) / crowdMemory
	q.crowd = max(q.crowd, q.readyCount+q.unanswered+q.away)
}

// shareLocked is how many writes a batch may have, at least 1.
func (q *Queue[K, T]) shareLocked() int {
	return min(q.config.MaxOps, max(1, (q.crowd+q.config.InFlight-1)/q.config.InFlight))
}

// mustShareLocked says that a batch beside another one had better wait for those who are
// coming back.
func (q *Queue[K, T]) mustShareLocked() bool {
	if q.away == 0 || q.inFlight == 0 || q.closed || q.overfull(q.readyBytes) {
		return false
	}
	share := q.shareLocked()
	if q.readyCount >= share-share/straggling {
		return false
	}
	if !q.holding {
		q.holding, q.heldSince = true, time.Since(began)
	}
	return true
}

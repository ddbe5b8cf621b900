// Package commit is the group committer: it decides which writes travel to the
// database together, and when. It knows neither SQL nor sockets, nor what a
// write is; it knows the keys.
//
// # Invariants
//
//  1. A key travels in at most one batch at a time.
//  2. Writes on one key are taken in the order in which they were submitted; two
//     of them may be in one batch, in that order.
//  3. A write on all keys travels alone, after everything before it and before
//     everything after it.
//  4. A batch is what is ready when a place is free, up to an even share of it
//     (share.go). A lone writer never waits for company, and company gathers by
//     itself while the batch before is under way.
//
// The obvious design takes the queue from its head until a write names a key
// that is under way, and stops there. One slow key then stops all of them. Here
// such a write is parked at its keys, and the queue goes on without it; a write
// behind it that shares a key parks behind it, which keeps the order.
//
// A timer that waits for a fuller batch was rejected as a default: with n
// writers waiting for their answers the batch grows to about n/2 by itself, and
// the timer is then only a delay. MaxDelay is there for databases that charge by
// the transaction.
package commit

import (
	"errors"
	"runtime"
	"sync"
	"time"
)

// Errors of Submit, and of Drop.
var (
	ErrFull   = errors.New("commit: queue is full")
	ErrClosed = errors.New("commit: closed")
	// ErrStale is given to Dropped for a write that waited too long.
	ErrStale = errors.New("commit: waited too long in the queue")
)

// Op is one write in the queue. It may be submitted once.
type Op[K comparable, T any] struct {
	// Keys are the keys that the write changes, each once.
	Keys []K
	Item T
	// Bytes is about how much the write sends to the database.
	Bytes int

	number       uint64        // in the order of Submit
	enqueued     time.Duration // when it was submitted, since began
	prev, next   *Op[K, T]     // in the ready list
	older, newer *Op[K, T]     // in the list by age

	// All stands for every key, and then Keys is empty. It is the last one to take no
	// room beside the flags.
	All        bool
	state      state
	held, kept bool
	doubted    bool
	answered   bool // of the first in a batch: all of it
}

// began is what times are counted from: a Duration is a third of a Time, and there is
// an Op for each write.
var began = time.Now()

// Waited is how long the write has been in the queue, at a moment after Submit.
func (op *Op[K, T]) Waited(at time.Time) time.Duration { return at.Sub(began) - op.enqueued }

type state uint8

const (
	fresh state = iota
	ready
	parked
	taken
	gone
)

// Hold keeps the write's keys taken when its batch returns, until Release. It is
// called by Run, for a write whose outcome is not known. After Keep it does nothing,
// for the batch may be about to end: Doubt is for that.
func (op *Op[K, T]) Hold() {
	if !op.kept {
		op.held = true
	}
}

// Keep is Hold for a write whose outcome is known, or will be soon, and which is
// not in doubt: it has not been tried.
func (op *Op[K, T]) Keep() { op.kept = true }

// Config describes a Queue.
type Config[K comparable, T any] struct {
	MaxOps   int           // writes in a batch, at least 1
	MaxBytes int           // of the writes in a batch together, unless it has one alone; 0: any
	InFlight int           // batches under way at once, at least 1
	MaxDelay time.Duration // how long a batch may wait to fill up; 0: not at all
	Limit    int           // writes that may wait, at least 1
	MaxWait  time.Duration // how long a write may wait
	// Run commits a batch, on a goroutine of the queue's, and returns when the
	// batch's place is free again.
	Run func([]*Op[K, T])
	// Dropped is called, with no lock held, for each write that the queue gave
	// up: with ErrStale, or with ErrClosed.
	Dropped func(*Op[K, T], error)
}

// Queue is safe for concurrent use. Submit takes one short lock.
type Queue[K comparable, T any] struct {
	config Config[K, T]

	mu sync.Mutex
	// All that follows is guarded by mu.
	keys             map[K]*keyState[K, T]
	spare            []*keyState[K, T]
	first, last      *Op[K, T] // ready, by number
	eldest, youngest *Op[K, T] // ready or parked, by age
	submitted        uint64
	readyCount       int
	readyBytes       int
	waiting          int // ready or parked
	inFlight         int // batches
	unanswered       int // writes in them
	away             int // writers who were answered, and are not back
	crowd            int // the most writers that there were lately
	returning        bool
	holding          bool          // somebody waits for a share
	heldSince        time.Duration // since began
	returnTimer      *time.Timer
	guests           int // calls of Enter
	taken            int // writes taken and not freed, and calls of Take
	lent             int // calls of Take
	exclusive        bool
	closed           bool
	doubtedAll       int           // writes on all keys in doubt
	certain          chan struct{} // closed when a doubt ends; made when somebody waits for it
	lost             map[K]bool    // given to Abandon
	lostAll          bool
	idle             chan struct{}      // closed when closed and nothing is left
	parked           []chan []*Op[K, T] // of the workers that wait for a batch
	staleTimer       *time.Timer
	staleArmed       bool
	delayTimer       *time.Timer
}

// keyState is there for a key that is taken or that writes are parked at.
type keyState[K comparable, T any] struct {
	taken   int
	doubted int         // of those that have taken it
	parked  []*Op[K, T] // by number
}

// New returns a queue. It starts no goroutine before there is work, and keeps at
// most InFlight of them until it is closed and idle.
func New[K comparable, T any](config Config[K, T]) *Queue[K, T] {
	return &Queue[K, T]{config: config, keys: make(map[K]*keyState[K, T]), idle: make(chan struct{})}
}

// Submit queues the writes as neighbours, in order, all of them or none. The
// error is ErrFull or ErrClosed.
func (q *Queue[K, T]) Submit(ops ...*Op[K, T]) error {
	now := time.Since(began)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	if q.waiting+q.guests+len(ops) > q.config.Limit {
		return ErrFull
	}
	q.away = max(0, q.away-len(ops))
	for _, op := range ops {
		q.submitted++
		op.number, op.enqueued = q.submitted, now
		q.waiting++
		q.pushAge(op)
		q.insertReady(op, nil)
	}
	q.armStale()
	q.dispatch()
	return nil
}

// Leave takes a write out of the queue. It returns false when the write has
// already been taken, or dropped.
func (q *Queue[K, T]) Leave(op *Op[K, T]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.removeLocked(op) {
		return false
	}
	q.dispatch()
	return true
}

// Release frees the keys of a write that Run held.
func (q *Queue[K, T]) Release(op *Op[K, T]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.freeLocked(op)
	q.dispatch()
}

// Len returns the number of writes that wait.
func (q *Queue[K, T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting + q.guests
}

// Close refuses new writes and returns a channel that is closed when nothing
// waits, nothing is under way and nothing is held.
func (q *Queue[K, T]) Close() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.dispatch() // nobody else will come to fill the batch
	return q.idle
}

// Drop gives up whatever still waits, and returns the number of writes that
// waited and of those that are taken, without what Take has taken.
func (q *Queue[K, T]) Drop() (dropped, underWay int) {
	q.mu.Lock()
	var ops []*Op[K, T]
	for q.eldest != nil {
		ops = append(ops, q.eldest)
		q.removeLocked(q.eldest)
	}
	underWay = q.taken - q.lent
	q.checkIdleLocked()
	q.mu.Unlock()
	for _, op := range ops {
		q.config.Dropped(op, ErrClosed)
	}
	return len(ops), underWay
}

func (q *Queue[K, T]) checkIdleLocked() {
	if !q.closed || q.waiting > 0 || q.inFlight > 0 || q.taken > 0 {
		return
	}
	select {
	case <-q.idle:
	default:
		close(q.idle)
		for _, worker := range q.parked {
			close(worker)
		}
		q.parked = nil
		for _, timer := range []*time.Timer{q.staleTimer, q.delayTimer, q.returnTimer} {
			if timer != nil {
				timer.Stop()
			}
		}
	}
}

// dispatch starts as many batches as there are places and work for.
func (q *Queue[K, T]) dispatch() {
	for {
		batch := q.nextLocked()
		if batch == nil {
			break
		}
		q.giveLocked(batch)
	}
	q.checkIdleLocked()
}

// nextLocked takes the next batch and its place; nil if there is none of either.
func (q *Queue[K, T]) nextLocked() []*Op[K, T] {
	if q.first == nil || q.inFlight >= q.config.InFlight || q.exclusive || q.mustGatherLocked() || q.mustShareLocked() {
		return nil
	}
	q.countLocked()
	batch := q.takeLocked()
	if len(batch) == 0 {
		return nil
	}
	q.inFlight++
	q.unanswered += len(batch)
	q.holding = false
	return batch
}

// work runs one batch after another, and waits for more until the queue is
// closed. A goroutine for each batch would be simpler; but a database's stack is
// deep, and a new goroutine grows and copies its own for every commit, which a
// lone writer feels.
func (q *Queue[K, T]) work(batch []*Op[K, T]) {
	more := make(chan []*Op[K, T], 1)
	for batch != nil {
		if batch = q.run(batch, more); batch == nil {
			batch = <-more
		}
	}
}

func (q *Queue[K, T]) run(batch []*Op[K, T], more chan []*Op[K, T]) (next []*Op[K, T]) {
	returned := false
	defer func() {
		// Run may end its goroutine (runtime.Goexit), which must not keep the place
		// nor the keys.
		if !returned {
			if next := q.done(batch, nil); next != nil {
				go q.work(next)
			}
		}
	}()
	q.config.Run(batch)
	returned = true
	if len(batch) > 1 {
		// Its writers have been woken and most will write again. Who takes the next batch
		// before they have run takes what the first of them has queued, and the others
		// wait for that: a commit for one, and then one for a hundred.
		runtime.Gosched()
	}
	return q.done(batch, more)
}

// done frees the batch's place and returns the next batch. If there is none, it
// will be sent to more, or more is closed; unless more is nil.
func (q *Queue[K, T]) done(batch []*Op[K, T], more chan []*Op[K, T]) (next []*Op[K, T]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inFlight--
	q.answeredLocked(batch)
	q.exclusive = q.exclusive && batch[0].held
	for _, op := range batch {
		switch {
		case op.held:
			q.doubtLocked(op)
		case !op.kept:
			q.freeLocked(op)
		}
	}
	if next = q.nextLocked(); next == nil && more != nil {
		q.parked = append(q.parked, more)
	}
	q.dispatch()
	return next
}

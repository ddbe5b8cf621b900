// Package behind keeps the order of writes that are acknowledged before the database
// has them. It does no I/O, knows neither the database nor what a write is, and starts
// no goroutine; it knows keys, sizes and order.
//
// # Order
//
// Writes stand in one line, in the order in which they were taken in:
//
//	segment | segment | passage | segment      ← writes come in here
//	  ↑ is being flushed                open ↑
//
// A segment is what one transaction of the database will make of many acknowledged
// writes. While it is the last in the line it is open, and a further write of a key
// takes the earlier one's place in it; from the moment that it is taken, or that
// something stands behind it, it is what it is. A passage is writes that were not
// acknowledged, because there was no room for them: their callers wait, and they go to
// the database when everything before them is there.
//
// # Invariants
//
//  1. One element of the line is under way at a time, the first. So what the database
//     holds is at every moment what the writes up to some place in the line come to,
//     and a crash leaves a prefix of what was acknowledged.
//  2. Writes are put together only within a segment. Over the border of two segments,
//     the first could be in the database and what came before it in the second not.
//  3. Readers see every acknowledged write, and none that waits, until its element is
//     over: the newest of each key, and the rows of one write at one moment.
//  4. No write is acknowledged that a waiting write of several keys shares a key with,
//     or that stands behind a waiting write of all keys. It would be seen before the
//     waiting one, whose other keys are seen after it: an order that nobody could
//     explain. (Behind one of a single key it may be acknowledged: that one is then
//     never seen, as if it had come just before.)
//  5. Acknowledged and not over are at most MaxWrites changes of rows, and at most
//     MaxBytes; at most MaxWaiting writes wait.
package behind

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Errors of Submit.
var (
	ErrFull   = errors.New("behind: too many writes are waiting")
	ErrClosed = errors.New("behind: closed")
	// ErrDoubtful is Config.Log's: the writes may be found in the log, or not, when the
	// program starts again.
	ErrDoubtful = errors.New("behind: doubtful")
)

// Item is the new state of one key.
type Item[K comparable, T any] struct {
	Key   K
	Value T
	Bytes int
}

// Write is a call that writes all of its items or none. It may be submitted once.
type Write[K comparable, T any] struct {
	Items []Item[K, T]
	// All stands for every key; Items is then empty. Such a write always waits.
	All bool
	// Owner is the caller's.
	Owner any
	// Record is what Config.Log is to keep of it.
	Record []byte
	// Number is that of an acknowledged write; they count up by one.
	Number uint64

	passage *passage[K, T] // that it waits in
	intake
}

// Config describes an Order.
type Config struct {
	MaxWrites  int   // changes of rows that may be acknowledged and not over
	MaxBytes   int64 // that these may come to; with Log, what others took the place of, too
	MaxWaiting int   // writes that may wait
	// MaxRows and MaxSegmentBytes say when a segment is full. A write that is larger
	// than that has a segment of its own.
	MaxRows         int
	MaxSegmentBytes int64
	// MaxDelay is how old the oldest write of a segment may become before it is taken,
	// unless it is full or something stands behind it.
	MaxDelay time.Duration
	// Apart gives every write of several keys a segment of its own, which nothing is put
	// together with.
	Apart bool
	// Log, when set, makes the Records of writes durable, under their Numbers, before they
	// are acknowledged, and seen. Its error is that of their Submits, which nothing has
	// come of, unless it is ErrDoubtful. It is called by one goroutine at a time.
	Log func(writes []Logged) error
	// First is the number before that of the first write.
	First uint64
}

// Logged is a write for Config.Log.
type Logged struct {
	Number uint64
	Record []byte
}

// Order is safe for concurrent use.
type Order[K comparable, T any] struct {
	config Config
	wake   chan struct{} // has one when Next has something to look at

	mu sync.RWMutex
	// All that follows is guarded by mu.
	newest map[K]*cell[K, T] // of the acknowledged writes that are not over
	line   []element[K, T]
	writes int // acknowledged, or about to be, and not over: their changes of rows
	bytes  int64
	number uint64 // of the last write that was acknowledged
	over   uint64 // the number up to which all are over
	moved  chan struct{}

	incoming []*Write[K, T] // taken in, in order, and not in the line yet, for the log's sake
	logging  bool           // some Submit is at it
	doubtful bool           // the log is not to be used before a renewal

	waiting        int
	waitingSeveral map[K]int // keys of waiting writes of several
	waitingAll     int

	coalesced, waited, rejected uint64
	closed, stopped             bool
	idle                        chan struct{} // closed when closed and nothing is left
	halted                      chan struct{} // closed when stopped
}

// element is a *segment, a *passage or a renewal.
type element[K comparable, T any] interface{ since() time.Time }

// renewal stands where the log has become doubtful.
type renewal struct {
	began  time.Time
	number uint64 // the last that may be in the log without having been acknowledged
}

func (r renewal) since() time.Time { return r.began }

// New returns an empty order.
func New[K comparable, T any](config Config) *Order[K, T] {
	return &Order[K, T]{
		number: config.First, over: config.First,
		config: config,
		wake:   make(chan struct{}, 1),
		newest: make(map[K]*cell[K, T]),
		moved:  make(chan struct{}), waitingSeveral: make(map[K]int),
		idle: make(chan struct{}), halted: make(chan struct{}),
	}
}

// Get returns the key's newest acknowledged state that is not over; nothing after Close.
func (o *Order[K, T]) Get(key K) (value T, found bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if c := o.newest[key]; c != nil && !o.closed {
		return c.item.Value, true
	}
	return value, false
}

func (o *Order[K, T]) roomLocked(w *Write[K, T]) bool {
	bytes := o.bytes
	for i := range w.Items {
		bytes += int64(w.Items[i].Bytes)
	}
	return o.writes+len(w.Items) <= o.config.MaxWrites && bytes <= o.config.MaxBytes
}

// overtakesLocked: see invariant 4.
func (o *Order[K, T]) overtakesLocked(w *Write[K, T]) bool {
	return o.waitingAll > 0 || len(o.waitingSeveral) > 0 &&
		slices.ContainsFunc(w.Items, func(item Item[K, T]) bool { return o.waitingSeveral[item.Key] > 0 })
}

// enterLocked acknowledges the write, whose room is reserved.
func (o *Order[K, T]) enterLocked(w *Write[K, T], now time.Time) {
	s := o.openLocked(w, now)
	o.number = w.Number
	s.last = o.number
	added, replaced := s.add(w, o.number)
	o.coalesced += uint64(len(w.Items) - added)
	if o.config.Log == nil {
		o.bytes -= replaced
	} else {
		s.replaced += replaced // the log has them until the segment is over
	}
	for i := range w.Items {
		key := w.Items[i].Key
		o.newest[key] = s.cells[key]
	}
	o.wakeUp()
}

// openLocked is the segment that the write goes to.
func (o *Order[K, T]) openLocked(w *Write[K, T], now time.Time) *segment[K, T] {
	apart := o.config.Apart && len(w.Items) > 1
	if n := len(o.line); n > 0 {
		if s, ok := o.line[n-1].(*segment[K, T]); ok && !s.sealed {
			if !apart && s.takes(w, &o.config) {
				return s
			}
			s.sealed = true
		}
	}
	s := newSegment[K, T](now)
	s.sealed = apart
	o.line = append(o.line, s)
	return s
}

// waitLocked puts the write in a passage.
func (o *Order[K, T]) waitLocked(w *Write[K, T], now time.Time) {
	var p *passage[K, T]
	if n := len(o.line); n > 0 {
		p, _ = o.line[n-1].(*passage[K, T])
	}
	if p == nil || p.taken {
		p = &passage[K, T]{began: now}
		o.line = append(o.line, p)
	}
	w.passage = p
	p.writes = append(p.writes, w)
	o.waited++
	o.wakeUp()
}

func (o *Order[K, T]) registerLocked(w *Write[K, T], by int) {
	if w.All {
		o.waitingAll += by
	}
	if len(w.Items) < 2 {
		return
	}
	for i := range w.Items {
		key := w.Items[i].Key
		if o.waitingSeveral[key] += by; o.waitingSeveral[key] == 0 {
			delete(o.waitingSeveral, key)
		}
	}
}

// Leave takes a waiting write out of the line. It returns false when it is on its way
// already.
func (o *Order[K, T]) Leave(w *Write[K, T]) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := w.passage
	if p == nil || p.taken {
		return false
	}
	i := slices.Index(p.writes, w)
	if i < 0 {
		return false
	}
	p.writes = slices.Delete(p.writes, i, i+1)
	o.countWaitingLocked(w, -1)
	o.wakeUp() // the passage may be empty
	return true
}

// Turn is what stands first in the line, when its time has come. One of its fields is
// set.
type Turn[K comparable, T any] struct {
	// Segment ends with Over.
	Segment *Segment[K, T]
	// Passing are writes that have waited, and end with Passed.
	Passing []*Write[K, T]
	// Renew asks for the log to be renewed, so that what it has up to that number, and what
	// is not over, is never read from it; it ends with Renewed.
	Renew uint64
}

// Next takes the first of the line. It is for one goroutine, which ends each turn, by the
// method that its field names, before it asks for another. It returns false when nothing will come any more, or
// ctx has ended.
func (o *Order[K, T]) Next(ctx context.Context) (turn Turn[K, T], ok bool) {
	for {
		turn, ok, wait := o.next()
		if ok {
			return turn, true
		}
		var timer *time.Timer
		var due <-chan time.Time
		if wait > 0 {
			timer = time.NewTimer(wait)
			due = timer.C
		}
		select {
		case <-o.wake:
		case <-due:
		case <-o.idle:
			return turn, false
		case <-ctx.Done():
			return turn, false
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

func (o *Order[K, T]) next() (turn Turn[K, T], ok bool, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.line) > 0 && !o.stopped {
		switch first := o.line[0].(type) {
		case *segment[K, T]:
			left := o.config.MaxDelay - time.Since(first.began)
			if left > 0 && len(o.line) == 1 && !first.full(&o.config) && !o.closed {
				return turn, false, left
			}
			first.sealed = true
			return Turn[K, T]{Segment: first.taken()}, true, 0
		case renewal:
			return Turn[K, T]{Renew: first.number}, true, 0
		case *passage[K, T]:
			if len(first.writes) > 0 {
				first.taken = true
				return Turn[K, T]{Passing: first.writes}, true, 0
			}
			o.popLocked() // all have left
		}
	}
	return turn, false, 0
}

// Over is the end of a segment, of which so many changes were not made: readers do not see
// it here any more.
func (o *Order[K, T]) Over(rejected int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.line[0].(*segment[K, T])
	for key, c := range s.cells {
		if o.newest[key] == c {
			delete(o.newest, key)
		}
		o.bytes -= int64(c.item.Bytes)
	}
	o.bytes -= s.replaced
	o.writes -= s.writes
	o.rejected += uint64(rejected)
	o.overLocked(s.last)
	o.popLocked()
}

func (o *Order[K, T]) overLocked(number uint64) {
	o.over = number
	close(o.moved)
	o.moved = make(chan struct{})
}

// Renewed is the end of a renewal.
func (o *Order[K, T]) Renewed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.doubtful = false
	o.overLocked(o.line[0].(renewal).number)
	o.popLocked()
}

// Passed is the end of a passage.
func (o *Order[K, T]) Passed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.line[0].(*passage[K, T]).writes {
		o.countWaitingLocked(w, -1)
	}
	o.popLocked()
}

func (o *Order[K, T]) popLocked() {
	o.line[0] = nil
	o.line = o.line[1:]
	if len(o.line) == 0 {
		o.line = nil
	}
	o.checkIdleLocked()
	o.wakeUp()
}

func (o *Order[K, T]) wakeUp() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Drain waits until all writes are over that were acknowledged before the call, and has
// them taken without delay. The error is that of ctx, or ErrClosed after Stop.
func (o *Order[K, T]) Drain(ctx context.Context) error {
	o.mu.Lock()
	number := o.number
	if n := len(o.line); n > 0 {
		if s, ok := o.line[n-1].(*segment[K, T]); ok {
			s.sealed = true
			o.wakeUp()
		}
	}
	for o.over < number {
		moved := o.moved
		o.mu.Unlock()
		select {
		case <-moved:
		case <-o.halted:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
		o.mu.Lock()
	}
	o.mu.Unlock()
	return nil
}

// Close refuses new writes. The channel is closed when none is left.
func (o *Order[K, T]) Close() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.checkIdleLocked()
	o.wakeUp()
	return o.idle
}

func (o *Order[K, T]) checkIdleLocked() {
	if !o.closed || len(o.line) > 0 || o.logging {
		return
	}
	select {
	case <-o.idle:
	default:
		close(o.idle)
	}
}

// Stop gives up: Next returns nothing any more, and the waiting writes that are not on
// their way have left the line.
func (o *Order[K, T]) Stop() (left []*Write[K, T]) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		return nil
	}
	o.closed, o.stopped = true, true
	close(o.halted)
	for _, e := range o.line {
		p, ok := e.(*passage[K, T])
		if !ok || p.taken {
			continue
		}
		for _, w := range p.writes {
			o.countWaitingLocked(w, -1)
			left = append(left, w)
		}
		p.writes = nil
	}
	return left
}

// State is what an order holds, and what has passed through it.
type State struct {
	Writes            int // changes of rows that were acknowledged and are not over
	Bytes             int64
	Oldest            time.Time // when the first of them came; zero when there is none
	Waiting           int
	Coalesced, Waited uint64
	// Rejected are the changes that have ended without being made.
	Rejected uint64
}

// State returns it.
func (o *Order[K, T]) State() State {
	o.mu.RLock()
	defer o.mu.RUnlock()
	s := State{Writes: o.writes, Bytes: o.bytes, Waiting: o.waiting, Coalesced: o.coalesced, Rejected: o.rejected, Waited: o.waited}
	for _, e := range o.line {
		if _, acknowledged := e.(*segment[K, T]); acknowledged {
			s.Oldest = e.since()
			break
		}
	}
	return s
}

package server

import (
	"container/heap"
	"sync"
	"time"
)

// alarms call ring at times, with a single timer for all of them.
type alarms struct {
	ring func(*alarm)

	mu    sync.Mutex
	queue alarmQueue
	timer *time.Timer
	over  bool
}

// alarm is one of them. Its place in the queue is alarms' own.
type alarm struct {
	key   string
	at    time.Time
	place int // -1: it is not waited for
}

type alarmQueue []*alarm

func (q alarmQueue) Len() int           { return len(q) }
func (q alarmQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q alarmQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *alarmQueue) Push(a any) {
	a.(*alarm).place = len(*q)
	*q = append(*q, a.(*alarm))
}

func (q *alarmQueue) Pop() any {
	last := len(*q) - 1
	a := (*q)[last]
	(*q)[last] = nil
	*q, a.place = (*q)[:last], -1
	return a
}

// set has ring be called at a time, or soon after it.
func (a *alarms) set(key string, at time.Time) *alarm {
	next := &alarm{key: key, at: at, place: -1}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return next
	}
	heap.Push(&a.queue, next)
	if next.place == 0 {
		a.wakeLocked()
	}
	return next
}

// cancel is for one that may have been rung, or is nil.
func (a *alarms) cancel(it *alarm) {
	if it == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if it.place >= 0 {
		heap.Remove(&a.queue, it.place)
	}
}

// wakeLocked sets the timer for the first. One that was cancelled leaves it: it wakes for
// nothing, once.
func (a *alarms) wakeLocked() {
	in := max(time.Until(a.queue[0].at), 0)
	if a.timer == nil {
		a.timer = time.AfterFunc(in, a.wake)
	} else {
		a.timer.Reset(in)
	}
}

// wake rings without the lock, for ring sets and cancels.
func (a *alarms) wake() {
	for {
		a.mu.Lock()
		if a.over || len(a.queue) == 0 {
			a.mu.Unlock()
			return
		}
		if time.Now().Before(a.queue[0].at) {
			a.wakeLocked()
			a.mu.Unlock()
			return
		}
		due := heap.Pop(&a.queue).(*alarm)
		a.mu.Unlock()
		a.ring(due)
	}
}

func (a *alarms) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over, a.queue = true, nil
	if a.timer != nil {
		a.timer.Stop()
	}
}

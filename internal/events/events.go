// Package events tells a program's hooks what has happened.
package events

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
)

// Max is how many events wait at most; further ones are dropped.
const Max = 65_536

// Queue runs hooks in order, off the goroutines that have something to report. Its
// own goroutine lives while there is something to run.
type Queue struct {
	logger *slog.Logger

	mu      sync.Mutex
	waiting []func() // guarded by mu, as what follows
	running bool
	dropped uint64
	idle    *sync.Cond
}

// New returns an empty queue. Panics in hooks go to the logger.
func New(logger *slog.Logger) *Queue {
	q := &Queue{logger: logger}
	q.idle = sync.NewCond(&q.mu)
	return q
}

// Push takes an event. It may be called with other locks held.
func (q *Queue) Push(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= Max {
		q.dropped++
		return
	}
	q.waiting = append(q.waiting, f)
	if !q.running {
		q.running = true
		go q.run(nil)
	}
}

func (q *Queue) run(batch []func()) {
	idle := false
	defer func() {
		if !idle {
			// A hook is ending the goroutine. The events behind it need another.
			go q.run(batch)
		}
	}()
	for {
		for len(batch) > 0 {
			f := batch[0]
			batch = batch[1:]
			Protect(q.logger, f)
		}
		q.mu.Lock()
		batch, q.waiting = q.waiting, nil
		if idle = len(batch) == 0; idle {
			q.running = false
			q.idle.Broadcast()
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
	}
}

// Drain waits until every event that was pushed has run, which it says, or ctx ends.
func (q *Queue) Drain(ctx context.Context) bool {
	stop := context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.idle.Broadcast()
	})
	defer stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.running {
		if ctx.Err() != nil {
			return false
		}
		q.idle.Wait()
	}
	return true
}

// Dropped is how many events were not taken.
func (q *Queue) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// Protect runs a function of the program's, whose panic is not a reason to lose a
// write.
func Protect(logger *slog.Logger, f func()) {
	defer func() {
		if p := recover(); p != nil {
			logger.Error("lockstep: panic in a function of the program's", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	f()
}

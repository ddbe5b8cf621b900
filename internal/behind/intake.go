package behind

import (
	"errors"
	"time"
)

// Writes are taken in, in order, under one lock: there it is decided which of them is to
// be acknowledged and which waits. Without a log they then stand in the line at once. With
// one, the records of those to be acknowledged have to be durable before anybody sees
// them, and the line has to keep the order all the same: what was taken in goes through
// the log as it came, the waiting writes among it, which leave no record there.
//
// Whoever finds nobody at the log is: for all that have come by then, with one call. When
// that returns, those are done, and the first of those that have come meanwhile is next. A
// goroutine of its own would do as well, and cost two hand-overs where there is one
// writer.

// intake is the state of a write on its way into the line.
type intake struct {
	waits bool
	err   error
	// ready is closed when the write is in the line, or when it is its turn at the log.
	ready chan struct{}
	done  bool
}

// Submit puts the write at the end of the line. It is acknowledged when Submit returns
// false, and may be seen from a moment before that on; otherwise it waits. The error is
// ErrFull, ErrClosed, or the log's.
func (o *Order[K, T]) Submit(w *Write[K, T]) (waits bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return false, ErrClosed
	case !w.All && !o.doubtful && o.roomLocked(w) && !o.overtakesLocked(w):
		o.reserveLocked(w, 1)
	case o.waiting >= o.config.MaxWaiting:
		return false, ErrFull
	default:
		w.waits = true
		o.countWaitingLocked(w, 1)
	}
	if o.config.Log == nil {
		o.placeLocked(w)
		return w.waits, nil
	}
	o.incoming = append(o.incoming, w)
	if o.logging {
		w.ready = make(chan struct{})
		o.mu.Unlock()
		<-w.ready
		o.mu.Lock()
		if w.done {
			return w.waits, w.err
		}
	}
	o.logging = true
	o.logLocked()
	if o.logging = len(o.incoming) > 0; o.logging {
		close(o.incoming[0].ready)
	}
	o.checkIdleLocked()
	return w.waits, w.err
}

// logLocked takes all that is incoming through the log into the line. The lock is not
// held meanwhile.
func (o *Order[K, T]) logLocked() {
	batch := o.incoming
	o.incoming = nil
	if !o.doubtful {
		var records []Logged
		number := o.number
		for _, w := range batch {
			if !w.waits {
				number++
				w.Number = number
				records = append(records, Logged{Number: number, Record: w.Record})
			}
		}
		if len(records) > 0 {
			o.mu.Unlock()
			err := o.config.Log(records)
			o.mu.Lock()
			if err != nil {
				o.unloggedLocked(batch, err, number)
			}
		}
	}
	for _, w := range batch {
		if w.err == nil {
			if o.doubtful && !w.waits {
				o.goThroughLocked(w)
			}
			if w.err == nil {
				o.placeLocked(w)
			}
		}
		w.done = true
		if w.ready != nil {
			select {
			case <-w.ready: // it is the one at the log
			default:
				close(w.ready)
			}
		}
	}
}

// unloggedLocked ends the writes that the log has not taken.
func (o *Order[K, T]) unloggedLocked(batch []*Write[K, T], err error, last uint64) {
	for _, w := range batch {
		if !w.waits {
			w.err = err
			o.reserveLocked(w, -1)
		}
	}
	if errors.Is(err, ErrDoubtful) {
		// What waits stands behind it: a record of the log would, after a crash, undo what
		// had gone through since.
		o.doubtful, o.number = true, last
		o.line = append(o.line, renewal{began: time.Now(), number: last})
		o.wakeUp()
	}
}

// goThroughLocked has a write wait that was to be acknowledged, while there is no log.
func (o *Order[K, T]) goThroughLocked(w *Write[K, T]) {
	o.reserveLocked(w, -1)
	if o.waiting >= o.config.MaxWaiting {
		w.err = ErrFull
		return
	}
	w.waits = true
	o.countWaitingLocked(w, 1)
}

// placeLocked puts the write in the line.
func (o *Order[K, T]) placeLocked(w *Write[K, T]) {
	switch {
	case w.waits && o.stopped:
		w.err = ErrClosed
		o.countWaitingLocked(w, -1)
	case w.waits:
		o.waitLocked(w, time.Now())
	case o.config.Log == nil:
		w.Number = o.number + 1
		fallthrough
	default:
		o.enterLocked(w, time.Now())
	}
}

// Recover acknowledges a write that the log has kept, under its number, which is higher
// than the last. It may exceed the bounds.
func (o *Order[K, T]) Recover(w *Write[K, T]) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reserveLocked(w, 1)
	o.enterLocked(w, time.Now())
}

func (o *Order[K, T]) reserveLocked(w *Write[K, T], by int) {
	o.writes += by * len(w.Items)
	for i := range w.Items {
		o.bytes += int64(by * w.Items[i].Bytes)
	}
}

func (o *Order[K, T]) countWaitingLocked(w *Write[K, T], by int) {
	o.waiting += by
	o.registerLocked(w, by)
}

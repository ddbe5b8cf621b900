package server

import (
	"context"
	"errors"
	"slices"

	"github.com/lockstep-cache/lockstep"
)

// writing is a write under way, as a context, so that whatever it calls finds it.
type writing struct {
	context.Context
	tracking *tracking
	conn     *conn // whose it is, or nil

	keys    []string            // those that are busy because of it
	index   map[string]struct{} // the same, where they are many
	first   [1]string           // place for the one that most writes have
	all     bool                // all are
	failed  bool
	cmd     *command // whose changes are noted, where noting
	noting  bool
	changes []keyChange
	unknown []error // outcomes
	own     []invalidation
}

type writingKey struct{}

func (w *writing) Value(key any) any {
	if key == (writingKey{}) {
		return w
	}
	return w.Context.Value(key)
}

// writingOf returns the write that a context is part of, or nil.
func writingOf(ctx context.Context) *writing {
	w, _ := ctx.Value(writingKey{}).(*writing)
	return w
}

// begin says that a key is about to be written.
func (w *writing) begin(key string) {
	if w.has(key) {
		return
	}
	w.tracking.begin(key, w)
	if w.keys == nil {
		w.keys = w.first[:0]
	}
	w.keys = append(w.keys, key)
	switch {
	case w.index != nil:
		w.index[key] = struct{}{}
	case len(w.keys) == 16:
		w.index = make(map[string]struct{}, 64)
		for _, key := range w.keys {
			w.index[key] = struct{}{}
		}
	}
}

func (w *writing) has(key string) bool {
	if w.index != nil {
		_, has := w.index[key]
		return has
	}
	return slices.Contains(w.keys, key)
}

func (w *writing) beginAll() {
	if !w.all {
		w.tracking.beginAll(w)
		w.all = true
	}
}

// fail is told what the writer is answered with, if it is an error.
func (w *writing) fail(err error) {
	w.failed = true
	if errors.Is(err, lockstep.ErrUnknownOutcome) {
		w.unknown = append(w.unknown, err)
	}
}

// run makes the write.
func (w *writing) run(f func() error) error {
	defer w.finish()
	err := f()
	if err != nil {
		w.fail(err)
	}
	return err
}

// finish is for a write that the cache has answered. Keys whose outcome is unknown stay
// busy until that is settled.
func (w *writing) finish() {
	t := w.tracking
	if w.failed && w.conn != nil {
		w.contradict()
	}
	if len(w.unknown) == 0 {
		w.end(false)
		if !w.failed {
			t.server.tellChanges(w.changes)
		}
		return
	}
	for _, key := range w.keys {
		t.doubt(key)
	}
	keep := &writing{tracking: t, keys: w.keys, all: w.all, unknown: w.unknown, changes: w.changes}
	t.outlast(func() {
		applied := true
		for _, err := range keep.unknown {
			if lost, ok := errors.AsType[*lockstep.WriteError](err); ok {
				done, _, err := lost.Wait(t.server.life)
				applied = applied && done && err == nil
			}
		}
		keep.end(true) // whichever way it was settled: copies may be of before or after
		if applied {
			t.server.tellChanges(keep.changes)
		}
	})
}

func (w *writing) end(doubted bool) {
	for _, key := range w.keys {
		w.tracking.end(key)
	}
	if w.all {
		w.tracking.endAll(doubted)
	}
}

// contradict tells a writer who does not want to hear of his own writes (NOLOOP) of one that
// was not plainly done: what he has kept of it may be wrong.
func (w *writing) contradict() { w.tellWriter(w.keys) }

// reread is for the keys that an EXEC has read: those that it has written, too, are told to
// its connection though that does not want to hear of them (NOLOOP). Its copies are of what it
// has written, which took it off, and nobody would tell it what the next one writes.
func (w *writing) reread(keys []string) {
	w.tellWriter(slices.DeleteFunc(keys, func(key string) bool { return !w.has(key) }))
}

// tellWriter tells the writer where it does not hear of its writes otherwise.
func (w *writing) tellWriter(keys []string) {
	o := &w.conn.out
	o.mu.Lock()
	m := o.mode
	o.mu.Unlock()
	if !m.on || !m.noLoop {
		return
	}
	for _, key := range keys {
		if id := m.redirectsTo(w.conn); id != 0 {
			w.tracking.redirect(w.conn, id, invalidation{key: key}, w)
		} else {
			w.own = append(w.own, invalidation{key: key})
		}
	}
}

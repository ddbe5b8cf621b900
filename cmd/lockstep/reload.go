package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// watched is files that are read again together when one of them changes.
type watched struct {
	what    string
	paths   []string
	longest int64
	// load takes what they hold. After an error everything is as before.
	load func(texts [][]byte) error
}

// lookEvery is how often files are looked at. They are read and compared: the time of a
// file says nothing where a link is turned, and notifications are another thing on each
// system and silent on some.
const lookEvery = 2 * time.Second

// reloads reads files again when they change.
type reloads struct {
	logger *slog.Logger
	all    []watched
	last   [][][]byte // what each held when it was loaded last, or nil
	failed []string   // the error that was logged last
}

func newReloads(logger *slog.Logger, all []watched) *reloads {
	return &reloads{logger, all, make([][][]byte, len(all)), make([]string, len(all))}
}

// start looks now, since they may have changed after they were read first, every now and
// then and at a hangup, until ctx ends. The function that it returns waits for the end.
func (r *reloads) start(ctx context.Context, hangup <-chan os.Signal) (wait func()) {
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		r.look(false)
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				r.look(false)
			case <-hangup:
				if len(r.all) == 0 {
					r.logger.Info("lockstep: SIGHUP, and there are no files that could be read again")
				}
				r.look(true)
			}
		}
	})
	return running.Wait
}

// look loads what has changed, or where it is asked, everything.
func (r *reloads) look(asked bool) {
	for i, w := range r.all {
		texts, err := w.read()
		if err == nil && !asked && slices.EqualFunc(texts, r.last[i], bytes.Equal) {
			continue
		}
		first := r.last[i] == nil
		if err == nil {
			r.last[i] = texts
			err = w.load(texts)
		}
		switch {
		case err == nil:
			if r.failed[i] = ""; !first {
				r.logger.Info("lockstep: read again", "what", w.what, "files", w.paths)
			}
		case asked || err.Error() != r.failed[i]:
			r.failed[i] = err.Error()
			r.logger.Error("lockstep: what was read again is wrong, and what was there before stays", "what", w.what, "error", err)
		}
	}
}

func (w watched) read() (texts [][]byte, err error) {
	for _, path := range w.paths {
		text, err := readFile(path, w.longest)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

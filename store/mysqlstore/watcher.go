package mysqlstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
)

const (
	defaultWatchInterval = 100 * time.Millisecond
	// watchTimeout is how long the server may take to go on answering a watcher. A
	// connection that has gone dead without a word leaves a memory that is out of date
	// for no longer than that.
	watchTimeout = 10 * time.Second
	// watchPrint is how often a watcher looks whether the triggers are as they were.
	watchPrint = time.Second
	// watchChunk is how many changes the cache is told at once.
	watchChunk = 512
)

// watcher is one call of Capabilities.Watch: a session of its own, which reads the
// change log for one table.
type watcher[K comparable] struct {
	db  *Database
	log *changeLog
	key func(text []byte) (k K, ok bool)
	f   func(lockstep.Event[K])
	// skip is the writer whose changes are not told: the store itself; nobody if empty.
	skip     string
	versions bool // those of the log are the store's
	// check says what else keeps the table from being watched.
	check func(ctx context.Context, s *session) error

	s *session
	// last is the highest number that was seen, and gaps are those below that were not.
	last int64
	gaps gaps
	// print is what the table and its triggers were like when the watch began, and
	// printed is when that was last looked at.
	print   string
	printed time.Time
}

var (
	errSilent      = errors.New("the server has not answered in time")
	errOutrun      = errors.New("changes that were not read yet have been removed")
	errCrowded     = errors.New("too many changes are not committed yet")
	errAltered     = errors.New("the table, its triggers or the log of changes were changed")
	errOtherServer = errors.New("a session has met another server than the watcher's")
)

func (w *watcher[K]) watch(ctx context.Context) (err error) {
	if err := w.db.closed(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	release, err := w.db.enterWatch(ctx)
	if err != nil {
		return err
	}
	defer release()
	defer context.AfterFunc(w.db.ctx, func() { cancel(lockstep.ErrClosed) })()
	if w.s, err = w.db.open(ctx); err == nil {
		defer w.s.close()
		same, changed := w.db.which.Watch(w.s.server)
		if !same {
			cancel(errOtherServer)
		}
		var waits sync.WaitGroup
		waits.Go(func() {
			select {
			case <-changed:
				cancel(errOtherServer)
			case <-ctx.Done():
			}
		})
		defer waits.Wait()
		defer cancel(nil)
		err = w.run(ctx)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if isNamed(err) || errors.Is(err, context.Canceled) {
		return err
	}
	return unavailable("watching table %s.%s: %w", w.log.schema, w.log.table, err)
}

func (w *watcher[K]) run(ctx context.Context) error {
	if err := w.answered(ctx, w.begin); err != nil {
		return err
	}
	w.f(lockstep.Event[K]{})
	for {
		if err := sleep(ctx, w.db.opts.WatchInterval); err != nil {
			return err
		}
		if err := w.answered(ctx, w.look); err != nil {
			return err
		}
	}
}

// answered runs what the server has to go on answering; alive says that it has.
func (w *watcher[K]) answered(ctx context.Context, f func(ctx context.Context, alive func()) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(w.db.silence, func() { cancel(errSilent) })
	defer timer.Stop()
	err := f(ctx, func() { timer.Reset(w.db.silence) })
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return err
}

package sqlitestore

import (
	"context"
	"errors"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
)

// acquire waits for the write lock of this process, unless ctx is hasty.
func (db *Database) acquire(ctx context.Context) (*conn, error) {
	select {
	case <-db.closing:
		return nil, lockstep.ErrClosed
	default:
	}
	if lockstep.Hasty(ctx) {
		select {
		case c := <-db.writer:
			if c != nil {
				return c, nil
			}
			db.writer <- nil
		default:
		}
		return nil, lockstep.ErrWouldWait
	}
	select {
	case c := <-db.writer:
		if c != nil {
			return c, nil
		}
		c, err := db.openWriter(ctx)
		if err != nil {
			db.writer <- nil
			return nil, unavailable("the connection could not be opened again: %w", err)
		}
		return c, nil
	case <-db.closing:
		return nil, lockstep.ErrClosed
	case <-ctx.Done():
		return nil, gaveUp(ctx, "waiting for the write lock")
	}
}

// release gives the write lock back. A connection whose state cannot be trusted
// is given up: closing it ends whatever it had begun.
func (db *Database) release(c *conn, sound bool) {
	if !sound {
		c.close()
		c = nil
	}
	db.writer <- c
}

// read lends a reading connection to f. It may run f again, when another process
// has the file locked for the moment: f starts from nothing each time.
func (db *Database) read(ctx context.Context, f func(c *conn) error) error {
	select {
	case <-db.closing:
		return lockstep.ErrClosed
	default:
	}
	if ctx.Err() != nil {
		return gaveUp(ctx, "reading")
	}
	var c *conn
	select {
	case c = <-db.readers:
	case <-db.closing:
		return lockstep.ErrClosed
	case <-ctx.Done():
		return gaveUp(ctx, "waiting for a connection to read")
	}
	returned := false
	defer func() {
		if !returned { // f has panicked, in code that is not ours
			if c != nil {
				c.close()
			}
			db.readers <- nil
		}
	}()
	err := retryBusy(ctx, db.closing, func() (err error) {
		if c == nil {
			if c, err = db.openReader(); err != nil {
				return err
			}
		}
		return f(c)
	})
	// A failed reader costs one new connection; a connection left in the middle of
	// a read would pin the log for ever.
	if err != nil && c != nil && !errors.Is(err, keytext.ErrDecode) {
		c.close()
		c = nil
	}
	returned = true
	db.readers <- c
	return err
}

// retryBusy runs f again while another process holds a lock that it needs, until
// ctx ends, or not at all where ctx is hasty. The pauses double from 0.2 ms to 20 ms.
func retryBusy(ctx context.Context, closing <-chan struct{}, f func() error) error {
	var timer *time.Timer
	for pause := 200 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := f()
		if err == nil || !isBusy(err) {
			return err
		}
		if lockstep.Hasty(ctx) {
			return lockstep.ErrWouldWait
		}
		if timer == nil {
			timer = time.NewTimer(pause)
			defer timer.Stop()
		} else {
			timer.Reset(pause)
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return unavailable("%w (%w)", err, context.Cause(ctx))
		case <-closing:
			return lockstep.ErrClosed
		}
	}
}

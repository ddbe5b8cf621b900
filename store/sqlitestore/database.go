package sqlitestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// DatabaseOptions are the options of OpenDatabase. The zero value is sound.
type DatabaseOptions struct {
	// Readers is the number of connections that serve Load and Scan, each opened
	// when it is first needed, at most 1024. 0 stands for twice the processors, at
	// least 4.
	Readers int
	// AllowUnsafeDurability opens the database with synchronous=NORMAL: commits
	// do not wait for the disk. They survive the end of the process, but a power
	// failure may undo the latest of them, acknowledged ones included.
	AllowUnsafeDurability bool
	// CheckpointBytes is how far the write-ahead log grows before it is copied
	// into the database file, in the background. 0 stands for 16 MiB.
	CheckpointBytes int64
	// PageSize is what a file that is made has for its pages, in bytes: a power of two
	// from 512 to 65536. A file that is there keeps its own. A commit writes each page that
	// it touches as a whole, so that small rows of random keys are written quicker in
	// small pages, and rows of several kilobytes slower. 0 stands for SQLite's own, 4096.
	PageSize int
}

// Database is one SQLite file: a connection that writes, several that read, and
// one goroutine that copies the log into the file and removes what is over. Any
// number of stores share it; their transactions are one transaction. Its methods
// may be called from many goroutines at once.
type Database struct {
	path string
	opts DatabaseOptions
	file os.FileInfo // what the path led to when it was opened

	// writer holds the connection that writes; whoever has received it holds the
	// write lock among this process's writers. A nil in it stands for a connection
	// that was given up, and is replaced by the next who needs it. SQLite has one
	// writer at a time: several connections would only wait for each other inside
	// its busy handler, which is neither fair nor bounded by a context.
	writer chan *conn
	// readers holds the reading connections that are not in use, nil for one that
	// has not been opened.
	readers chan *conn

	// cached has the tables, in lower case, whose rows a cache may hold; see
	// cacheable. The write lock guards it.
	cached map[string][]int

	clocks sync.Map // table, in lower case, to *clock

	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error

	keeper keeper
}

// OpenDatabase opens the database file at path, or makes it. The directory must
// exist. It takes a few milliseconds, and returns an error that is ErrInvalid
// when the file is not a database, cannot be written, or cannot be made as
// durable as was asked; ErrUnavailable when another process has it locked until
// ctx ends.
func OpenDatabase(ctx context.Context, path string, opts DatabaseOptions) (*Database, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // before a file is made
		return nil, gaveUp(ctx, "opening "+path)
	}
	// The path is made absolute so that a later change of directory does not send
	// the connections that are opened then to another file.
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, invalid("%s: %w", path, err)
	}
	db := &Database{
		path:    abs,
		opts:    opts,
		writer:  make(chan *conn, 1),
		readers: make(chan *conn, opts.readers()),
		cached:  map[string][]int{},
		closing: make(chan struct{}),
	}
	w, err := db.openWriter(ctx)
	if err != nil {
		return nil, err
	}
	if db.file, err = os.Stat(abs); err != nil {
		w.close()
		return nil, unavailable("%w", err)
	}
	// The first reader makes sure that a second connection can join, which is
	// where a file system without shared memory fails.
	r, err := db.openReader()
	if err != nil {
		w.close()
		return nil, openError(abs, err)
	}
	if err := db.keeper.start(db); err != nil {
		r.close()
		w.close()
		return nil, openError(abs, err)
	}
	db.writer <- w
	db.readers <- r
	for range cap(db.readers) - 1 {
		db.readers <- nil
	}
	return db, nil
}

const maxReaders = 1024

func (o DatabaseOptions) check() error {
	if o.Readers < 0 || o.Readers > maxReaders {
		return invalid("DatabaseOptions.Readers is %d, and must be from 0 to %d", o.Readers, maxReaders)
	}
	if o.CheckpointBytes < 0 {
		return invalid("DatabaseOptions.CheckpointBytes is %d", o.CheckpointBytes)
	}
	if o.PageSize != 0 && !isPageSize(o.PageSize) {
		return invalid("DatabaseOptions.PageSize is %d, and must be a power of two from 512 to 65536", o.PageSize)
	}
	return nil
}

func isPageSize(n int) bool { return n >= 512 && n <= 65536 && n&(n-1) == 0 }

func (o DatabaseOptions) pageSize() int { return cmp.Or(o.PageSize, 4096) }

func (o DatabaseOptions) readers() int {
	if o.Readers > 0 {
		return o.Readers
	}
	return max(4, 2*runtime.GOMAXPROCS(0))
}

func (o DatabaseOptions) checkpointBytes() int64 {
	if o.CheckpointBytes > 0 {
		return o.CheckpointBytes
	}
	return 16 << 20
}

// Path returns the absolute path of the file.
func (db *Database) Path() string { return db.path }

// Close waits for the commits and transactions under way, stops the background work and closes
// the connections, the last of which copies the log into the file. Everything
// afterwards is ErrClosed. Closing again does nothing.
func (db *Database) Close() error {
	db.closeOnce.Do(func() {
		close(db.closing)
		db.keeper.wait()
		var errs []error
		for range cap(db.readers) {
			if c := <-db.readers; c != nil {
				errs = append(errs, c.close())
			}
		}
		if c := <-db.writer; c != nil {
			errs = append(errs, c.close())
		}
		errs = append(errs, db.keeper.conn.close())
		if err := errors.Join(errs...); err != nil {
			db.closeErr = fmt.Errorf("sqlite: %s: %w", db.path, err)
		}
	})
	return db.closeErr
}

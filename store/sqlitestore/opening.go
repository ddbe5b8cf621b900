package sqlitestore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	lib "modernc.org/sqlite/lib"

	"github.com/lockstep-cache/lockstep"
)

// checkPath gives the plain reasons why a file cannot be opened, which SQLite
// sums up as "unable to open database file". It must not open the file: closing
// any descriptor of it drops every POSIX lock that this process holds on it.
func checkPath(path string) error {
	switch {
	case path == "":
		return invalid("the path is empty")
	case path == ":memory:":
		return invalid("a database in memory is not durable, and its connections do not share it; use memstore")
	case strings.ContainsRune(path, 0):
		return invalid("the path %q has a NUL in it", path)
	}
	switch st, err := os.Stat(path); {
	case err == nil && st.IsDir():
		return invalid("%s is a directory", path)
	case err == nil && !st.Mode().IsRegular():
		return invalid("%s is not a regular file", path)
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return invalid("%w", err)
	}
	dir := filepath.Dir(path)
	switch st, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return invalid("the directory %s does not exist", dir)
	case err != nil:
		return invalid("%w", err)
	case !st.IsDir():
		return invalid("%s is not a directory", dir)
	}
	return nil
}

func openError(path string, err error) error {
	switch primary(err) {
	case lib.SQLITE_NOTADB:
		return invalid("%s is not an SQLite database: %w", path, err)
	case lib.SQLITE_CORRUPT:
		return invalid("%s is damaged: %w", path, err)
	case lib.SQLITE_READONLY, lib.SQLITE_PERM, lib.SQLITE_CANTOPEN, lib.SQLITE_AUTH:
		return invalid("%s cannot be opened for writing: %w", path, err)
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_FULL, lib.SQLITE_IOERR, lib.SQLITE_NOMEM:
		return unavailable("%s: %w", path, err)
	}
	for _, named := range []error{lockstep.ErrInvalid, lockstep.ErrUnavailable, lockstep.ErrClosed} {
		if errors.Is(err, named) {
			return err
		}
	}
	return invalid("%s: %w", path, err)
}

// connect opens a connection to the file, which only the first may make.
func (db *Database) connect(pragmas ...string) (*conn, error) {
	mode := "rw"
	if db.file == nil {
		mode = "rwc"
	}
	c, err := connect(db.path, mode, pragmas...)
	if same := db.sameFile(); same != nil {
		if err == nil {
			c.close()
		}
		return nil, same
	}
	return c, err
}

// sameFile fails when the path no longer leads to the file that was opened. The
// connections would go on with a file that nobody can find any more, and new ones
// would open another. It costs a microsecond.
func (db *Database) sameFile() error {
	if db.file == nil {
		return nil
	}
	switch st, err := os.Stat(db.path); {
	case err != nil:
		return unavailable("the file that was opened is not there any more: %w", err)
	case !os.SameFile(st, db.file):
		return unavailable("%s is not the file any more that was opened; the database must be closed and opened again", db.path)
	}
	return nil
}

// openWriter opens the connection that writes, and makes sure of what the
// promise rests on. What it asks for it reads back: SQLite answers a pragma that
// it cannot follow with silence.
func (db *Database) openWriter(ctx context.Context) (*conn, error) {
	synchronous, level := "synchronous=FULL", int64(2)
	if db.opts.AllowUnsafeDurability {
		synchronous, level = "synchronous=NORMAL", 1
	}
	var c *conn
	err := retryBusy(ctx, db.closing, func() (err error) {
		c, err = db.connect(
			"busy_timeout=0", // waiting is done in Go, where a context can end it
			"page_size="+strconv.Itoa(db.opts.pageSize()), // of a file that is empty
			"journal_mode=WAL",
			synchronous,
			"fullfsync=1", // on macOS fsync alone leaves the drive's cache alone
			"checkpoint_fullfsync=1",
			"wal_autocheckpoint=0", // the keeper's work, off the commit path
			"journal_size_limit=67108864",
			"foreign_keys=1",
			"cache_size=-65536",
			"temp_store=MEMORY",
		)
		return err
	})
	if err != nil {
		return nil, openError(db.path, err)
	}
	if err := db.checkWriter(c, level); err != nil {
		c.close()
		return nil, openError(db.path, err)
	}
	return c, nil
}

func (db *Database) checkWriter(c *conn, synchronous int64) error {
	if ro, err := c.raw.(interface{ IsReadOnly(string) (bool, error) }).IsReadOnly("main"); err != nil {
		return err
	} else if ro {
		return invalid("%s is read-only", db.path)
	}
	mode, err := c.value("PRAGMA journal_mode")
	if err != nil {
		return err
	}
	if mode != "wal" {
		return invalid("%s: journal_mode is %v and cannot be made wal; the file system may lack shared memory", db.path, mode)
	}
	if got, err := c.integer("PRAGMA synchronous"); err != nil {
		return err
	} else if got < synchronous {
		return invalid("%s: synchronous is %d, and %d is needed for durable commits", db.path, got, synchronous)
	}
	// UTF-16 would change strings that are not valid UTF-8, and with them keys.
	encoding, err := c.value("PRAGMA encoding")
	if err != nil {
		return err
	}
	if encoding != "UTF-8" {
		return invalid("%s: its encoding is %v; only UTF-8 keeps every Go string as it is", db.path, encoding)
	}
	return nil
}

func (db *Database) openReader() (*conn, error) {
	return db.connect("busy_timeout=0", "query_only=1", "cache_size=-8192", "temp_store=MEMORY")
}

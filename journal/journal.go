package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
)

// DefaultFileBytes is when a new file begins.
const DefaultFileBytes = 16 << 20

// Options are the settings of Open. Positions has to be set.
type Options[K comparable, V any] struct {
	// Positions is a table of the database that the cache's rows are in, for the positions
	// of journals, and for nothing else: a store over the same database handle, which keeps
	// versions.
	Positions lockstep.Store[string, int64]
	// Keys and Values encode what is kept; nil is JSON. They have to keep whatever the
	// cache's store keeps. A journal is opened with those it was made with.
	Keys   codec.Codec[K]
	Values codec.Codec[V]
	// FileBytes is the size from which on a file is not appended to any more; it is removed
	// when the database has all of it. Zero means DefaultFileBytes.
	FileBytes int64
	// Logger takes what nobody is there to be told. Nil means slog.Default().
	Logger *slog.Logger
}

// Errors of Open.
var (
	// ErrForeign says that the database is not the one that the journal belongs to, or is an
	// older copy of it.
	ErrForeign = errors.New("journal: the database is another one, or an older copy")
	errLocked  = fmt.Errorf("%w: the directory is in use", lockstep.ErrUnavailable)
)

// DamageError says that a file of a journal is not as it was written. Nothing was
// changed.
type DamageError struct {
	File string
	Byte int64
	What string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("journal: %s, byte %d: %s", e.File, e.Byte, e.What)
}

// Report is what Open has found.
type Report struct {
	// Records are those that the database has not, and that the cache will make.
	Records int
	// CutOff is how many bytes of File were not a whole record and are cut away, from At
	// on; most often 0. What was written there was not acknowledged.
	CutOff, At int64
	File       string
}

// Journal is a lockstep.Journal in files. It is for one cache; Close it after the cache.
type Journal[K comparable, V any] struct {
	dir      string
	options  Options[K, V]
	changes  changes[K, V]
	disk     disk
	lock     *os.File
	position *position
	report   Report

	mu sync.Mutex
	// All that follows is guarded by mu.
	begun    bool
	found    []lockstep.JournalRecord[K, V]
	files    []segment // in order; the last is appended to
	current  file      // nil where the next append begins a file
	size     int64     // of current
	last     uint64    // the number of the last record
	doubtful bool
	closed   bool
}

// segment is a file of the journal.
type segment struct {
	path  string
	first uint64
}

var _ lockstep.Journal[int, int] = (*Journal[int, int])(nil)

// Open opens the journal in the directory, and makes both where there are none. It reads
// what the journal holds, and asks the database how far it has come; it then holds the
// journal's position against programs that used it before. The errors are a *DamageError,
// ErrForeign, lockstep.ErrInvalid and ErrUnsupported for the options, and
// lockstep.ErrUnavailable where somebody else has the directory open, or the database is
// away.
func Open[K comparable, V any](ctx context.Context, dir string, options Options[K, V]) (*Journal[K, V], error) {
	return open(ctx, dir, options, osDisk{})
}

func open[K comparable, V any](ctx context.Context, dir string, options Options[K, V], d disk) (j *Journal[K, V], err error) {
	if options.FileBytes < 0 {
		return nil, fmt.Errorf("journal: %w option: FileBytes is negative", lockstep.ErrInvalid)
	}
	options.FileBytes = cmp.Or(options.FileBytes, DefaultFileBytes)
	if options.Keys == nil {
		options.Keys = codec.JSON[K]()
	}
	if options.Values == nil {
		options.Values = codec.JSON[V]()
	}
	options.Logger = cmp.Or(options.Logger, slog.Default())
	j = &Journal[K, V]{dir: dir, options: options, changes: changes[K, V]{options.Keys, options.Values}, disk: d}
	if j.position, err = newPosition(options.Positions); err != nil {
		return nil, err
	}
	if err := makeDir(dir, syncDir); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if j.lock, err = lock(filepath.Join(dir, "lock")); err != nil {
		return nil, fmt.Errorf("journal: %s: %w", dir, err)
	}
	if err := j.recover(ctx); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// Report tells what Open has found.
func (j *Journal[K, V]) Report() Report { return j.report }

// Begin implements lockstep.Journal.
func (j *Journal[K, V]) Begin() (last uint64, records []lockstep.JournalRecord[K, V], err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return 0, nil, lockstep.ErrClosed
	case j.begun:
		return 0, nil, fmt.Errorf("journal: %w: %s is another cache's, or was; open it anew", lockstep.ErrInvalid, j.dir)
	}
	j.begun = true
	records, j.found = j.found, nil
	return j.last, records, nil
}

// Encode implements lockstep.Journal.
func (j *Journal[K, V]) Encode(list []lockstep.Change[K, V]) ([]byte, error) {
	return j.changes.encode(list)
}

// Database implements lockstep.Journal.
func (j *Journal[K, V]) Database() any { return j.position.caps.Database }

// Append implements lockstep.Journal. It costs one write and one fsync.
func (j *Journal[K, V]) Append(records []lockstep.JournalEntry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return lockstep.ErrClosed
	case j.doubtful:
		return j.unavailable(errors.New("it has to be renewed"))
	}
	var frames []byte
	for i, r := range records {
		if r.Number != j.last+uint64(i)+1 {
			return fmt.Errorf("journal: %w: record %d after %d", lockstep.ErrInvalid, r.Number, j.last)
		}
		frames = appendFrame(frames, r.Number, r.Data)
	}
	if j.current != nil && j.size >= j.options.FileBytes {
		err := j.current.Close()
		if j.current = nil; err != nil {
			j.options.Logger.Warn("journal: a file that is complete could not be closed", "error", err)
		}
	}
	if j.current == nil {
		if err := j.beginFile(j.last + 1); err != nil {
			return j.unavailable(err)
		}
	}
	if _, err := j.current.Write(frames); err != nil {
		return j.cutBack(err)
	}
	if err := j.current.Sync(); err != nil {
		// What it has not written it may have dropped from memory, and a second try would not
		// notice.
		j.doubtful = true
		return fmt.Errorf("journal: %w: %s could not be synced: %w", lockstep.ErrUnknownOutcome, j.dir, err)
	}
	j.size += int64(len(frames))
	j.last += uint64(len(records))
	return nil
}

// cutBack removes what a write that failed may have left.
func (j *Journal[K, V]) cutBack(why error) error {
	err := j.current.Truncate(j.size)
	if err == nil {
		err = j.current.Sync()
	}
	if err != nil {
		j.doubtful = true
		return fmt.Errorf("journal: %w: %s could not be written, nor be cut back to where it was (%v): %w", lockstep.ErrUnknownOutcome, j.dir, err, why)
	}
	return j.unavailable(why)
}

func (j *Journal[K, V]) unavailable(err error) error {
	return fmt.Errorf("journal: %w: %s: %w", lockstep.ErrUnavailable, j.dir, err)
}

// Mark implements lockstep.Journal.
func (j *Journal[K, V]) Mark(ctx context.Context, txn lockstep.Txn, number uint64) error {
	return j.position.mark(ctx, txn, number)
}

// Marked implements lockstep.Journal. It removes files that are over.
func (j *Journal[K, V]) Marked(number uint64) {
	j.position.marked(number)
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed { // the directory may be another program's by now
		j.removeOver(number)
	}
}

// Position implements lockstep.Journal.
func (j *Journal[K, V]) Position(ctx context.Context) (uint64, error) {
	value, _, err := j.position.load(ctx)
	return value, err
}

// Renew implements lockstep.Journal.
func (j *Journal[K, V]) Renew(ctx context.Context, number uint64) error {
	// Close waits for it, and does not give the directory to somebody whose records the
	// move would make over.
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return lockstep.ErrClosed
	}
	if err := j.position.move(ctx, number); err != nil {
		return err
	}
	if j.current != nil {
		// It is not appended to any more, and read no more.
		if err := j.current.Close(); err != nil {
			j.options.Logger.Warn("journal: a file that could not be written could not be closed", "error", err)
		}
		j.current = nil
	}
	j.last = max(j.last, number)
	if err := j.beginFile(j.last + 1); err != nil {
		return j.unavailable(err)
	}
	j.doubtful = false
	j.removeOver(number)
	return nil
}

// Close frees the directory. What the database has not stays in the journal, for the next
// Open.
func (j *Journal[K, V]) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return lockstep.ErrClosed
	}
	j.closed = true
	j.position.leave()
	var err error
	if j.current != nil {
		err = j.current.Close()
	}
	return errors.Join(err, j.lock.Close())
}

package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func TestWhatWasAcknowledgedIsMadeByTheNextProgram(t *testing.T) {
	m := newMachine(t)
	m.script("begin *: fail")
	p := m.start()
	p.write("a", 1)
	p.write("b", 1)
	if err := p.SetMany(t.Context(), map[string]int{"b": 2, "c": 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); err == nil || !strings.Contains(err.Error(), "5 acknowledged writes are not in the database, and are in the journal") {
		t.Errorf("Close: %v", err)
	}
	p.end()
	m.others("a", 7)

	q := m.start()
	if r := q.journal.Report(); r.Records != 4 || r.CutOff != 0 {
		t.Errorf("%+v", r)
	}
	q.reads("b", 2) // before they are in the database
	if _, err := q.Get(t.Context(), "a"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("Get(a): %v", err)
	}
	m.script("")
	q.write("d", 4)
	q.flushes()
	for key, want := range map[string]int{"a": 0, "b": 2, "c": 2, "d": 4} {
		m.stored(key, want)
	}
	q.end()
	// What is over is not made again.
	m.others("b", 9)
	r := m.start()
	if n := r.journal.Report().Records; n != 0 {
		t.Errorf("%d records are found again", n)
	}
	r.flushes()
	m.stored("b", 9)
}

// Whatever the power goes off at, what was acknowledged is there.
func TestPowerLoss(t *testing.T) {
	for range 8 {
		m := newMachine(t)
		m.options.FileBytes = 300
		m.script("begin *: fail")
		p := m.start()
		var mu sync.Mutex
		acknowledged := map[string]int{}
		var left string
		var kept map[string]int
		var writers sync.WaitGroup
		for w := range 4 {
			writers.Go(func() {
				for i := 1; i <= 20; i++ {
					key := fmt.Sprint("k", w)
					p.write(key, i)
					mu.Lock()
					acknowledged[key] = i
					if i == 10 && w == 0 {
						kept = map[string]int{}
						for key, n := range acknowledged {
							kept[key] = n
						}
						left = m.disk.afterPowerLoss(t, m.dir)
					}
					mu.Unlock()
				}
			})
		}
		writers.Wait()
		p.end()
		m.dir = left
		q := m.start()
		for key, n := range kept {
			if got, err := q.Get(t.Context(), key); err != nil || got < n {
				t.Errorf("%s is %d, %v, and %d was acknowledged", key, got, err, n)
			}
		}
		q.end()
	}
}

// A flush and the position are one transaction: whatever fails, nothing is made twice, and
// nothing is left out.
func TestAFlushAndItsPositionAreOne(t *testing.T) {
	for _, script := range []string{
		"commit 1: fail", "commit 1: lose reply", "commit 1: lose request", "commit 1: lose reply, late", "commit 1: lose reply, forget outcome",
		"commit 1: lose request, forget outcome", "apply 1: fail", "begin 1..2: fail", "apply 1: panic", "commit 1: panic", "commit 1: panic after",
		"commit 1: lose reply; settle 1..2: fail",
	} {
		t.Run(script, func(t *testing.T) {
			m := newMachine(t)
			p := m.start()
			m.script(script)
			p.write("k", 1)
			p.write("l", 1)
			p.flushes()
			m.stored("k", 1)
			m.stored("l", 1)
			if rejected := p.Rejected(); rejected != nil {
				t.Errorf("rejected: %v", rejected)
			}
			m.script("")
			p.end()
			m.others("k", 5)
			q := m.start()
			q.flushes()
			m.stored("k", 5)
		})
	}
}

func TestFilesThatAreOverAreRemoved(t *testing.T) {
	m := newMachine(t)
	m.options.FileBytes = 200
	p := m.start()
	m.script("begin *: fail")
	for i := range 20 {
		p.write(fmt.Sprint("k", i), i+1)
	}
	if n := len(m.files()); n < 5 {
		t.Errorf("%d files", n)
	}
	m.script("")
	p.flushes()
	p.write("k", 1)
	p.flushes()
	if names := m.files(); len(names) != 1 {
		t.Errorf("files: %v", names)
	}
	p.end()
	q := m.start()
	q.write("k", 2)
	q.flushes()
	m.stored("k", 2)
	m.stored("k19", 20)
}

func TestATornTailIsCutAwayAndSaid(t *testing.T) {
	m := newMachine(t)
	m.script("begin *: fail")
	p := m.start()
	p.write("k", 1)
	p.write("k", 2)
	p.end()
	path := m.files()[0]
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content[:len(content)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	q := m.start()
	if r := q.journal.Report(); r.Records != 1 || r.File != path || r.CutOff == 0 || r.At+r.CutOff != int64(len(content)-3) {
		t.Errorf("%+v", r)
	}
	q.reads("k", 1)
	q.write("k", 3)
	q.end()
	m.script("")
	m.restarts("k", 3)
}

func TestWhatOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(m *machine, files []string)
		want error
		says string
	}{
		"Damaged": {func(m *machine, files []string) {
			b, _ := os.ReadFile(files[0])
			b[len(b)-30] ^= 1
			_ = os.WriteFile(files[0], b, 0o600)
		}, nil, "damaged record"},
		"Missing":  {func(m *machine, files []string) { _ = os.Remove(files[1]) }, nil, "the file before it ends with record"},
		"Restored": {func(m *machine, files []string) { _ = os.Remove(files[0]) }, ErrForeign, "begins with record"},
		"OtherDatabase": {func(m *machine, files []string) {
			m.options.Positions = memstore.New(memstore.Options[string, int64]{})
		}, ErrForeign, "no position"},
		"OtherCodec": {func(m *machine, files []string) { m.options.Keys = cborOf[string]() }, lockstep.ErrInvalid, "made with the codecs"},
		"Renamed": {func(m *machine, files []string) {
			_ = os.Rename(files[0], filepath.Join(m.dir, "x"+suffix))
		}, nil, "its name is no number"},
		"NoPositions": {func(m *machine, files []string) { m.options.Positions = nil }, lockstep.ErrInvalid, "Positions"},
		"FileBytes":   {func(m *machine, files []string) { m.options.FileBytes = -1 }, lockstep.ErrInvalid, "FileBytes"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.options.FileBytes = 150
			m.script("begin *: fail")
			p := m.start()
			for i := range 6 {
				p.write(fmt.Sprint("key number ", i), i+1)
			}
			p.end()
			files := m.files()
			if len(files) < 3 {
				t.Fatal(files)
			}
			c.harm(m, files)
			err := m.fails()
			if c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Open: %v", err)
			}
			var damage *DamageError
			if c.want == nil && !errors.As(err, &damage) {
				t.Errorf("Open: %v is no DamageError", err)
			}
		})
	}
}

func TestADirectoryIsOneProgramsAtATime(t *testing.T) {
	m := newMachine(t)
	p := m.start()
	if err := m.fails(); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("the second Open: %v", err)
	}
	if _, err := lockstep.New[string, int](m.store, lockstep.Options[string, int]{Mode: lockstep.WriteBehind, Behind: lockstep.Behind[string, int]{Journal: p.journal}}); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("a second cache: %v", err)
	}
	p.end()
	m.start().end()
}

func TestAJournalOfAnotherDatabaseHandle(t *testing.T) {
	m := newMachine(t)
	j := m.open()
	defer j.Close()
	other := memstore.New(memstore.Options[string, int]{})
	if _, err := lockstep.New[string, int](other, lockstep.Options[string, int]{Mode: lockstep.WriteBehind, Behind: lockstep.Behind[string, int]{Journal: j}}); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("New: %v", err)
	}
	if _, err := lockstep.New[string, int](m.store, lockstep.Options[string, int]{Behind: lockstep.Behind[string, int]{Journal: j}}); !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "Behind.Journal needs Mode WriteBehind") {
		t.Errorf("New: %v", err)
	}
}

// Two programs that use copies of a directory do not overwrite each other's flushes without
// a word.
func TestCopiesOfADirectory(t *testing.T) {
	m := newMachine(t)
	m.start().end()
	copied := t.TempDir()
	for _, path := range m.files() {
		b, _ := os.ReadFile(path)
		if err := os.WriteFile(filepath.Join(copied, filepath.Base(path)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := m.start()
	p.write("k", 1)
	p.flushes()
	m.dir = copied
	q := m.start()
	q.write("k", 2)
	q.flushes()
	p.write("k", 3)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := p.Flush(ctx); err == nil || !strings.Contains(err.Error(), "somebody uses a copy of the journal") {
		t.Errorf("Flush: %v", err)
	}
	m.stored("k", 2)
}

// The database refuses some rows of a flush: all others of it are made, in one
// transaction with the position.
func TestARefusedWriteWithAJournal(t *testing.T) {
	for _, bad := range [][]int{{0}, {9}, {4}, {0, 9}, {3, 4, 5}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		t.Run(fmt.Sprint(bad), func(t *testing.T) {
			m := newMachine(t)
			m.behind.MaxDelay = time.Hour
			p := &program{machine: m, journal: m.open()}
			b := m.behind
			b.Journal = p.journal
			var err error
			p.Cache, err = lockstep.New[string, int](choosy{m.store}, lockstep.Options[string, int]{Mode: lockstep.WriteBehind, Behind: b, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.end)
			values := make([]int, 10)
			for i := range values {
				values[i] = i + 1
			}
			for _, i := range bad {
				values[i] = -values[i]
			}
			for i, value := range values {
				p.write(fmt.Sprint("k", i), value)
			}
			if err := p.Flush(t.Context()); !errors.Is(err, lockstep.ErrInvalid) {
				t.Errorf("Flush: %v", err)
			}
			for i, value := range values {
				m.stored(fmt.Sprint("k", i), max(0, value))
			}
			if rejected := p.Rejected(); len(rejected) != len(bad) {
				t.Errorf("rejected: %v", rejected)
			}
			p.end()
			if n := m.open().Report().Records; n != 0 {
				t.Errorf("%d records are found again", n)
			}
		})
	}
}

// choosy is a table that refuses values below zero.
type choosy struct{ *fault.Store[string, int] }

func (s choosy) Capabilities() lockstep.Capabilities[string, int] {
	caps := s.Store.Capabilities()
	apply := caps.Apply
	caps.Apply = func(ctx context.Context, txn lockstep.Txn, set lockstep.ChangeSet[string, int]) (lockstep.Outcome[int], error) {
		for _, c := range set.Changes {
			if c.Value < 0 {
				return lockstep.Outcome[int]{Err: fmt.Errorf("%w: below zero", lockstep.ErrInvalid)}, nil
			}
		}
		return apply(ctx, txn, set)
	}
	return caps
}

// A transaction that a killed program has sent, and which the server comes to when the next
// one has read the position, moves it no more.
func TestWhatADeadProgramHasSentComesTooLate(t *testing.T) {
	m := newMachine(t)
	dead := m.open()
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	next := m.open()
	defer next.Close()
	txn, err := m.positions.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Rollback(t.Context())
	if err := dead.Mark(t.Context(), txn, 1); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("Mark: %v", err)
	}
}

package journal

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A machine has a database, and the directory of a journal.
type machine struct {
	*testing.T
	table     *memstore.Store[string, int]
	positions *fault.Store[string, int64]
	store     *fault.Store[string, int]
	disk      *badDisk
	dir       string
	options   Options[string, int]
	behind    lockstep.Behind[string, int]
}

func newMachine(t *testing.T) *machine {
	db := memstore.NewDatabase()
	m := &machine{
		T:     t,
		table: memstore.New(memstore.Options[string, int]{Database: db}),
		// Within faults, too, of which it has none: its transactions are those of the store.
		positions: fault.Inject(memstore.New(memstore.Options[string, int64]{Database: db}), fault.Script{}, 1),
		disk:      newBadDisk(), dir: filepath.Join(t.TempDir(), "journal"),
	}
	m.store = fault.Inject(m.table, fault.Script{}, 1)
	m.options = Options[string, int]{Positions: m.positions, Logger: quiet}
	return m
}

func (m *machine) open() *Journal[string, int] {
	m.Helper()
	j, err := open(m.Context(), m.dir, m.options, m.disk)
	if err != nil {
		m.Fatalf("Open: %v", err)
	}
	return j
}

func (m *machine) fails() error {
	m.Helper()
	j, err := open(m.Context(), m.dir, m.options, m.disk)
	if err == nil {
		j.Close()
		m.Fatal("Open succeeds")
	}
	return err
}

// program is one that writes, until it ends.
type program struct {
	*machine
	*lockstep.Cache[string, int]
	journal *Journal[string, int]
}

func (m *machine) start() *program {
	m.Helper()
	p := &program{machine: m, journal: m.open()}
	b := m.behind
	b.Journal = p.journal
	var err error
	p.Cache, err = lockstep.New[string, int](m.store, lockstep.Options[string, int]{Mode: lockstep.WriteBehind, Behind: b, Logger: quiet, CommitTimeout: 5 * time.Second})
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(p.end)
	return p
}

// end is that of a program which does not wait for its database.
func (p *program) end() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.Close(ctx)
	p.journal.Close()
}

func (p *program) write(key string, value int) {
	p.Helper()
	if _, err := p.Set(p.Context(), key, value); err != nil {
		p.Fatalf("Set(%s): %v", key, err)
	}
}

func (p *program) reads(key string, want int) {
	p.Helper()
	if got, err := p.Get(p.Context(), key); got != want || err != nil {
		p.Errorf("Get(%s) = %d, %v, want %d", key, got, err, want)
	}
}

func (p *program) flushes() {
	p.Helper()
	if err := p.Flush(p.Context()); err != nil {
		p.Errorf("Flush: %v", err)
	}
}

func (m *machine) script(s string) {
	m.store.Play(fault.MustParse(s))
	m.store.Release()
}

func (m *machine) stored(key string, want int) {
	m.Helper()
	rows, err := m.table.Load(context.Background(), []string{key})
	if row := rows[key]; err != nil || row.Value != want || row.Exists != (want != 0) {
		m.Errorf("the table has %s = %+v, %v, want %d", key, row, err, want)
	}
}

// restarts starts the program, which has the row, and once it has flushed the table has
// it, too.
func (m *machine) restarts(key string, want int) {
	m.Helper()
	p := m.start()
	p.reads(key, want)
	p.flushes()
	m.stored(key, want)
}

// others writes a row past the cache.
func (m *machine) others(key string, value int) {
	m.Helper()
	if _, err := m.table.Commit(context.Background(), []lockstep.ChangeSet[string, int]{{Changes: []lockstep.Change[string, int]{{Key: key, Value: value}}}}); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) files() (names []string) {
	m.Helper()
	paths, err := filepath.Glob(filepath.Join(m.dir, "*"+suffix))
	if err != nil {
		m.Fatal(err)
	}
	return paths
}

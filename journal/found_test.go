package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A program that ends between a flush's commit and the removal of the files that are over
// leaves them to the next one.
func TestFilesThatAreOverAreRemovedByTheNextProgram(t *testing.T) {
	m := newMachine(t)
	m.options.FileBytes = 200
	m.script("begin *: fail")
	p := m.start()
	for i := range 20 {
		p.write(fmt.Sprint("k", i), i+1)
	}
	before := map[string][]byte{}
	for _, path := range m.files() {
		before[path], _ = os.ReadFile(path)
	}
	m.script("")
	p.flushes()
	p.end()
	for path, content := range before {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	q := m.start()
	if names := m.files(); len(names) != 1 {
		t.Errorf("%d files: %v", len(names), names)
	}
	q.write("k", 1)
	q.flushes()
	m.stored("k", 1)
}

// A program that is killed between the write of a record and its sync leaves one that
// only the kernel has. The next one shows it to readers, so it has to be on the disk by
// then.
func TestWhatAnotherProgramHasNotSyncedIsSyncedBeforeItIsSeen(t *testing.T) {
	m := newMachine(t)
	m.script("begin *: fail")
	p := m.start()
	p.write("k", 1)
	m.disk.set(func() { m.disk.unsynced = true })
	if _, err := p.Set(t.Context(), "k", 2); !errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("Set = %v", err)
	}
	p.end()
	m.disk.set(func() { m.disk.unsynced = false })
	q := m.start()
	q.reads("k", 2)
	left := m.disk.afterPowerLoss(t, m.dir)
	q.end()
	m.dir = left
	m.start().reads("k", 2)
}

// A directory that has to be made is durable to the root: each one above that was made,
// too, is a new name in another.
func TestDirectoriesAboveAJournalAreDurable(t *testing.T) {
	root := t.TempDir()
	var synced []string
	err := makeDir(filepath.Join(root, "a", "b", "c"), func(dir string) error {
		synced = append(synced, dir)
		return syncDir(dir)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{root, filepath.Join(root, "a"), filepath.Join(root, "a", "b")} {
		if !slices.Contains(synced, dir) {
			t.Errorf("%s was not synced", dir)
		}
	}
}

type noCodec struct{ codec.Codec[int] }

var errNoCodec = errors.New("it has no form")

func (noCodec) Encode([]byte, int) ([]byte, error) { return nil, errNoCodec }

// A write that the journal's codec refuses is refused before it is pending, as by the
// store's own: nothing would tell its end.
func TestAWriteThatCannotBeEncodedIsNeverPending(t *testing.T) {
	m := newMachine(t)
	m.options.Values = noCodec{codec.JSON[int]()}
	j := m.open()
	defer j.Close()
	told := make(chan string, 9)
	hook := func(name string) func(lockstep.WriteEvent[string]) {
		return func(lockstep.WriteEvent[string]) { told <- name }
	}
	c, err := lockstep.New[string, int](m.store, lockstep.Options[string, int]{
		Mode: lockstep.WriteBehind, Behind: lockstep.Behind[string, int]{Journal: j, MaxDelay: time.Hour}, Logger: quiet,
		Hooks: lockstep.Hooks[string]{Pending: hook("pending"), Failed: hook("failed"), Committed: hook("committed")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Set(t.Context(), "k", 1); !errors.Is(err, lockstep.ErrInvalid) || !errors.Is(err, errNoCodec) {
		t.Errorf("Set = %v", err)
	}
	if refused := c.Stats().Refused; refused != 1 {
		t.Errorf("%d refused", refused)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	close(told)
	var names []string
	for name := range told {
		names = append(names, name)
	}
	if len(names) > 0 {
		t.Errorf("told: %v", names)
	}
}

// A nil *Journal in the option is no journal, and no "none" either.
func TestANilJournalIsRefused(t *testing.T) {
	m := newMachine(t)
	var none *Journal[string, int]
	_, err := lockstep.New[string, int](m.store, lockstep.Options[string, int]{Mode: lockstep.WriteBehind, Behind: lockstep.Behind[string, int]{Journal: none}})
	if !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("New = %v", err)
	}
}

// A cache that outlives its journal's Close must not move the position of whoever has the
// directory by then: what that one has acknowledged would count as over.
func TestAClosedJournalDoesNotMoveThePositionOfTheNextOne(t *testing.T) {
	m := newMachine(t)
	m.script("begin *: fail")
	p := m.start()
	p.write("k", 1)
	m.disk.set(func() { m.disk.partly, m.disk.uncut = true, true })
	if _, err := p.Set(t.Context(), "k", 2); !errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("Set = %v", err)
	}
	m.disk.set(func() { m.disk.partly, m.disk.uncut = false, false })
	if err := p.journal.Close(); err != nil {
		t.Fatal(err)
	}
	its := m.store
	m.store = fault.Inject(m.table, fault.Script{}, 1)
	m.script("begin *: fail")
	q := m.start()
	q.write("k", 3)

	its.Play(fault.Script{})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_ = p.Flush(ctx) // it may, or may not: what it says is about its own
	p.end()
	q.end()
	m.script("")
	m.restarts("k", 3)
}

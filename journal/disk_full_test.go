package journal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

func TestADiskThatIsFull(t *testing.T) {
	m := newMachine(t)
	p := m.start()
	p.write("k", 1)
	m.disk.set(func() { m.disk.partly = true })
	for range 3 {
		_, err := p.Set(t.Context(), "k", 2)
		if !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) || !errors.Is(err, errDisk) {
			t.Fatalf("Set on a full disk: %v", err)
		}
		p.reads("k", 1)
	}
	m.disk.set(func() { m.disk.partly = false })
	p.write("k", 3)
	p.reads("k", 3)
	p.end()
	m.restarts("k", 3)
}

func TestAFileThatCannotBeBegun(t *testing.T) {
	m := newMachine(t)
	m.options.FileBytes = 1
	p := m.start()
	m.disk.set(func() { m.disk.uncreate = true })
	if _, err := p.Set(t.Context(), "k", 1); !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("Set: %v", err)
	}
	m.disk.set(func() { m.disk.uncreate = false })
	p.write("k", 2)
	p.flushes()
	m.stored("k", 2)
}

// What the journal may have kept without having said so is settled as not applied, when
// what was acknowledged before it is in the database. Writes go through meanwhile.
func TestADoubtfulRecord(t *testing.T) {
	for name, fail := range map[string]func(d *badDisk){
		"Unsynced": func(d *badDisk) { d.unsynced = true },
		"Uncut":    func(d *badDisk) { d.partly, d.uncut = true, true },
	} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/crash=%t", name, crash), func(t *testing.T) {
				m := newMachine(t)
				p := m.start()
				m.script("begin *: fail")
				p.write("before", 1)
				m.disk.set(func() { fail(m.disk) })
				var unknown *lockstep.WriteError
				if _, err := p.Set(t.Context(), "k", 1); !errors.As(err, &unknown) || unknown.Outcome != lockstep.Unknown || !errors.Is(err, errDisk) {
					t.Fatalf("Set: %v", err)
				}
				if _, err := p.Get(t.Context(), "k"); !errors.Is(err, lockstep.ErrNotFound) {
					t.Errorf("Get: %v", err)
				}
				m.disk.set(func() { m.disk.partly, m.disk.unsynced, m.disk.uncut = false, false, false })
				if crash {
					// Nobody knows; and what was acknowledged is there.
					left := m.disk.afterPowerLoss(t, m.dir)
					p.end()
					m.dir = left
					m.script("")
					m.restarts("before", 1)
					return
				}
				through := make(chan error)
				go func() {
					_, err := p.Set(t.Context(), "k", 2)
					through <- err
				}()
				m.script("")
				if applied, _, err := unknown.Wait(t.Context()); applied || err != nil {
					t.Errorf("Wait: %t, %v", applied, err)
				}
				if err := <-through; err != nil {
					t.Errorf("the write that went through: %v", err)
				}
				m.stored("before", 1)
				m.stored("k", 2)
				p.write("k", 3)
				m.script("begin *: fail")
				p.write("k", 4)
				p.end()
				m.script("")
				m.restarts("k", 4)
			})
		}
	}
}

// A write that has gone through after a doubtful one is not undone by it when the program
// starts again.
func TestADoubtfulRecordDoesNotUndoWhatWentThrough(t *testing.T) {
	m := newMachine(t)
	p := m.start()
	m.disk.set(func() { m.disk.unsynced, m.disk.uncreate = true, true }) // so the journal stays as it is
	if _, err := p.Set(t.Context(), "k", 1); !errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Fatalf("Set: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := p.Set(ctx, "k", 2); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Fatalf("a write that passes the doubtful one: %v", err)
	}
	m.disk.set(func() { m.disk.uncreate, m.disk.unsynced = false, false })
	if _, err := p.Set(t.Context(), "k", 3); err != nil {
		t.Fatal(err)
	}
	p.flushes()
	m.stored("k", 3)
	p.end()
	q := m.start()
	q.flushes()
	q.reads("k", 3)
	m.stored("k", 3)
}

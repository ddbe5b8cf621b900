package lockstep_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestModesHaveNames(t *testing.T) {
	for mode, want := range map[lockstep.Mode]string{
		lockstep.WriteThrough: "WriteThrough", lockstep.WriteAround: "WriteAround", lockstep.ReadOnly: "ReadOnly",
		lockstep.CacheAside: "CacheAside",
		200:                 "Mode(200)",
	} {
		if got := mode.String(); got != want {
			t.Errorf("mode %d is called %s, want %s", uint8(mode), got, want)
		}
	}
}

// refusedCall says that a call is refused, and that the error names it and the mode.
func (s *scene) refusedCall(call string, mode lockstep.Mode, err error) {
	s.Helper()
	if !errors.Is(err, lockstep.ErrUnsupported) || errors.Is(err, lockstep.ErrUnknownOutcome) {
		s.Errorf("%s in Mode %v: %v, want ErrUnsupported", call, mode, err)
		return
	}
	for _, name := range []string{call, "Mode " + mode.String()} {
		if !strings.Contains(err.Error(), name) {
			s.Errorf("%s in Mode %v: the error does not name %s: %v", call, mode, name, err)
		}
	}
}

// In Mode WriteAround what was written leaves memory, whatever wrote it.
func TestWriteAround(t *testing.T) {
	for name, c := range map[string]struct {
		write func(s *scene, key string) error
		gone  bool // the row is deleted
	}{
		"Set": {write: func(s *scene, key string) error { return second(s.Set(s.ctx, key, 2)) }},
		"Set if": {write: func(s *scene, key string) error {
			return second(s.Set(s.ctx, key, 2, lockstep.IfVersion(s.row(key).Version)))
		}},
		"Set with a lifetime": {write: func(s *scene, key string) error {
			return second(s.Set(s.ctx, key, 2, lockstep.Lifetime(time.Hour)))
		}},
		"SetMany": {write: func(s *scene, key string) error { return s.SetMany(s.ctx, map[string]int{key: 2, "l": 2}) }},
		"Update": {write: func(s *scene, key string) error {
			return second(s.Update(s.ctx, key, func(old int, _ bool) (int, error) { return old + 1, nil }))
		}},
		"Transact": {write: func(s *scene, key string) error {
			return transact(s, func(tx lockstep.InTx[string, int]) error { return tx.Set(s.ctx, key, 2) })
		}},
		"Delete":     {write: func(s *scene, key string) error { return second(s.Delete(s.ctx, key)) }, gone: true},
		"DeleteMany": {write: func(s *scene, key string) error { return s.DeleteMany(s.ctx, []string{key, "l"}) }, gone: true},
		"DeleteAll":  {write: func(s *scene, _ string) error { return s.DeleteAll(s.ctx) }, gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{Mode: lockstep.WriteAround}, func(s *scene) {
				s.behind("k", 1)
				s.reads("k", 1)
				s.remembers("k", 1)
				if err := c.write(s, "k"); err != nil {
					t.Fatal(err)
				}
				s.forgot("k")
				if n := s.Stats().Entries; n != 0 {
					t.Errorf("memory has %d entries", n)
				}
				if c.gone {
					s.readsNothing("k")
					return
				}
				s.reads("k", 2)
				s.remembers("k", 2)
				if n := s.loads(func() { s.reads("k", 2) }); n != 0 {
					t.Errorf("a read of what was loaded costs %d loads", n)
				}
			})
		})
	}
}

// An absence that was remembered does not outlive the row that ends it, whose key the
// database gives.
func TestWriteAroundInserts(t *testing.T) {
	inBubble(t, options{Mode: lockstep.WriteAround}, func(s *scene) {
		s.readsNothing("new1")
		if n := s.loads(func() { s.readsNothing("new1") }); n != 0 {
			t.Errorf("an absence that is remembered costs %d loads", n)
		}
		if key, _, err := s.Insert(s.ctx, 7); key != "new1" || err != nil {
			t.Fatalf("Insert = %s, %v", key, err)
		}
		s.forgot("new1")
		s.reads("new1", 7)
	})
}

// A write that is not applied leaves the copy, and one that nobody knows of does not.
func TestWriteAroundThatFails(t *testing.T) {
	inBubble(t, options{Mode: lockstep.WriteAround}, func(s *scene) {
		s.behind("k", 1)
		s.reads("k", 1)
		s.script("commit 1: fail\ncommit 2: lose reply")
		s.notApplied(second(s.Set(s.ctx, "k", 2)), lockstep.ErrUnavailable)
		s.remembers("k", 1)
		doubt := s.unknown(second(s.Set(s.ctx, "k", 3)))
		s.forgot("k")
		s.settles(doubt, true)
		s.forgot("k")
		s.reads("k", 3)
	})
}

func TestWriteAroundRefusesTTL(t *testing.T) {
	inBubble(t, options{Mode: lockstep.WriteAround, TTL: time.Hour}, func(s *scene) {
		ttl := lockstep.TTL(time.Minute)
		const mode = lockstep.WriteAround
		s.refusedCall("Set with TTL", mode, second(s.Set(s.ctx, "k", 1, ttl)))
		s.refusedCall("Update with TTL", mode, second(s.Update(s.ctx, "k", func(int, bool) (int, error) { return 1, nil }, ttl)))
		_, _, err := s.Insert(s.ctx, 1, ttl)
		s.refusedCall("Insert with TTL", mode, err)
		s.refusedCall("Set in a transaction with TTL", mode, transact(s, func(tx lockstep.InTx[string, int]) error {
			return tx.Set(s.ctx, "k", 1, ttl)
		}))
		if n := s.store.Counts().Commits; n != 0 {
			t.Errorf("%d commits", n)
		}
	})
}

// A load that a write around memory meets does not bring the old row back.
func TestWriteAroundDuringALoad(t *testing.T) {
	inBubble(t, options{Mode: lockstep.WriteAround}, func(s *scene) {
		s.behind("k", 1)
		load := s.store.Block(fault.AfterLoad)
		defer load.Pass()
		reader := s.startGet(s.ctx, "k")
		<-load.Reached // with the old row
		s.write("k", 2)
		load.Pass()
		reader.succeeds()
		s.forgot("k")
		s.reads("k", 2)
	})
}

// In Mode ReadOnly every write is refused before the database is asked, and every read
// works.
func TestReadOnly(t *testing.T) {
	inBubble(t, options{Mode: lockstep.ReadOnly}, func(s *scene) {
		s.behind("k", 1)
		const mode = lockstep.ReadOnly
		s.refusedCall("Set", mode, second(s.Set(s.ctx, "k", 2)))
		s.refusedCall("SetMany", mode, s.SetMany(s.ctx, map[string]int{"k": 2}))
		s.refusedCall("SetMany", mode, s.SetMany(s.ctx, nil))
		s.refusedCall("Delete", mode, second(s.Delete(s.ctx, "k")))
		s.refusedCall("DeleteMany", mode, s.DeleteMany(s.ctx, []string{"k"}))
		s.refusedCall("DeleteAll", mode, s.DeleteAll(s.ctx))
		s.refusedCall("Update", mode, second(s.Update(s.ctx, "k", func(int, bool) (int, error) { return 0, lockstep.Keep })))
		_, _, err := s.Insert(s.ctx, 1)
		s.refusedCall("Insert", mode, err)
		s.refusedCall("Set in a transaction", mode, transact(s, func(tx lockstep.InTx[string, int]) error {
			return tx.Set(s.ctx, "k", 2)
		}))
		s.refusedCall("Delete in a transaction", mode, transact(s, func(tx lockstep.InTx[string, int]) error {
			return tx.Delete(s.ctx, "k")
		}))
		if stats := s.Stats(); stats.Refused != 8 || stats.Writes != 0 || s.store.Counts().Commits != 0 {
			t.Errorf("%d writes refused, %d made, %d commits", stats.Refused, stats.Writes, s.store.Counts().Commits)
		}

		s.reads("k", 1)
		s.remembers("k", 1)
		s.readsNothing("nobody")
		if n, err := s.Warm(s.ctx, lockstep.WarmOptions{}); n != 1 || err != nil {
			t.Errorf("Warm = %d, %v", n, err)
		}
		s.behind("k", 2)
		s.reads("k", 1)
		s.Invalidate("k")
		s.reads("k", 2)
		s.behind("k", 3)
		if err := s.Refresh(s.ctx, "k"); err != nil {
			t.Error(err)
		}
		s.remembers("k", 3)
	})
}

// Transactions of a cache that only reads are validated as others are, and take part in
// those of caches that write.
func TestReadOnlyInTransactions(t *testing.T) {
	inDuo(t, options{}, func(d *duo) {
		if _, err := d.a.Set(d.ctx, "k", 1); err != nil {
			t.Fatal(err)
		}
		reader := cachetest.Open(d.T, store(d.sa), options{Mode: lockstep.ReadOnly, Logger: quiet})
		if value, err := reader.Get(d.ctx, "k"); value != 1 || err != nil {
			t.Fatal(value, err)
		}
		if _, err := d.a.Set(d.ctx, "k", 2); err != nil { // the reader does not hear of it
			t.Fatal(err)
		}
		runs, sum := 0, 0
		err := lockstep.Transact(d.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			runs++
			k, err := reader.In(tx).Get(ctx, "k")
			l, err2 := reader.In(tx).Get(ctx, "l")
			sum = k + l
			if errors.Is(err2, lockstep.ErrNotFound) {
				err2 = nil
			}
			return errors.Join(err, err2)
		})
		if runs != 2 || sum != 2 || err != nil {
			t.Errorf("%d runs, and the last saw %d, %v", runs, sum, err)
		}
		if err := lockstep.Transact(d.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			k, err := reader.In(tx).Get(ctx, "k")
			return errors.Join(err, d.b.In(tx).Set(ctx, "sum", k+10))
		}); err != nil {
			t.Error(err)
		}
		if value, err := d.b.Get(d.ctx, "sum"); value != 12 || err != nil {
			t.Errorf("the other cache has %d, %v", value, err)
		}
	})
}

// In a transaction that the program began they read, and do not write.
func TestReadOnlyInJoinedTransactions(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		reader := cachetest.Open(d.T, store(joinable(d.sa)), options{Mode: lockstep.ReadOnly, Logger: quiet})
		_, j := d.beginJoined()
		u := in(d, reader, j)
		if value, err := u.Get(d.ctx, "k"); value != 1 || err != nil {
			t.Errorf("in a joined transaction: %d, %v", value, err)
		}
		d.refusedCall("Set in a joined transaction", lockstep.ReadOnly, second(u.Set(d.ctx, "k", 3)))
		d.refusedCall("Delete in a joined transaction", lockstep.ReadOnly, second(u.Delete(d.ctx, "k")))
		if err := j.Commit(d.ctx); err != nil {
			t.Errorf("the joined transaction: %v", err)
		}
	})
}

// Options that are about writes contradict a mode that makes none; each is named.
func TestOptionsThatContradictAMode(t *testing.T) {
	for _, c := range []struct {
		options options
		names   []string
	}{
		{options{Mode: 200}, []string{"Mode(200)"}},
		{options{Mode: lockstep.ReadOnly, MaxValueBytes: 1}, []string{"MaxValueBytes", "Mode ReadOnly"}},
		{options{Mode: lockstep.ReadOnly, CommitTimeout: 1}, []string{"CommitTimeout", "Mode ReadOnly"}},
		{options{Mode: lockstep.ReadOnly, QueueLimit: 1}, []string{"QueueLimit", "Mode ReadOnly"}},
		{options{Mode: lockstep.ReadOnly, Validate: func(string, int) error { return nil }}, []string{"Validate", "Mode ReadOnly"}},
		{options{Mode: lockstep.ReadOnly, Batch: lockstep.Batch{MaxOps: 1}}, []string{"Batch.MaxOps", "Mode ReadOnly"}},
		{options{Mode: lockstep.ReadOnly, Batch: lockstep.Batch{MaxDelay: 1}}, []string{"Batch.MaxDelay", "Mode ReadOnly"}},
		{options{Mode: lockstep.ReadOnly, Batch: lockstep.Batch{InFlight: 1}}, []string{"Batch.InFlight", "Mode ReadOnly"}},
		{options{Mode: lockstep.ReadOnly, QueueLimit: 1, MaxEntries: -1}, []string{"QueueLimit", "MaxEntries"}},
	} {
		t.Run(strings.Join(c.names, " and "), func(t *testing.T) { refusedOptions(t, c.options, c.names...) })
	}
}

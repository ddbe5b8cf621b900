package lockstep_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Rows' ends, and conditions, inside a transaction.

func TestATransactionTellsTheVersionAndTheEndOfARow(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		at := time.Now().Add(time.Hour).UTC()
		version := s.write("ends", 1, lockstep.ExpiresAt(at))
		s.write("stays", 2)
		err := transact(s, func(tx lockstep.InTx[string, int]) error {
			e, err := tx.GetEntry(s.ctx, "ends")
			if err != nil || e.Value != 1 || e.Version != version || !e.ExpiresAt.Equal(at) || e.TTL <= 0 || e.TTL > time.Hour {
				t.Errorf("GetEntry(ends) = %+v, %v", e, err)
			}
			if e, err = tx.GetEntry(s.ctx, "stays"); err != nil || e.Value != 2 || !e.ExpiresAt.IsZero() {
				t.Errorf("GetEntry(stays) = %+v, %v", e, err)
			}
			if _, err = tx.GetEntry(s.ctx, "nothing"); !errors.Is(err, lockstep.ErrNotFound) {
				t.Errorf("GetEntry(nothing): %v", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestATransactionTellsWhatItHasWritten(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("deleted", 1)
		at, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
		err := transact(s, func(tx lockstep.InTx[string, int]) error {
			if err := errors.Join(
				tx.Set(s.ctx, "at", 1, lockstep.ExpiresAt(at)), tx.Set(s.ctx, "after", 2, lockstep.Lifetime(time.Minute)),
				tx.Set(s.ctx, "over", 3, lockstep.ExpiresAt(past)), tx.Delete(s.ctx, "deleted"),
			); err != nil {
				return err
			}
			for key, want := range map[string]time.Time{"at": at, "after": time.Now().Add(time.Minute)} {
				if e, err := tx.GetEntry(s.ctx, key); err != nil || e.Version != 0 || !e.ExpiresAt.Equal(want) {
					t.Errorf("GetEntry(%s) = %+v, %v; want the end %v", key, e, err, want)
				}
			}
			for _, key := range []string{"over", "deleted"} {
				if _, err := tx.GetEntry(s.ctx, key); !errors.Is(err, lockstep.ErrNotFound) {
					t.Errorf("GetEntry(%s): %v", key, err)
				}
				if _, err := tx.Get(s.ctx, key); !errors.Is(err, lockstep.ErrNotFound) {
					t.Errorf("Get(%s): %v", key, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		s.readsNothing("over")
	})
}

func TestRowsThatATransactionWritesEnd(t *testing.T) {
	write := func(ctx context.Context, tx lockstep.InTx[string, int]) error {
		return errors.Join(
			tx.Set(ctx, "at", 1, lockstep.ExpiresAt(time.Now().Add(time.Hour))),
			tx.Set(ctx, "after", 2, lockstep.Lifetime(time.Hour)),
			tx.Set(ctx, "again", 3, lockstep.Lifetime(time.Minute)), tx.Set(ctx, "again", 4),
			tx.Set(ctx, "had", 5),
		)
	}
	check := func(ctx context.Context, c *lockstep.Cache[string, int]) {
		t.Helper()
		time.Sleep(time.Hour - time.Millisecond)
		for _, key := range []string{"at", "after"} {
			if _, err := c.Get(ctx, key); err != nil {
				t.Errorf("Get(%s) before its end: %v", key, err)
			}
		}
		time.Sleep(2 * time.Millisecond)
		for _, key := range []string{"at", "after"} {
			if v, err := c.Get(ctx, key); !errors.Is(err, lockstep.ErrNotFound) {
				t.Errorf("Get(%s) after its end = %d, %v", key, v, err)
			}
		}
		for _, key := range []string{"again", "had"} {
			if e, err := c.GetEntry(ctx, key); err != nil || !e.ExpiresAt.IsZero() {
				t.Errorf("GetEntry(%s), which stays, = %+v, %v", key, e, err)
			}
		}
	}
	t.Run("one cache", func(t *testing.T) {
		inBubble(t, options{}, func(s *scene) {
			s.write("had", 1, lockstep.Lifetime(time.Minute))
			if err := transact(s, func(tx lockstep.InTx[string, int]) error { return write(s.ctx, tx) }); err != nil {
				t.Fatal(err)
			}
			check(s.ctx, s.Cache)
		})
	})
	t.Run("two caches", func(t *testing.T) {
		inDuo(t, options{}, func(d *duo) {
			if _, err := d.a.Set(d.ctx, "had", 1, lockstep.Lifetime(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if err := lockstep.Transact(d.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return errors.Join(write(ctx, d.a.In(tx)), d.b.In(tx).Set(ctx, "k", 1))
			}); err != nil {
				t.Fatal(err)
			}
			check(d.ctx, d.a)
		})
	})
}

func TestTTLInATransactionIsOfItsOwnCopy(t *testing.T) {
	inBubble(t, options{TTL: time.Hour}, func(s *scene) {
		if err := transact(s, func(tx lockstep.InTx[string, int]) error {
			return errors.Join(tx.Set(s.ctx, "plain", 1), tx.Set(s.ctx, "short", 2, lockstep.TTL(time.Minute)), tx.Set(s.ctx, "last", 3))
		}); err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]time.Duration{"plain": time.Hour, "short": time.Minute, "last": time.Hour} {
			if e, err := s.GetEntry(s.ctx, key); err != nil || e.TTL != want {
				t.Errorf("the copy of %s may answer for %v, %v; want %v", key, e.TTL, err, want)
			}
		}
	})
}

func TestAConditionInATransactionIsTheCallersConflict(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		version := s.write("k", 1)
		for name, set := range map[string]func(tx lockstep.InTx[string, int]) error{
			"IfAbsent of a row":    func(tx lockstep.InTx[string, int]) error { return tx.Set(s.ctx, "k", 2, lockstep.IfAbsent()) },
			"IfVersion of another": func(tx lockstep.InTx[string, int]) error { return tx.Set(s.ctx, "k", 2, lockstep.IfVersion(version+1)) },
			"Delete":               func(tx lockstep.InTx[string, int]) error { return tx.Delete(s.ctx, "k", lockstep.IfVersion(version+1)) },
		} {
			runs := 0
			err := transact(s, func(tx lockstep.InTx[string, int]) error {
				runs++
				return errors.Join(tx.Set(s.ctx, "other", 1), set(tx))
			})
			s.notApplied(err, lockstep.ErrConflict)
			var conflict *lockstep.ConflictError
			if !errors.As(err, &conflict) || conflict.Key != "k" || !conflict.Exists || conflict.Version != version {
				t.Errorf("%s: the error carries %+v: %v", name, conflict, err)
			}
			if runs != 1 {
				t.Errorf("%s: the function ran %d times", name, runs)
			}
			s.notStored("other")
			s.stored("k", 1)
		}
		s.notApplied(transact(s, func(tx lockstep.InTx[string, int]) error {
			return tx.Set(s.ctx, "absent", 2, lockstep.IfVersion(version))
		}), lockstep.ErrConflict)
		if err := transact(s, func(tx lockstep.InTx[string, int]) error {
			return errors.Join(tx.Set(s.ctx, "k", 3, lockstep.IfVersion(version)), tx.Set(s.ctx, "new", 4, lockstep.IfAbsent()))
		}); err != nil {
			t.Fatal(err)
		}
		s.stored("k", 3)
		s.stored("new", 4)
	})
}

// Memory's copy is behind what another process has written: what it makes of a condition
// is no answer.
func TestAConditionInATransactionIsDecidedByTheDatabase(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		newer := s.behind("k", 2)
		if err := transact(s, func(tx lockstep.InTx[string, int]) error {
			return tx.Set(s.ctx, "k", 3, lockstep.IfVersion(newer))
		}); err != nil {
			t.Errorf("IfVersion of the row that is there: %v", err)
		}
		s.stored("k", 3)

		seen := s.write("j", 1)
		s.behind("j", 2)
		s.notApplied(transact(s, func(tx lockstep.InTx[string, int]) error {
			return tx.Set(s.ctx, "j", 3, lockstep.IfVersion(seen))
		}), lockstep.ErrConflict)
		s.stored("j", 2)
	})
}

func TestAConditionSeesWhatTheTransactionHasWritten(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		version := s.write("k", 1)
		if err := transact(s, func(tx lockstep.InTx[string, int]) error {
			if err := errors.Join(tx.Delete(s.ctx, "k"), tx.Set(s.ctx, "k", 2, lockstep.IfAbsent())); err != nil {
				return err
			}
			if err := tx.Set(s.ctx, "k", 3, lockstep.IfAbsent()); !errors.Is(err, lockstep.ErrConflict) {
				t.Errorf("IfAbsent of a row that was just written: %v", err)
			}
			if err := tx.Set(s.ctx, "k", 3, lockstep.IfVersion(version)); !errors.Is(err, lockstep.ErrInvalid) {
				t.Errorf("IfVersion of a row that was just written: %v", err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		s.stored("k", 2)
	})
}

func TestOptionsThatMakeNoSenseInATransaction(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		for name, call := range map[string]func(tx lockstep.InTx[string, int]) error{
			"two ends": func(tx lockstep.InTx[string, int]) error {
				return tx.Set(s.ctx, "k", 1, lockstep.Lifetime(time.Hour), lockstep.ExpiresAt(time.Now()))
			},
			"two conditions": func(tx lockstep.InTx[string, int]) error {
				return tx.Set(s.ctx, "k", 1, lockstep.IfAbsent(), lockstep.IfVersion(1))
			},
			"the zero option":           func(tx lockstep.InTx[string, int]) error { return tx.Set(s.ctx, "k", 1, lockstep.WriteOption{}) },
			"Delete with a lifetime":    func(tx lockstep.InTx[string, int]) error { return tx.Delete(s.ctx, "k", lockstep.Lifetime(time.Hour)) },
			"Delete of an absent row":   func(tx lockstep.InTx[string, int]) error { return tx.Delete(s.ctx, "k", lockstep.IfAbsent()) },
			"a lifetime of no time":     func(tx lockstep.InTx[string, int]) error { return tx.Set(s.ctx, "k", 1, lockstep.Lifetime(0)) },
			"a copy that lives no time": func(tx lockstep.InTx[string, int]) error { return tx.Set(s.ctx, "k", 1, lockstep.TTL(-1)) },
		} {
			if err := transact(s, call); !errors.Is(err, lockstep.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		s.notStored("k")
	})
	inBubbleOver(t, options{}, without(func(c *capability) { c.Lifetimes = false }), func(s *scene) {
		s.notApplied(transact(s, func(tx lockstep.InTx[string, int]) error {
			return tx.Set(s.ctx, "k", 1, lockstep.Lifetime(time.Hour))
		}), lockstep.ErrUnsupported)
	})
}

func TestATransactionReadsManyInOneLoad(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		for i, key := range []string{"a", "b", "c", "d"} {
			s.behind(key, i)
		}
		var got map[string]int
		loads := s.loads(func() {
			if err := transact(s, func(tx lockstep.InTx[string, int]) (err error) {
				if err := errors.Join(tx.Set(s.ctx, "own", 7), tx.Delete(s.ctx, "d")); err != nil {
					return err
				}
				got, err = tx.GetMany(s.ctx, []string{"a", "b", "c", "d", "a", "own", "nothing"})
				return err
			}); err != nil {
				t.Fatal(err)
			}
		})
		if loads != 1 || len(got) != 4 || got["a"] != 0 || got["b"] != 1 || got["c"] != 2 || got["own"] != 7 {
			t.Errorf("%v in %d loads", got, loads)
		}
		// And they are checked, each of them.
		runs := 0
		if err := transact(s, func(tx lockstep.InTx[string, int]) (err error) {
			if got, err = tx.GetMany(s.ctx, []string{"a", "b"}); runs == 0 {
				s.behind("b", 9)
			}
			runs++
			return err
		}); err != nil || runs != 2 || got["b"] != 9 {
			t.Errorf("%v after %d runs, %v", got, runs, err)
		}
	})
}

// Somebody gives the row another end, and leaves its value.
func TestATransactionRunsAgainWhenARowsEndHasChanged(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		at := time.Now().Add(time.Hour)
		runs := 0
		if err := transact(s, func(tx lockstep.InTx[string, int]) error {
			e, err := tx.GetEntry(s.ctx, "k")
			if err != nil {
				return err
			}
			if runs++; runs == 1 {
				s.write("k", 1, lockstep.ExpiresAt(at))
			}
			if e.ExpiresAt.IsZero() {
				return tx.Set(s.ctx, "copy", e.Value)
			}
			return tx.Set(s.ctx, "copy", e.Value, lockstep.ExpiresAt(e.ExpiresAt))
		}); err != nil || runs != 2 {
			t.Fatalf("%d runs, %v", runs, err)
		}
		if r := s.row("copy"); !r.ExpiresAt.Equal(at) {
			t.Errorf("the copy is %+v, want the end %v", r, at)
		}
	})
}

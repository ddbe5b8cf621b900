package lockstep_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/internal/textbook"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// TestTextbookHistories shows that TestHistories would notice: the histories of
// the cache that articles print have no explanation where its faults apply, and
// those of the real cache, made in the same way, have one.
func TestTextbookHistories(t *testing.T) {
	// In real time: in a bubble nobody may wait for a lock that is held while the
	// database works.
	const latency = "load *: latency 0s..300us; commit *: latency 0s..300us\n"
	for _, c := range []struct {
		fault  string
		script string
		// only keeps the functions with which the fault shows.
		only func(all history.Table) history.Table
		// transact keeps transactions.
		transact bool
	}{
		{fault: "1, an old row put back over a write", only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, Set: all.Set, Invalidate: all.Invalidate}
		}},
		{fault: "5, a condition compared with memory", only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, SetIf: all.SetIf, Invalidate: all.Invalidate}
		}},
		{fault: "8, a write that failed and was committed", script: "commit 5%: lose reply", only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, Set: all.Set}
		}},
		{fault: "12, a batch that failed half-way", script: "commit 10%: fail", only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, SetMany: all.SetMany}
		}},
		{fault: "13, half a transaction", transact: true, only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get}
		}},
		{fault: "15, a lost update", only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, Update: all.Update}
		}},
	} {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			// The textbook's races are lost by luck: on a busy machine a history may come
			// out in order. So they have more seeds to show in than are run as a rule.
			const seeds, most = 6, 60
			found := 0
			for seed := uint64(0); seed < seeds || found == 0 && seed < most; seed++ {
				check := func(t *testing.T, open func(t *testing.T, store lockstep.Store[int, int64]) history.Subject) error {
					table := memstore.New(memstore.Options[int, int64]{})
					s := open(t, fault.Inject(table, fault.MustParse(latency+c.script), seed))
					s.Tables[0] = c.only(s.Tables[0])
					if !c.transact {
						s.Transact = nil
					}
					h := history.Workload{
						Seed: seed, Clients: 6, Calls: 500, Keys: 3,
						Pause: 200 * time.Microsecond, Patience: time.Minute,
						Clock: history.RealTime(),
					}.Run(context.Background(), s)
					return history.Check(h.Ops, historyPatience)
				}
				if err := check(t, textbookHistory); err != nil {
					var v *history.Violation
					if !errors.As(err, &v) {
						t.Fatal(err)
					}
					if found++; found == 1 {
						t.Log(err)
					}
				}
				if err := check(t, lockstepHistory); err != nil {
					t.Errorf("seed %d of the real cache: %v", seed, err)
				}
			}
			if found == 0 {
				t.Errorf("not found in %d histories", most)
			}
		})
	}
}

func lockstepHistory(t *testing.T, store lockstep.Store[int, int64]) history.Subject {
	return history.Caches(cachetest.Open(t, store, lockstep.Options[int, int64]{}))
}

// textbookHistory does not tell the versions that the textbook's memory counts:
// they are wrong in so many ways that nothing else would be found.
func textbookHistory(t *testing.T, store lockstep.Store[int, int64]) history.Subject {
	c := textbook.New(store, textbook.Options{})
	t.Cleanup(c.Kill)
	return history.Subject{
		Tables: []history.Table{{
			Get: c.Get, GetMany: c.GetMany, Exists: c.Exists, Peek: c.Peek,
			Set: func(ctx context.Context, key int, value int64) (lockstep.Version, error) {
				_, err := c.Set(ctx, key, value)
				if errors.Is(err, lockstep.ErrUnknownOutcome) {
					// Its caller asks the database; nobody tells the cache.
					settled, settleErr := store.Capabilities().Settle(ctx, err)
					if settleErr == nil && settled.Applied {
						return 0, nil
					}
				}
				return 0, err
			},
			SetIf: func(ctx context.Context, key int, value int64, expect lockstep.Expect) (lockstep.Version, error) {
				if expect.Kind == lockstep.ExpectVersion {
					_, err := c.SetIfVersion(ctx, key, value, expect.Version)
					return 0, err
				}
				_, err := c.SetIfAbsent(ctx, key, value)
				return 0, err
			},
			SetMany: c.SetMany, Delete: c.Delete, DeleteMany: c.DeleteMany, Update: c.Update,
			Invalidate: c.Invalidate, InvalidateAll: c.InvalidateAll,
		}},
		Transact: func(ctx context.Context, f func(context.Context, func(int) history.InTx) error) error {
			return c.Transact(ctx, func(ctx context.Context, tx *textbook.Tx[int, int64]) error {
				return f(ctx, func(int) history.InTx { return tx })
			})
		},
	}
}

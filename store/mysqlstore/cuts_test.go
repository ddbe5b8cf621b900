package mysqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// TestCutsAreSettledTruthfully cuts all connections while writers are at work, each
// on rows of its own and in every way to commit. What each was told, by Commit or by
// Settle, must be true of its rows, and stay so.
func TestCutsAreSettledTruthfully(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		proxy, via := dbtest.Via(t, dbtest.MariaDB(t))
		s := openAs(t, via, mysql)
		const writers, writes = 4, 60
		var cuts sync.WaitGroup
		defer cuts.Wait()
		var unknown, applied atomic.Int64
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() {
				a, b := fmt.Sprint("a", w), fmt.Sprint("b", w)
				held := map[string]lockstep.Row[string]{}
				for n := range writes {
					value := fmt.Sprint(n)
					next := map[string]string{a: value}
					var sets []changeSet
					switch n % 6 {
					case 0:
						sets = []changeSet{set(put(a, value))}
					case 1:
						sets = []changeSet{set(put(a, value)), set(put(b, value))}
						next[b] = value
					case 2:
						sets = []changeSet{set(erase(a))}
						next[a] = ""
					case 3:
						sets = []changeSet{set(expect(lockstep.ExpectAbsent, 0, put(a, value)), erase(b))}
						if held[a].Exists {
							sets[0].Changes[0] = expect(lockstep.ExpectVersion, held[a].Version, put(a, value))
						}
						next[b] = ""
					case 4:
						sets = []changeSet{set(put(a, value)), set(erase(b))}
						next[b] = ""
					case 5:
						sets = []changeSet{set(expect(lockstep.ExpectAbsent, 0, put(a, value)))}
						if held[a].Exists {
							sets = []changeSet{set(expect(lockstep.ExpectVersion, held[a].Version, put(a, value)))}
						}
					}
					if n%3 == w%3 {
						cuts.Go(proxy.CutAll)
					}
					outcomes, err := s.Commit(t.Context(), sets)
					told := err == nil
					if errors.Is(err, lockstep.ErrUnknownOutcome) {
						unknown.Add(1)
						settled, serr := settle(t, s, err)
						if serr != nil || settled.Err != nil {
							t.Errorf("write %d of writer %d: settled: %v, %v", n, w, serr, settled.Err)
							return
						}
						if told, outcomes = settled.Applied, settled.Outcomes; told {
							applied.Add(1)
						}
					} else if err != nil && !errors.Is(err, lockstep.ErrUnavailable) {
						t.Errorf("write %d of writer %d: %v", n, w, err)
						return
					}
					for i, o := range outcomes {
						if told && o.Err != nil {
							t.Errorf("write %d of writer %d: set %d: %v", n, w, i, o.Err)
							return
						}
					}
					for _, key := range []string{a, b} {
						row, err := loadAgain(t.Context(), s, key)
						if err != nil {
							t.Error(err)
							return
						}
						want := held[key].Value
						if v, changed := next[key]; told && changed {
							want = v
						}
						if row.Value != want || row.Exists != (want != "") || row.Version < held[key].Version {
							t.Errorf("write %d of writer %d (told applied=%t): key %s is %+v, want %q; it was %+v", n, w, told, key, row, want, held[key])
							return
						}
						held[key] = row
					}
				}
			})
		}
		group.Wait()
		t.Logf("%d unknown outcomes, %d of them applied", unknown.Load(), applied.Load())
		if unknown.Load() == 0 {
			t.Error("no outcome was unknown")
		}
	})
}

// settle asks until there is an answer, as the cache does.
func settle(t testing.TB, s *store, unknown error) (settled lockstep.Settlement[string], err error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if settled, err = s.Capabilities().Settle(t.Context(), unknown); err == nil {
			break
		}
	}
	return settled, err
}

func loadAgain(ctx context.Context, s *store, key string) (row lockstep.Row[string], err error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		var rows map[string]lockstep.Row[string]
		if rows, err = s.Load(ctx, []string{key}); err == nil {
			return rows[key], nil
		}
	}
	return row, err
}

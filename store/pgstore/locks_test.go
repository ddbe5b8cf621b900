package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// While somebody holds a row, the other sets of its batch are committed, and the set
// that names it says that it is blocked.
func TestALockedRowStallsNobodyElse(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	write(t, s, put("held", "old"), put("free", "old"))
	somebody := connect(t, url)
	run(t, somebody, "BEGIN")
	run(t, somebody, "SELECT FROM rows WHERE key = 'held' FOR UPDATE")
	run(t, somebody, "INSERT INTO rows (key, value, version) VALUES ('made', '\"theirs\"', 1)")
	for n, key := range []string{"held", "made"} {
		for _, conditional := range []bool{false, true} {
			t.Run(fmt.Sprint(key, conditional), func(t *testing.T) {
				value := fmt.Sprint(n, conditional)
				first := set(put("free", value))
				if conditional {
					first = changeSet{Changes: first.Changes, Checks: []check{{Key: "absent", Absent: true}}}
				}
				out, err := s.Commit(t.Context(), []changeSet{first, set(put("other", value), put(key, "blocked")), set(erase("nothing")), set(put("more", value))})
				if err != nil {
					t.Fatal(err)
				}
				for i, o := range out {
					if i == 1 {
						if !o.Blocked || !errors.Is(o.Err, lockstep.ErrUnavailable) {
							t.Errorf("the blocked set: %+v", o)
						}
					} else if o.Err != nil || o.Blocked {
						t.Errorf("set %d: %+v", i, o)
					}
				}
				wantRow(t, s, "free", value)
				wantRow(t, s, "more", value)
				wantAbsent(t, s, "other")
			})
		}
	}
	run(t, somebody, "ROLLBACK")
	wantRow(t, s, "held", "old")
}

// A set alone waits: as long as its context lasts, and then it says what it waited
// for, and that nothing was applied.
func TestASetAloneWaitsForALockedRow(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	for _, name := range []string{"Blind", "Conditional", "Deletion"} {
		t.Run(name, func(t *testing.T) {
			alone := put("k", "new")
			old := write(t, s, put("k", "old")).Rows[0].Version
			switch name {
			case "Conditional":
				alone = ifVersion(old, alone)
			case "Deletion":
				alone = erase("k")
			}
			somebody := connect(t, url)
			run(t, somebody, "BEGIN")
			run(t, somebody, "SELECT FROM rows WHERE key = 'k' FOR UPDATE")
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, err := s.Commit(ctx, []changeSet{set(alone)})
			wantError(t, err, lockstep.ErrUnavailable)
			if errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Errorf("it is unknown: %v", err)
			}
			wantRow(t, s, "k", "old")
			done := make(chan row, 1)
			go func() { done <- write(t, s, alone).Rows[0] }()
			await(t, url, waiting)
			run(t, somebody, "ROLLBACK")
			if r := <-done; r.Version <= old || r.Exists == alone.Delete {
				t.Errorf("the row is %+v, and was at version %d", r, old)
			}
		})
	}
}

// A lifetime begins when the row is had, not when it was asked for.
func TestALifetimeBeginsAfterTheLock(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	write(t, s, put("k", "old"))
	somebody := connect(t, url)
	run(t, somebody, "BEGIN")
	run(t, somebody, "SELECT FROM rows WHERE key = 'k' FOR UPDATE")
	c := put("k", "new")
	c.Lifetime = time.Hour
	done := make(chan row, 1)
	go func() { done <- write(t, s, c).Rows[0] }()
	await(t, url, waiting)
	var before time.Time
	if err := somebody.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&before); err != nil {
		t.Fatal(err)
	}
	run(t, somebody, "ROLLBACK")
	if r := <-done; r.ExpiresAt.Before(before.Add(time.Hour)) {
		t.Errorf("it ends at %v, and the lock was let go after %v", r.ExpiresAt, before)
	}
}

// Two databases, as two processes have them, whose batches name the same rows in
// opposite orders, in every form and with deletions among them, all finish.
func TestOppositeOrdersAllFinish(t *testing.T) {
	url := dbtest.Postgres(t)
	stores := []*store{openStore(t, url), openStore(t, url)}
	const keys, batches, writers = 12, 25, 3
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var group sync.WaitGroup
	for w := range 2 * writers {
		random := rand.New(rand.NewPCG(uint64(w), 3))
		s := stores[w%2]
		group.Go(func() {
			for n := range batches {
				var batch []changeSet
				for i := range keys {
					key := fmt.Sprint("key", i)
					if w%2 == 1 {
						key = fmt.Sprint("key", keys-1-i)
					}
					var one changeSet
					switch random.IntN(5) {
					case 0:
						one = set(erase(key))
					case 1:
						one = set(ifAbsent(put(key, "made")))
					case 2:
						one = set(put(key, "set"), erase(fmt.Sprint("key", random.IntN(i+1))))
						if one.Changes[1].Key == key {
							one.Changes = one.Changes[:1]
						}
					default:
						one = set(put(key, "set"))
					}
					if n%2 == 0 && one.Changes[0].Expect.Kind != 0 {
						one.Changes[0].Expect = lockstep.Expect{}
					}
					batch = append(batch, one)
				}
				out, err := s.Commit(ctx, batch)
				if err != nil {
					t.Errorf("Commit: %v", err)
					return
				}
				for _, o := range out {
					if o.Err != nil && !errors.Is(o.Err, lockstep.ErrConflict) && !o.Blocked {
						t.Errorf("outcome: %v", o.Err)
					}
				}
			}
		})
	}
	group.Wait()
}

func TestConditionalWritesFromTwoDatabasesLoseNoUpdate(t *testing.T) {
	url := dbtest.Postgres(t)
	stores := []*store{openStore(t, url), openStore(t, url)}
	const writers, each = 3, 20
	var group sync.WaitGroup
	for w := range 2 * writers {
		s := stores[w%2]
		group.Go(func() {
			for done := 0; done < each; {
				r := get(t, s, "counter")
				c := ifAbsent(put("counter", "+"))
				if r.Exists {
					c = ifVersion(r.Version, put("counter", r.Value+"+"))
				}
				out, err := s.Commit(t.Context(), []changeSet{set(c), set(put(fmt.Sprint("noise", w%3), "x"))})
				switch {
				case err != nil:
					t.Errorf("Commit: %v", err)
					return
				case out[0].Err == nil:
					done++
				case !errors.Is(out[0].Err, lockstep.ErrConflict) && !out[0].Blocked:
					t.Errorf("outcome: %v", out[0].Err)
					return
				}
			}
		})
	}
	group.Wait()
	if r := get(t, stores[0], "counter"); len(r.Value) != 2*writers*each {
		t.Errorf("of %d increments %d are there", 2*writers*each, len(r.Value))
	}
}

// Versions of one row, given by two databases with deletions and re-creations, are
// all different, and in the order of the commits that did not overlap.
func TestVersionsOfTwoDatabasesGrow(t *testing.T) {
	url := dbtest.Postgres(t)
	stores := []*store{openStore(t, url), openStore(t, url)}
	const writers, each = 3, 40
	seen := map[lockstep.Version]bool{}
	var acknowledged lockstep.Version // the highest
	var mu sync.Mutex
	var group sync.WaitGroup
	for w := range 2 * writers {
		s := stores[w%2]
		group.Go(func() {
			for n := range each {
				c := put("k", "v")
				if (n+w)%3 == 0 {
					c = erase("k")
				}
				mu.Lock()
				before := acknowledged
				mu.Unlock()
				out, err := s.Commit(t.Context(), []changeSet{set(c)})
				if err != nil || out[0].Err != nil {
					t.Errorf("Commit: %v, %v", err, out)
					return
				}
				v := out[0].Rows[0].Version
				if c.Delete && !out[0].Existed[0] {
					continue
				}
				mu.Lock()
				if v <= before || seen[v] {
					t.Errorf("version %d, after %d had been acknowledged (given twice: %t)", v, before, seen[v])
				}
				seen[v] = true
				acknowledged = max(acknowledged, v)
				mu.Unlock()
			}
		})
	}
	group.Wait()
}

// Sessions may begin with another isolation level.
func TestStricterIsolation(t *testing.T) {
	u, err := url.Parse(dbtest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("default_transaction_isolation", "serializable")
	u.RawQuery = q.Encode()
	s := openStore(t, u.String())
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for n := range 20 {
				batch := []changeSet{set(put("k", "v")), set(put(fmt.Sprint("k", w), "v")), set(erase(fmt.Sprint("k", n%4)))}
				if n%2 == 0 {
					batch = append(batch, changeSet{Checks: []check{{Key: "absent", Absent: true}}})
				}
				if out, err := s.Commit(t.Context(), batch); err != nil || out[0].Err != nil && !out[0].Blocked {
					t.Errorf("%+v, %v", out, err)
				}
			}
		})
	}
	group.Wait()
}

func TestLoneWritesOfLockedRowsStallNobodyElse(t *testing.T) {
	url := dbtest.Postgres(t)
	lock := func(made, row string) func() func() {
		return func() func() {
			somebody := connect(t, url)
			run(t, somebody, "BEGIN")
			run(t, somebody, row)
			run(t, somebody, made)
			return func() { run(t, somebody, "ROLLBACK") }
		}
	}
	t.Run("KeyValue", func(t *testing.T) {
		cachetest.LockedRows(t, openStore(t, url), "v", lock("INSERT INTO rows (key, value, version) VALUES ('made', '\"theirs\"', 1)",
			"SELECT FROM rows WHERE key IN ('a', 'b') FOR UPDATE"))
	})
	t.Run("Table", func(t *testing.T) {
		type V struct {
			N int `db:"n"`
		}
		s := mapTable[string, V](t, url, pgstore.TableOptions{}, `CREATE TABLE t (id text PRIMARY KEY, n int)`)
		cachetest.LockedRows(t, s, V{1}, lock("INSERT INTO t VALUES ('made', 7)", "SELECT FROM t WHERE id IN ('a', 'b') FOR UPDATE"))
	})
}

package mysqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// openAs opens the default table as on a server of that kind.
func openAs(t testing.TB, dsn string, mysql bool) *store {
	t.Helper()
	db, err := mysqlstore.OpenDatabase(t.Context(), connect(t, dsn), mysqlstore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if mysql {
		mysqlstore.AsMySQL(db)
	}
	s, err := mysqlstore.OpenIn[string, string](t.Context(), db, mysqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dialects runs a test as on MariaDB and as on MySQL; on a MySQL, on that alone.
func dialects(t *testing.T, test func(t *testing.T, mysql bool)) {
	if mysqlstore.OnMySQL(t) {
		t.Run("MySQL", func(t *testing.T) { test(t, true) })
		return
	}
	t.Run("MariaDB", func(t *testing.T) { test(t, false) })
	t.Run("AsMySQL", func(t *testing.T) { test(t, true) })
}

// begin opens a transaction of somebody else's.
func begin(t testing.TB, pool *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := pool.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	return tx
}

// TestLockedRowDoesNotStallOtherSets holds a row that is there, and one that
// somebody has inserted and not committed, against batches of every kind.
func TestLockedRowDoesNotStallOtherSets(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		s := openAs(t, dsn, mysql)
		write(t, s, put("locked", "0"), put("there", "0"), put("gone", "0"))
		write(t, s, erase("gone"))
		tx := begin(t, connect(t, dsn))
		execute(t, tx, "SELECT * FROM lockstep WHERE `key` = 'locked' FOR UPDATE")
		execute(t, tx, "INSERT INTO lockstep VALUES ('inserted', '\"\"', 1, NULL, 0, 0)")

		checked := set(put("x", "1"))
		checked.Checks = []lockstep.Check[string]{{Key: "locked", Absent: true}}
		absent := set(put("y", "1"))
		absent.Checks = []lockstep.Check[string]{{Key: "inserted", Absent: true}}
		for _, c := range []struct {
			name    string
			sets    []changeSet
			blocked []int
		}{
			{"blind", []changeSet{set(put("a", "1")), set(put("locked", "1")), set(put("b", "1"), put("locked", "2")), set(put("there", "1"))}, []int{1, 2}},
			{"blind, a row that is not committed yet", []changeSet{set(put("a", "2")), set(put("inserted", "1")), set(put("new", "1"))}, []int{1}},
			{"deletions", []changeSet{set(erase("locked")), set(erase("there")), set(erase("gone"), put("c", "1"))}, []int{0}},
			{"checks", []changeSet{set(put("d", "1")), checked, absent, set(erase("never"))}, []int{1, 2}},
			{"conditions", []changeSet{
				set(expect(lockstep.ExpectAbsent, 0, put("e", "1"))),
				set(expect(lockstep.ExpectAbsent, 0, put("inserted", "1"))),
				set(expect(lockstep.ExpectVersion, 1, put("locked", "1")))}, []int{1, 2}},
		} {
			outcomes, err := s.Commit(t.Context(), c.sets)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			for i, o := range outcomes {
				switch {
				case slices.Contains(c.blocked, i):
					if !o.Blocked || !errors.Is(o.Err, lockstep.ErrUnavailable) {
						t.Errorf("%s: set %d: %v, blocked=%t, want it blocked", c.name, i, o.Err, o.Blocked)
					}
				case o.Err != nil:
					t.Errorf("%s: set %d was left out: %v", c.name, i, o.Err)
				}
			}
			for i, set := range c.sets {
				for _, change := range set.Changes {
					row := load(t, s, change.Key)
					if slices.Contains(c.blocked, i) {
						if row.Exists && row.Value == change.Value {
							t.Errorf("%s: blocked set %d has changed key %s", c.name, i, change.Key)
						}
					} else if row.Exists == change.Delete {
						t.Errorf("%s: set %d is committed, and key %s is %+v", c.name, i, change.Key, row)
					}
				}
			}
		}
	})
}

// TestOneSetWaitsForALockedRow: alone, a set waits as long as its context lasts.
func TestOneSetWaitsForALockedRow(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		pool := connect(t, dsn)
		s := openAs(t, dsn, mysql)
		write(t, s, put("k", "0"))
		waiting := mysqlstore.RowLockWaits(t)
		for _, sets := range [][]changeSet{
			{set(put("k", "1"))},
			{set(erase("k"))},
			{set(put("k", "2"), put("other", "2"))},
			{set(put("new", "1"))},
		} {
			tx := begin(t, pool)
			execute(t, tx, "SELECT * FROM lockstep WHERE `key` = 'k' FOR UPDATE")
			execute(t, tx, "INSERT INTO lockstep VALUES ('new', '\"\"', 1, NULL, 0, 0)")
			ctx, cancel := context.WithCancel(t.Context())
			before := load(t, s, "k")
			returned := make(chan error)
			commit := func(ctx context.Context) {
				outcomes, err := s.Commit(ctx, sets)
				if err == nil {
					err = outcomes[0].Err
				}
				returned <- err
			}
			go commit(ctx)
			waitFor(t, pool, 1, waiting)
			cancel()
			err := <-returned
			if mysql && errors.Is(err, lockstep.ErrUnknownOutcome) {
				// A lone statement waits for a second, for MySQL has no less.
				settled, serr := s.Capabilities().Settle(t.Context(), err)
				if serr != nil || settled.Err != nil || settled.Applied {
					t.Errorf("settled: %+v, %v, want not applied", settled, serr)
				}
			} else if !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Errorf("a wait whose context has ended: %v, want ErrUnavailable and not unknown", err)
			}
			// The server ends the session that was left behind, which would wait on.
			waitFor(t, pool, 0, waiting)
			if after := load(t, s, "k"); after != before {
				t.Errorf("the row is %+v, and was %+v", after, before)
			}
			go commit(t.Context())
			waitFor(t, pool, 1, waiting)
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			if err := <-returned; err != nil {
				t.Errorf("the row was given free, and the commit says: %v", err)
			}
		}
	})
}

// TestOppositeOrders: two processes change the same rows, each set naming them in an
// order of its own, deletions among the rest. All of them finish.
func TestOppositeOrders(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		stores := []*store{openAs(t, dsn, mysql), openAs(t, dsn, mysql)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var group sync.WaitGroup
		for worker := range 6 {
			s := stores[worker%2]
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			group.Go(func() {
				for n := range 30 {
					var changes []change
					for _, i := range random.Perm(6)[:4] {
						c := put(fmt.Sprint("key", i), fmt.Sprint(worker, n))
						c.Delete = random.IntN(3) == 0
						changes = append(changes, c)
					}
					sets := []changeSet{set(changes...)}
					if n%3 == 0 {
						sets = []changeSet{set(changes[0]), set(changes[1]), set(changes[2:]...)}
					}
					outcomes, err := s.Commit(ctx, sets)
					if err != nil {
						t.Errorf("worker %d: %v", worker, err)
						return
					}
					for i, o := range outcomes {
						if o.Blocked {
							again, err := s.Commit(ctx, sets[i:i+1])
							if err != nil {
								t.Errorf("worker %d, alone: %v", worker, err)
								return
							}
							o = again[0]
						}
						if o.Err != nil {
							t.Errorf("worker %d: %v", worker, o.Err)
						}
					}
				}
			})
		}
		group.Wait()
	})
}

// TestConditionalWritesLoseNoUpdate counts one row up from two processes.
func TestConditionalWritesLoseNoUpdate(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		stores := []*store{openAs(t, dsn, mysql), openAs(t, dsn, mysql)}
		var group sync.WaitGroup
		const workers, each = 4, 20
		for worker := range workers {
			s := stores[worker%2]
			group.Go(func() {
				for done := 0; done < each; {
					rows, err := s.Load(t.Context(), []string{"k"})
					if err != nil {
						t.Error(err)
						return
					}
					n := 0
					c := expect(lockstep.ExpectAbsent, 0, put("k", "1"))
					if row := rows["k"]; row.Exists {
						fmt.Sscan(row.Value, &n)
						c = expect(lockstep.ExpectVersion, row.Version, put("k", fmt.Sprint(n+1)))
					}
					sets := []changeSet{set(c)}
					if done%2 == 0 { // in company it goes another way
						sets = append(sets, set(put(fmt.Sprint("company", worker), "")))
					}
					outcomes, err := s.Commit(t.Context(), sets)
					if err != nil {
						t.Error(err)
						return
					}
					switch err := outcomes[0].Err; {
					case err == nil:
						done++
					case !errors.Is(err, lockstep.ErrConflict) && !outcomes[0].Blocked:
						t.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		if got := load(t, stores[0], "k").Value; got != fmt.Sprint(workers*each) {
			t.Errorf("after %d updates the row is %s", workers*each, got)
		}
	})
}

// TestVersionsGrowFromTwoProcesses writes, deletes and makes one row again, in every
// way, from two processes. Commits that did not overlap have versions in their
// order.
func TestVersionsGrowFromTwoProcesses(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		stores := []*store{openAs(t, dsn, mysql), openAs(t, dsn, mysql)}
		type commit struct {
			begun, ended int64
			version      lockstep.Version
		}
		var clock atomic.Int64
		var mu sync.Mutex
		var commits []commit
		var group sync.WaitGroup
		for worker := range 6 {
			s := stores[worker%2]
			random := rand.New(rand.NewPCG(uint64(worker), 2))
			group.Go(func() {
				for n := range 30 {
					sets := []changeSet{set(put("k", fmt.Sprint(n)))}
					switch random.IntN(4) {
					case 0:
						sets = []changeSet{set(erase("k"))}
					case 1:
						sets = append(sets, set(put("k", "again")))
					case 2:
						sets = []changeSet{set(erase("k")), set(put("k", "again"))}
					}
					begun := clock.Add(1)
					outcomes, err := s.Commit(t.Context(), sets)
					ended := clock.Add(1)
					if err != nil {
						t.Error(err)
						return
					}
					for i, o := range outcomes {
						if o.Blocked || o.Err == nil && sets[i].Changes[0].Delete && !o.Existed[0] {
							continue
						}
						if o.Err != nil {
							t.Error(o.Err)
							return
						}
						mu.Lock()
						commits = append(commits, commit{begun, ended, o.Rows[0].Version})
						mu.Unlock()
					}
				}
			})
		}
		group.Wait()
		slices.SortFunc(commits, func(a, b commit) int { return int(a.version - b.version) })
		latest := int64(0)
		for i, c := range commits {
			if i > 0 && c.version == commits[i-1].version {
				t.Errorf("two commits got version %d", c.version)
			}
			if c.ended < latest {
				t.Errorf("version %d was acknowledged before the commit of a lower version began", c.version)
			}
			latest = max(latest, c.begun)
		}
		if len(commits) < 60 {
			t.Errorf("only %d commits", len(commits))
		}
	})
}

// TestAbsenceIsLocked: what a set of several keys has found absent stays so until it
// is committed, although it writes nothing there.
func TestAbsenceIsLocked(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		s, other := openAs(t, dsn, mysql), openAs(t, dsn, mysql)
		txn, err := s.Capabilities().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		checked := set(put("a", "1"))
		checked.Checks = []lockstep.Check[string]{{Key: "absent", Absent: true}}
		if o, err := s.Capabilities().Apply(t.Context(), txn, checked); err != nil || o.Err != nil {
			t.Fatal(err, o.Err)
		}
		outcomes, err := other.Commit(t.Context(), []changeSet{set(put("absent", "1")), set(put("b", "1"))})
		if err != nil || !outcomes[0].Blocked || outcomes[1].Err != nil {
			t.Errorf("beside the transaction: %v, %+v, want the first blocked", err, outcomes)
		}
		if err := txn.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		var rows int
		if err := connect(t, dsn).QueryRow("SELECT COUNT(*) FROM lockstep WHERE version = 0 OR `key` = 'absent'").Scan(&rows); err != nil || rows != 0 {
			t.Errorf("%d rows (%v) are left of what was only locked", rows, err)
		}
		write(t, other, put("absent", "2"))
	})
}

// TestRefusedRowFailsItsSetAlone: a constraint that somebody has added refuses one
// set of a batch, in every way to commit.
func TestRefusedRowFailsItsSetAlone(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		s := openAs(t, dsn, mysql)
		write(t, s, put("there", "0"))
		execute(t, connect(t, dsn), "ALTER TABLE lockstep ADD CONSTRAINT no CHECK (value <> '\"refused\"')")
		bad := put("bad", "refused")
		for _, c := range []struct {
			name string
			sets []changeSet
			bad  int
		}{
			{"alone", []changeSet{set(bad)}, 0},
			{"alone, if absent", []changeSet{set(expect(lockstep.ExpectAbsent, 0, bad))}, 0},
			{"one set", []changeSet{set(put("a", "1"), bad)}, 0},
			{"blind", []changeSet{set(put("a", "2")), set(put("b", "2"), bad, put("c", "2")), set(put("d", "2"))}, 1},
			{"a row that is there", []changeSet{set(put("a", "3")), set(put("there", "refused")), set(put("d", "3"))}, 1},
			{"with deletions", []changeSet{set(erase("a"), put("e", "4")), set(erase("d"), bad), set(put("d", "4")), set(erase("e"))}, 1},
		} {
			before := map[string]lockstep.Row[string]{}
			for _, change := range c.sets[c.bad].Changes {
				before[change.Key] = load(t, s, change.Key)
			}
			outcomes, err := s.Commit(t.Context(), c.sets)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			for i, o := range outcomes {
				if i == c.bad != errors.Is(o.Err, lockstep.ErrInvalid) || i != c.bad && o.Err != nil {
					t.Errorf("%s: set %d: %v", c.name, i, o.Err)
				}
			}
			for key, was := range before {
				if row := load(t, s, key); row != was && key != "d" {
					t.Errorf("%s: key %s is %+v, and was %+v", c.name, key, row, was)
				}
			}
		}
		for key, want := range map[string]string{"a": "", "b": "", "c": "", "bad": "", "d": "4", "e": "", "there": "0"} {
			if row := load(t, s, key); row.Value != want {
				t.Errorf("key %s is %+v, want %q", key, row, want)
			}
		}
	})
}

// A caller who leaves while the server does not answer a ROLLBACK does not wait for it.
func TestACallerDoesNotWaitForARollback(t *testing.T) {
	proxy, via := dbtest.Via(t, dbtest.MariaDB(t))
	s := openStore(t, via)
	write(t, s, put("k", "before"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	held, release := proxy.HoldReply("\x03ROLLBACK")
	defer release()
	done := make(chan error, 1)
	go func() {
		outcomes, err := s.Commit(ctx, []changeSet{set(expect(lockstep.ExpectVersion, 1, put("k", "after")))})
		if err == nil {
			err = outcomes[0].Err
		}
		done <- err
	}()
	<-held
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, lockstep.ErrConflict) {
			t.Error(err)
		}
	case <-time.After(3 * time.Second):
		t.Error("the caller still waits for the server")
		release()
		<-done
	}
	if got := load(t, s, "k"); got.Value != "before" {
		t.Errorf("%+v", got)
	}
}

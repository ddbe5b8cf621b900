package mysqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

type counted struct {
	N int `db:"n"`
}

// While somebody holds a row, or has inserted one, the other sets of its batch are
// committed; alone, the set waits.
func TestALockedRowOfATableStallsNobodyElse(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		s := mapAs[string, counted](t, dsn, mysql, mysqlstore.TableOptions{}, `CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, n INT)`)
		pool := connect(t, dsn)
		store1(t, s, "held", counted{1})
		store1(t, s, "there", counted{1})
		somebody := begin(t, pool)
		execute(t, somebody, "UPDATE t SET n = 2 WHERE id = 'held'")
		execute(t, somebody, "INSERT INTO t VALUES ('made', 1)")
		type set = lockstep.ChangeSet[string, counted]
		one := func(k string) set {
			return set{Changes: []lockstep.Change[string, counted]{{Key: k, Value: counted{7}}}}
		}
		for _, key := range []string{"held", "made"} {
			out, err := s.Commit(t.Context(), []set{one("free"), one(key), one("there"), one("other")})
			if err != nil {
				t.Fatal(err)
			}
			for i, o := range out {
				if o.Blocked != (i == 1) || errors.Is(o.Err, lockstep.ErrUnavailable) != (i == 1) || i != 1 && o.Err != nil {
					t.Errorf("%s: set %d: %+v", key, i, o)
				}
			}
			if r := load1(t, s, "other"); r.Value.N != 7 {
				t.Errorf("%+v", r)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			_, err = s.Commit(ctx, []set{one(key)})
			cancel()
			if !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Errorf("%s, alone: %v", key, err)
			}
		}
		waiting := mysqlstore.RowLockWaits(t)
		waitFor(t, pool, 0, waiting)
		done := make(chan lockstep.Outcome[counted], 2)
		for _, key := range []string{"held", "made"} {
			go func() {
				out, err := s.Commit(t.Context(), []set{one(key)})
				if err != nil {
					out = []lockstep.Outcome[counted]{{Err: err}}
				}
				done <- out[0]
			}()
		}
		waitFor(t, pool, 2, waiting)
		if err := somebody.Commit(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if o := <-done; o.Err != nil || o.Rows[0].Value.N != 7 {
				t.Errorf("%+v", o)
			}
		}
	})
}

// Two transactions that each rely on the absence of what the other inserts do not
// both commit, from whatever process; nor does one see a part of the other. Blind
// writers of one absent key all succeed.
func TestAbsenceInATableIsHeld(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	first := mapTable[string, counted](t, dsn, mysqlstore.TableOptions{}, `CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, n INT)`)
	second := mapTable[string, counted](t, dsn, mysqlstore.TableOptions{})
	type set = lockstep.ChangeSet[string, counted]
	for round := range 30 {
		a, b := fmt.Sprint("a", round), fmt.Sprint("b", round)
		var wg sync.WaitGroup
		var committed [2]bool
		for i, x := range []struct {
			s                *mysqlstore.Table[string, counted]
			inserted, absent string
		}{{first, a, b}, {second, b, a}} {
			wg.Go(func() {
				changes := []lockstep.Change[string, counted]{{Key: x.inserted, Value: counted{round}}}
				checks := []lockstep.Check[string]{{Key: x.absent, Absent: true}}
				if round%2 == 1 { // a deletion of what is absent is as good as a check
					checks = nil
					changes = append(changes, lockstep.Change[string, counted]{Key: x.absent, Delete: true})
				}
				out, err := x.s.Commit(t.Context(), []set{{Changes: changes, Checks: checks}})
				switch {
				case err != nil:
					t.Error(err)
				case out[0].Err != nil && !errors.Is(out[0].Err, lockstep.ErrConflict):
					t.Error(out[0].Err)
				}
				committed[i] = err == nil && out[0].Err == nil
			})
		}
		wg.Wait()
		rows, err := first.Load(t.Context(), []string{a, b})
		if err != nil || len(rows) != 1 {
			t.Fatalf("round %d: %v, %v; committed %v", round, rows, err, committed)
		}
	}
	var wg sync.WaitGroup
	for _, s := range []*mysqlstore.Table[string, counted]{first, second} {
		for range 4 {
			wg.Go(func() {
				for n := range 25 {
					if o := change1(t, s, lockstep.Change[string, counted]{Key: "same", Value: counted{n}, Delete: n%2 == 1}); o.Err != nil {
						t.Error(o.Err)
					}
				}
			})
		}
	}
	wg.Wait()
}

// In a batch of several sets, which passes locked rows over, a row that is being
// inserted looked like one that is absent, and nothing kept it from being committed
// before the set that relied on its absence: a reader could see it, and not yet what
// the set had written before it.
func TestAbsenceOfARowThatIsBeingInserted(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		s := mapAs[string, counted](t, dsn, mysql, mysqlstore.TableOptions{}, `CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, n INT)`, `INSERT INTO t VALUES ('a', 1), ('z', 1)`)
		type set = lockstep.ChangeSet[string, counted]
		relies := func(key string) set {
			return set{
				Changes: []lockstep.Change[string, counted]{{Key: "a", Value: counted{2}}},
				Checks:  []lockstep.Check[string]{{Key: key, Absent: true}},
			}
		}
		other := set{Changes: []lockstep.Change[string, counted]{{Key: "z", Value: counted{2}}}}
		pool := connect(t, dsn)
		somebody := begin(t, pool)
		execute(t, somebody, "INSERT INTO t VALUES ('m', 1)")
		out, err := s.Commit(t.Context(), []set{relies("m"), other})
		if err != nil || !out[0].Blocked || out[1].Err != nil {
			t.Fatalf("%+v, %v", out, err)
		}
		decided := make(chan []lockstep.Outcome[counted])
		go func() {
			out, err := s.Commit(t.Context(), []set{relies("m")})
			if err != nil {
				t.Error(err)
			}
			decided <- out
		}()
		waitFor(t, pool, 1, mysqlstore.RowLockWaits(t))
		execute(t, somebody, "COMMIT")
		if out := <-decided; len(out) != 1 || !errors.Is(out[0].Err, lockstep.ErrConflict) {
			t.Errorf("when the row was there: %+v", out)
		}
		if out, err := s.Commit(t.Context(), []set{relies("n")}); err != nil || out[0].Err != nil {
			t.Errorf("with a row that is absent: %+v, %v", out, err)
		}
	})
}

// A transaction of several caches holds what it relies on against other programs.
func TestAbsenceInATransactionOfSeveralTables(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	s := mapTable[string, counted](t, dsn, mysqlstore.TableOptions{}, `CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, n INT)`, `INSERT INTO t VALUES ('a', 1), ('z', 1)`)
	caps := s.Capabilities()
	type set = lockstep.ChangeSet[string, counted]
	x, err := caps.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer x.Rollback(t.Context())
	o, err := caps.Apply(t.Context(), x, set{Changes: []lockstep.Change[string, counted]{{Key: "y", Value: counted{1}}}, Checks: []lockstep.Check[string]{{Key: "m", Absent: true}}})
	if err != nil || o.Err != nil {
		t.Fatal(err, o.Err)
	}
	pool := connect(t, dsn+"?innodb_lock_wait_timeout=0")
	if _, err := pool.ExecContext(t.Context(), "INSERT INTO t VALUES ('m', 1)"); err == nil {
		t.Error("a row has appeared on whose absence a transaction relies")
	}
	if err := x.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	execute(t, pool, "INSERT INTO t VALUES ('m', 1)")
	// What was inserted while it was not looked at is found.
	x, err = caps.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer x.Rollback(t.Context())
	if o, err = caps.Apply(t.Context(), x, set{Changes: []lockstep.Change[string, counted]{{Key: "n", Value: counted{1}}}}); err != nil || o.Err != nil {
		t.Fatal(err, o.Err)
	}
	execute(t, pool, "INSERT INTO t VALUES ('b', 5)")
	o, err = caps.Apply(t.Context(), x, set{Changes: []lockstep.Change[string, counted]{{Key: "b", Value: counted{6}}}})
	if err != nil || o.Err != nil || !o.Existed[0] || o.Rows[0].Value.N != 6 {
		t.Errorf("%+v, %v", o, err)
	}
	if err := x.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := load1(t, s, "b"); r.Value.N != 6 {
		t.Errorf("%+v", r)
	}
}

// Two processes change the same rows, each set naming them in an order of its own,
// deletions among the rest. All of them finish.
func TestOppositeOrdersInATable(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	stores := []*mysqlstore.Table[int, counted]{
		mapTable[int, counted](t, dsn, mysqlstore.TableOptions{}, `CREATE TABLE t (id INT PRIMARY KEY, n INT UNIQUE)`), mapTable[int, counted](t, dsn, mysqlstore.TableOptions{})}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type set = lockstep.ChangeSet[int, counted]
	var group sync.WaitGroup
	for worker := range 6 {
		s := stores[worker%2]
		random := rand.New(rand.NewPCG(uint64(worker), 1))
		group.Go(func() {
			for n := range 30 {
				var changes []lockstep.Change[int, counted]
				for at, i := range random.Perm(6)[:4] {
					changes = append(changes, lockstep.Change[int, counted]{Key: i, Value: counted{worker*1000 + n*10 + at}, Delete: random.IntN(3) == 0})
				}
				sets := []set{{Changes: changes}}
				if n%3 == 0 {
					sets = []set{{Changes: changes[:1]}, {Changes: changes[1:2]}, {Changes: changes[2:]}}
				}
				out, err := s.Commit(ctx, sets)
				if err != nil {
					t.Errorf("worker %d: %v", worker, err)
					return
				}
				for i, o := range out {
					if o.Blocked {
						if out, err = s.Commit(ctx, sets[i:i+1]); err != nil {
							t.Errorf("worker %d, alone: %v", worker, err)
							return
						}
						o = out[0]
					}
					if o.Err != nil {
						t.Errorf("worker %d: %v", worker, o.Err)
					}
				}
			}
		})
	}
	group.Wait()
}

// Update and Transact count up from two programs, whether the table has versions or
// not, and the program's own SQL is committed with what a transaction writes.
func TestNoUpdateOfATableIsLost(t *testing.T) {
	for _, version := range []string{"", "version"} {
		dsn := dbtest.MariaDB(t)
		pool := connect(t, dsn)
		var caches []*lockstep.Cache[int, counted]
		execute(t, pool, "CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL, version BIGINT NOT NULL DEFAULT 0)")
		execute(t, pool, "CREATE TABLE log (line TEXT)")
		var group sync.WaitGroup
		const each = 20
		for range 2 {
			s := mapTable[int, counted](t, dsn, mysqlstore.TableOptions{VersionColumn: version})
			cache := cachetest.Open(t, s, lockstep.Options[int, counted]{})
			caches = append(caches, cache)
			group.Go(func() {
				for range each {
					if _, err := cache.Update(t.Context(), 1, func(v counted, _ bool) (counted, error) { return counted{v.N + 1}, nil }); err != nil {
						t.Error(err)
					}
				}
			})
			group.Go(func() {
				for n := range each {
					err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
						v, err := cache.In(tx).Get(ctx, 1)
						if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
							return err
						}
						if n%4 == 0 {
							sql, err := mysqlstore.Tx(tx)
							if err != nil {
								return err
							}
							if _, err := sql.ExecContext(ctx, "INSERT INTO log VALUES ('x')"); err != nil {
								return err
							}
						}
						return cache.In(tx).Set(ctx, 1, counted{v.N + 1})
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		for _, cache := range caches {
			cache.InvalidateAll() // each may be behind what the other has written
		}
		waitFor(t, pool, 4*each, "SELECT n FROM t WHERE id = 1")
		waitFor(t, pool, 2*each/4, "SELECT COUNT(*) FROM log")
	}
}

type countedVersion struct {
	N       int   `db:"n"`
	Version int64 `db:"version,version"`
}

// An insertion whose row has come and gone since the clock was read got a version
// below the deletion's, or the same one.
func TestAnInsertionHasAVersionAboveADeletionThatCameBetween(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		s := mapAs[string, countedVersion](t, dsn, mysql, mysqlstore.TableOptions{},
			`CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, n INT, version BIGINT NOT NULL)`,
			`CREATE TRIGGER pause BEFORE INSERT ON t FOR EACH ROW IF NEW.n = 42 THEN DO GET_LOCK('pause', 60); END IF`)
		pool := connect(t, dsn)
		somebody := begin(t, pool)
		execute(t, somebody, "DO GET_LOCK('pause', 0)")
		inserted := make(chan lockstep.Outcome[countedVersion])
		go func() {
			inserted <- change1(t, s, lockstep.Change[string, countedVersion]{Key: "k", Value: countedVersion{N: 42}})
		}()
		waitFor(t, pool, 1, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User lock'")
		store1(t, s, "k", countedVersion{N: 1})
		deleted := change1(t, s, lockstep.Change[string, countedVersion]{Key: "k", Delete: true})
		execute(t, somebody, "DO RELEASE_LOCK('pause')")
		o := <-inserted
		if o.Err != nil || deleted.Err != nil || !deleted.Existed[0] {
			t.Fatalf("%+v, %+v", o, deleted)
		}
		if o.Rows[0].Version <= deleted.Rows[0].Version {
			t.Errorf("the insertion has version %d, the deletion before it %d", o.Rows[0].Version, deleted.Rows[0].Version)
		}
		if r := load1(t, s, "k"); r.Version != o.Rows[0].Version {
			t.Errorf("version %d was told, and the row has %d", o.Rows[0].Version, r.Version)
		}
	})
}

func TestLoneWritesOfLockedRowsStallNobodyElse(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		pool := connect(t, dsn)
		lock := func(made, row string) func() func() {
			return func() func() {
				somebody := begin(t, pool)
				execute(t, somebody, row)
				execute(t, somebody, made)
				return func() { somebody.Rollback() }
			}
		}
		t.Run("KeyValue", func(t *testing.T) {
			db, err := mysqlstore.OpenDatabase(t.Context(), pool, mysqlstore.DatabaseOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if mysql {
				mysqlstore.AsMySQL(db)
			}
			s, err := mysqlstore.OpenIn[string, string](t.Context(), db, mysqlstore.Options{Table: "kept"})
			if err != nil {
				t.Fatal(err)
			}
			cachetest.LockedRows(t, s, "v", lock("INSERT INTO kept VALUES ('made', '\"theirs\"', 1, NULL, 0, 1)",
				"UPDATE kept SET stamp = 1 WHERE `key` IN ('a', 'b')"))
		})
		t.Run("Table", func(t *testing.T) {
			s := mapAs[string, counted](t, dsn, mysql, mysqlstore.TableOptions{}, `CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, n INT)`)
			cachetest.LockedRows(t, s, counted{1}, lock("INSERT INTO t VALUES ('made', 7)", "UPDATE t SET n = 9 WHERE id IN ('a', 'b')"))
		})
	})
}

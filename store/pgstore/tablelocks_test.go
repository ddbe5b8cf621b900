package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// While somebody holds a row, or has inserted one, the other sets of its batch are
// committed; alone, the set waits.
func TestALockedRowOfATableStallsNobodyElse(t *testing.T) {
	type V struct {
		N int `db:"n"`
	}
	url := dbtest.Postgres(t)
	s := mapTable[string, V](t, url, pgstore.TableOptions{}, `CREATE TABLE t (id text PRIMARY KEY, n int)`)
	store1(t, s, "held", V{1})
	somebody := connect(t, url)
	run(t, somebody, "BEGIN")
	run(t, somebody, "UPDATE t SET n = 2 WHERE id = 'held'")
	run(t, somebody, "INSERT INTO t VALUES ('made', 1)")
	type set = lockstep.ChangeSet[string, V]
	one := func(k string) set { return set{Changes: []lockstep.Change[string, V]{{Key: k, Value: V{7}}}} }
	for _, key := range []string{"held", "made"} {
		out, err := s.Commit(t.Context(), []set{one("free"), one(key), one("other")})
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range out {
			if o.Blocked != (i == 1) || errors.Is(o.Err, lockstep.ErrUnavailable) != (i == 1) {
				t.Errorf("%s: set %d: %+v", key, i, o)
			}
		}
		if r := load1(t, s, "other"); r.Value.N != 7 {
			t.Errorf("%+v", r)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err = s.Commit(ctx, []set{one(key)})
		cancel()
		if !errors.Is(err, lockstep.ErrUnavailable) && !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Errorf("%s, alone: %v", key, err)
		}
	}
	done := make(chan lockstep.Outcome[V], 2)
	for _, key := range []string{"held", "made"} {
		go func() {
			out, err := s.Commit(t.Context(), []set{one(key)})
			if err != nil {
				out = []lockstep.Outcome[V]{{Err: err}}
			}
			done <- out[0]
		}()
	}
	await(t, url, `SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
	run(t, somebody, "COMMIT")
	for range 2 {
		if o := <-done; o.Err != nil || o.Rows[0].Value.N != 7 {
			t.Errorf("%+v", o)
		}
	}
}

// Two transactions that each rely on the absence of what the other inserts do not
// both commit, from whatever process; nor does one see a part of the other.
func TestAbsenceIsHeldAgainstOtherDatabases(t *testing.T) {
	type V struct {
		N int `db:"n"`
	}
	url := dbtest.Postgres(t)
	first := mapTable[string, V](t, url, pgstore.TableOptions{}, `CREATE TABLE t (id text PRIMARY KEY, n int)`)
	second := mapTable[string, V](t, url, pgstore.TableOptions{})
	type set = lockstep.ChangeSet[string, V]
	for round := range 40 {
		a, b := fmt.Sprint("a", round), fmt.Sprint("b", round)
		var wg sync.WaitGroup
		var committed [2]bool
		for i, x := range []struct {
			s                *pgstore.Table[string, V]
			inserted, absent string
		}{{first, a, b}, {second, b, a}} {
			wg.Go(func() {
				changes := []lockstep.Change[string, V]{{Key: x.inserted, Value: V{round}}}
				checks := []lockstep.Check[string]{{Key: x.absent, Absent: true}}
				if round%2 == 1 { // a deletion of what is absent is as good as a check
					checks = nil
					changes = append(changes, lockstep.Change[string, V]{Key: x.absent, Delete: true})
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
}

// Blind writers of one key that comes and goes all succeed, from two processes too:
// who loses a race for its insertion may not lose them all.
func TestBlindWritersOfAKeyThatComesAndGoesAllSucceed(t *testing.T) {
	pgstore.Rivals(t, 2)
	type V struct {
		N int `db:"n"`
	}
	url := dbtest.Postgres(t)
	first := mapTable[string, V](t, url, pgstore.TableOptions{}, `CREATE TABLE t (id text PRIMARY KEY, n int)`)
	second := mapTable[string, V](t, url, pgstore.TableOptions{})
	var wg sync.WaitGroup
	for _, s := range []*pgstore.Table[string, V]{first, second} {
		for range 10 {
			wg.Go(func() {
				for n := range 25 {
					if o := change1(t, s, lockstep.Change[string, V]{Key: "same", Value: V{n}, Delete: n%2 == 1}); o.Err != nil {
						t.Error(o.Err)
					}
				}
			})
		}
	}
	wg.Wait()
}

// A deletion that waited for a transaction which deleted the row and inserted it again
// took it for absent, and said so, while the new row stayed where it was.
func TestADeletionThatWaitedForAReplacedRow(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	type change = lockstep.Change[string, V]
	url := dbtest.Postgres(t)
	s := mapTable[string, V](t, url, pgstore.TableOptions{}, "CREATE TABLE t (id text PRIMARY KEY, name text)")
	for name, deleted := range map[string]func() (lockstep.Outcome[V], error){
		"alone": func() (lockstep.Outcome[V], error) {
			out, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, V]{{Changes: []change{{Key: "k", Delete: true}}}})
			return append(out, lockstep.Outcome[V]{})[0], err
		},
		"in a transaction": func() (lockstep.Outcome[V], error) {
			caps := s.Capabilities()
			tx, err := caps.Begin(t.Context())
			if err != nil {
				return lockstep.Outcome[V]{}, err
			}
			out, err := caps.Apply(t.Context(), tx, lockstep.ChangeSet[string, V]{Changes: []change{{Key: "k", Delete: true}}})
			if err != nil {
				return out, errors.Join(err, tx.Rollback(t.Context()))
			}
			return out, tx.Commit(t.Context())
		},
	} {
		store1(t, s, "k", V{"first"})
		other := connect(t, url)
		run(t, other, "BEGIN")
		run(t, other, "DELETE FROM t WHERE id = 'k'")
		run(t, other, "INSERT INTO t VALUES ('k', 'second')")
		type result struct {
			lockstep.Outcome[V]
			err error
		}
		done := make(chan result, 1)
		go func() {
			out, err := deleted()
			done <- result{out, err}
		}()
		await(t, url, waiting)
		run(t, other, "COMMIT")
		if r := <-done; r.err != nil || r.Err != nil || !slices.Equal(r.Existed, []bool{true}) {
			t.Errorf("%s: the deletion says %+v, %v", name, r.Outcome, r.err)
		}
		if r := load1(t, s, "k"); r.Exists {
			t.Errorf("%s: the row is still there: %+v", name, r)
		}
	}
}

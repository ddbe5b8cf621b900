package mysqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

type (
	store     = mysqlstore.Store[string, string]
	change    = lockstep.Change[string, string]
	changeSet = lockstep.ChangeSet[string, string]
	outcome   = lockstep.Outcome[string]
)

func put(key, value string) change    { return change{Key: key, Value: value} }
func erase(key string) change         { return change{Key: key, Delete: true} }
func set(changes ...change) changeSet { return changeSet{Changes: changes} }

func expect(kind lockstep.ExpectKind, version lockstep.Version, c change) change {
	c.Expect = lockstep.Expect{Kind: kind, Version: version}
	return c
}

// write commits one set, which has to be applied.
func write(t testing.TB, s *store, changes ...change) outcome {
	t.Helper()
	outcomes, err := s.Commit(t.Context(), []changeSet{set(changes...)})
	if err == nil {
		err = outcomes[0].Err
	}
	if err != nil {
		t.Fatal(err)
	}
	return outcomes[0]
}

func load(t testing.TB, s *store, key string) lockstep.Row[string] {
	t.Helper()
	rows, err := s.Load(t.Context(), []string{key})
	if err != nil {
		t.Fatal(err)
	}
	return rows[key]
}

// TestLostReplies loses the request or the reply of the statement that commits, on
// the wire, for every way to commit. Settle has to tell which.
func TestLostReplies(t *testing.T) {
	const marker = "marker of the commit that is lost"
	ways := []struct {
		name, match string
		sets        func(version lockstep.Version) []changeSet
	}{
		{"set", marker, func(lockstep.Version) []changeSet { return []changeSet{set(put("k", marker))} }},
		{"set if version", marker, func(v lockstep.Version) []changeSet {
			return []changeSet{set(expect(lockstep.ExpectVersion, v, put("k", marker)))}
		}},
		{"set if absent", marker, func(lockstep.Version) []changeSet {
			return []changeSet{set(expect(lockstep.ExpectAbsent, 0, put("new", marker)))}
		}},
		{"several blind sets", mysqlstore.Of(t, marker, commitSent), func(lockstep.Version) []changeSet {
			return []changeSet{set(put("k", "first")), set(put("k", marker)), set(put("new", marker))}
		}},
		{"with lifetimes", mysqlstore.Of(t, marker, commitSent), func(lockstep.Version) []changeSet {
			c := put("k", marker)
			c.Lifetime = time.Hour
			return []changeSet{set(c)}
		}},
		{"a transaction", commitSent, func(v lockstep.Version) []changeSet {
			return []changeSet{set(expect(lockstep.ExpectVersion, v, put("k", marker)), put("new", "2")), set(erase("other"))}
		}},
		{"delete all", commitSent, func(lockstep.Version) []changeSet { return []changeSet{{DeleteAll: true}} }},
	}
	for _, way := range ways {
		for _, applied := range []bool{true, false} {
			name := way.name + ", request lost"
			if applied {
				name = way.name + ", reply lost"
			}
			t.Run(name, func(t *testing.T) {
				proxy, via := dbtest.Via(t, dbtest.MariaDB(t))
				s := openStore(t, via)
				write(t, s, put("other", "0"))
				before := load(t, s, "k")
				if way.name != "set if absent" {
					write(t, s, put("k", "before"))
					before = load(t, s, "k")
				}
				cut := proxy.CutRequest
				if applied {
					cut = proxy.CutReply
				}
				happened := cut(way.match)
				sets := way.sets(before.Version)
				_, err := s.Commit(t.Context(), sets)
				<-happened
				if !errors.Is(err, lockstep.ErrUnknownOutcome) {
					t.Fatalf("Commit: %v, want ErrUnknownOutcome", err)
				}
				settled, err := s.Capabilities().Settle(t.Context(), err)
				if err != nil {
					t.Fatal(err)
				}
				if way.name == "delete all" && !applied {
					// Every row could have been written again since.
					if settled.Err == nil {
						t.Fatalf("%+v, want it untold", settled)
					}
					return
				}
				if settled.Err != nil || settled.Applied != applied {
					t.Fatalf("settled as applied=%t (%v), want %t", settled.Applied, settled.Err, applied)
				}
				if !applied {
					if after := load(t, s, "k"); after != before {
						t.Errorf("the row is %+v, and was %+v", after, before)
					}
					if load(t, s, "new").Exists || !load(t, s, "other").Exists {
						t.Error("a part of the commit was applied")
					}
					return
				}
				if way.name == "delete all" {
					if load(t, s, "k").Exists {
						t.Error("the row is there after DeleteAll")
					}
					return
				}
				if len(settled.Outcomes) != len(sets) {
					t.Fatalf("settled with %d outcomes for %d sets", len(settled.Outcomes), len(sets))
				}
				last := map[string]lockstep.Row[string]{}
				for i, o := range settled.Outcomes {
					for j, c := range sets[i].Changes {
						if old := last[c.Key]; o.Rows[j].Version <= old.Version {
							t.Errorf("two changes of key %s have versions %d and %d", c.Key, old.Version, o.Rows[j].Version)
						}
						last[c.Key] = o.Rows[j]
					}
				}
				for key, want := range last {
					got := load(t, s, key)
					got.Remaining, want.Remaining = 0, 0
					if got != want {
						t.Errorf("key %s is %+v, and the settled outcome %+v", key, got, want)
					}
				}
			})
		}
	}
}

// TestLostReplyOvertaken: when somebody has written the row since, it cannot be told
// any more, and Settle says so.
func TestLostReplyOvertaken(t *testing.T) {
	for _, applied := range []bool{true, false} {
		dsn := dbtest.MariaDB(t)
		proxy, via := dbtest.Via(t, dsn)
		s, other := openStore(t, via), openStore(t, dsn)
		write(t, s, put("k", "before"))
		cut := proxy.CutRequest
		if applied {
			cut = proxy.CutReply
		}
		happened := cut("marker")
		_, err := s.Commit(t.Context(), []changeSet{set(put("k", "marker"))})
		<-happened
		if !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Fatalf("Commit: %v, want ErrUnknownOutcome", err)
		}
		write(t, other, put("k", "since"))
		settled, err := s.Capabilities().Settle(t.Context(), err)
		if err != nil || settled.Err == nil || settled.Applied {
			t.Errorf("settled: %+v, %v, want it untold", settled, err)
		}
	}
}

// TestLostReplyOfTxn is TestLostReplies for transactions across stores.
func TestLostReplyOfTxn(t *testing.T) {
	for _, applied := range []bool{true, false} {
		proxy, via := dbtest.Via(t, dbtest.MariaDB(t))
		s := openStore(t, via)
		second, err := mysqlstore.OpenIn[string, string](t.Context(), s.Database(), mysqlstore.Options{Table: "second"})
		if err != nil {
			t.Fatal(err)
		}
		write(t, s, put("k", "before"))
		txn, err := s.Capabilities().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, in := range []*store{s, second, s} {
			o, err := in.Capabilities().Apply(t.Context(), txn, set(put("k", "in the transaction"+string(rune('0'+i))), erase("absent")))
			if err != nil || o.Err != nil {
				t.Fatal(err, o.Err)
			}
		}
		cut := proxy.CutRequest
		if applied {
			cut = proxy.CutReply
		}
		happened := cut(commitSent)
		err = txn.Commit(t.Context())
		<-happened
		if !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Fatalf("Commit: %v, want ErrUnknownOutcome", err)
		}
		if got, err := txn.Settle(t.Context()); err != nil || got != applied {
			t.Errorf("settled as applied=%t (%v), want %t", got, err, applied)
		}
		if got := load(t, s, "k").Value == "in the transaction2"; got != applied {
			t.Errorf("applied=%t, and the row is %+v", applied, load(t, s, "k"))
		}
		if got := load(t, second, "k").Exists; got != applied {
			t.Errorf("applied=%t, and the second table's row is there: %t", applied, got)
		}
	}
}

// TestStoppedSessionWakesTooLate holds up the statement that commits inside the
// server, until its caller has left and the outcome is settled. Without an end of
// its session it would be applied when it goes on.
func TestStoppedSessionWakesTooLate(t *testing.T) {
	pool := connect(t, dbtest.MariaDB(t))
	s, err := mysqlstore.Open[string, string](t.Context(), pool, mysqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	write(t, s, put("k", "0"))
	before := load(t, s, "k")

	locker, err := pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer locker.Close()
	execute(t, locker, "LOCK TABLES lockstep READ")
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan error)
	go func() {
		_, err := s.Commit(ctx, []changeSet{set(put("k", "1"))})
		returned <- err
	}()
	waitFor(t, pool, 1, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND STATE LIKE 'Waiting for table%'")
	cancel()
	unknown := <-returned
	if !errors.Is(unknown, lockstep.ErrUnknownOutcome) {
		t.Fatalf("Commit: %v, want ErrUnknownOutcome", unknown)
	}
	settled, err := s.Capabilities().Settle(t.Context(), unknown)
	if err != nil || settled.Err != nil || settled.Applied {
		t.Fatalf("settled: %+v, %v, want not applied", settled, err)
	}
	waitFor(t, pool, 0, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND STATE LIKE 'Waiting for table%'")
	execute(t, locker, "UNLOCK TABLES")
	if after := load(t, s, "k"); after != before {
		t.Errorf("after the settlement the row is %+v, and was %+v", after, before)
	}
	write(t, s, put("k", "2"))
}

// TestServerCrash: what was acknowledged is there after a crash, the store goes on,
// and a commit under way is settled by the server that has come back.
func TestServerCrash(t *testing.T) {
	server := dbtest.StartMariaDB(t)
	proxy, via := dbtest.Via(t, server.URL())
	s := openStore(t, via)
	acknowledged := write(t, s, put("k", "0")).Rows[0].Version
	held, release := proxy.HoldReply("marker")
	defer release()
	returned := make(chan error)
	go func() {
		_, err := s.Commit(t.Context(), []changeSet{set(put("k", "marker"))})
		returned <- err
	}()
	<-held
	server.Kill()
	proxy.CutAll()
	unknown := <-returned
	if !errors.Is(unknown, lockstep.ErrUnknownOutcome) {
		t.Fatalf("Commit: %v, want ErrUnknownOutcome", unknown)
	}
	if _, err := s.Capabilities().Settle(t.Context(), unknown); err == nil {
		t.Error("settled while the server was down")
	}
	if _, err := s.Load(t.Context(), []string{"k"}); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("Load while the server is down: %v, want ErrUnavailable", err)
	}
	if _, err := s.Commit(t.Context(), []changeSet{set(put("k", "2"))}); !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("Commit while the server is down: %v, want ErrUnavailable and not unknown", err)
	}
	server.Start()
	settled, err := s.Capabilities().Settle(t.Context(), unknown)
	if err != nil || settled.Err != nil || !settled.Applied {
		t.Fatalf("settled: %+v, %v, want applied", settled, err)
	}
	if got := load(t, s, "k"); got.Value != "marker" || got.Version <= acknowledged {
		t.Errorf("the row is %+v", got)
	}
	write(t, s, put("k", "3"))
}

// A set that was refused on its own is not told as committed with the others of its
// batch, whose versions are lost.
func TestARefusedSetIsNotSettledWithItsBatch(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	proxy, via := dbtest.Via(t, dsn)
	s, others := openStore(t, via), openStore(t, dsn)
	happened := proxy.CutReply(mysqlstore.Of(t, "marker", commitSent))
	_, err := s.Commit(t.Context(), []changeSet{set(put("a", "marker")), set(put(strings.Repeat("long", 1000), "1")), set(put("b", "2"))})
	<-happened
	if !errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Fatalf("Commit: %v, want ErrUnknownOutcome", err)
	}
	write(t, others, put("b", "theirs"))
	settled, err := s.Capabilities().Settle(t.Context(), err)
	if err != nil || settled.Err != nil || !settled.Applied || len(settled.Outcomes) != 3 {
		t.Fatalf("settled as %+v, %v, want it applied", settled, err)
	}
	for i, o := range settled.Outcomes {
		if refused := i == 1; errors.Is(o.Err, lockstep.ErrTooLarge) != refused || !refused && o.Err != nil {
			t.Errorf("set %d: %v", i, o.Err)
		}
	}
}

// execute runs a statement of the test's own.
func execute(t testing.TB, db interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(context.Background(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// waitFor asks the server until it answers with n.
func waitFor(t testing.TB, pool *sql.DB, n int, query string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		var got int
		if err := pool.QueryRowContext(t.Context(), query).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still %d", query, got)
		}
	}
}

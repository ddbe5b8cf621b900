package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// A commit whose request or reply is lost on the wire, in each of its forms. What
// breaks is the one message that commits.
func TestALostReplyIsSettled(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	lostReplies(t, proxy, openStore(t, via), openStore(t, url))
}

func lostReplies(t *testing.T, proxy *dbtest.Proxy, s, direct *store) {
	commit := func(sets ...changeSet) func() error {
		return func() error {
			_, err := s.Commit(t.Context(), sets)
			return err
		}
	}
	for _, c := range []struct {
		name   string
		commit func() error
		marker string
		told   bool // Settle has the outcomes
	}{
		{"Blind", commit(set(put("k", "marker"))), "marker", false},
		{"BlindWithDeletions", commit(set(put("k", "marker")), set(erase("gone")), set(erase("never"))), "marker", false},
		{"Conditional", commit(changeSet{Changes: []change{put("k", "marker")}, Checks: []check{{Key: "absent", Absent: true}}}), "marker", true},
		{"DeleteAll", commit(changeSet{DeleteAll: true}), "COMMIT\x00", false},
		{"Transaction", func() error { return applyAndCommit(t, s, set(put("k", "marker"))) }, "COMMIT\x00", true},
	} {
		for _, applied := range []bool{true, false} {
			name := c.name + "/RequestLost"
			if applied {
				name = c.name + "/ReplyLost"
			}
			t.Run(name, func(t *testing.T) {
				// The statements are prepared, so that the first to meet the rule is the one.
				write(t, s, put("k", "warm"))
				write(t, s, put("gone", "there"))
				before := get(t, direct, "k")
				cut := proxy.CutRequest
				if applied {
					cut = proxy.CutReply
				}
				happened := cut(c.marker)
				err := c.commit()
				<-happened
				wantError(t, err, lockstep.ErrUnknownOutcome)
				settled, serr := s.Capabilities().Settle(t.Context(), err)
				if serr != nil || settled.Err != nil || settled.Applied != applied {
					t.Fatalf("settled as %+v, %v; want applied=%t", settled, serr, applied)
				}
				if !applied {
					if r := get(t, direct, "k"); r != before {
						t.Errorf("the row is %+v, it was %+v", r, before)
					}
					wantRow(t, direct, "gone", "there")
					return
				}
				if c.name == "DeleteAll" {
					wantAbsent(t, direct, "k")
					wantAbsent(t, direct, "gone")
					return
				}
				wantRow(t, direct, "k", "marker")
				if told := len(settled.Outcomes) == 1 && settled.Outcomes[0].Rows[0].Version == get(t, direct, "k").Version; c.name == "Conditional" && told != c.told {
					t.Errorf("the settlement has the outcomes %+v", settled.Outcomes)
				}
			})
		}
	}
}

func applyAndCommit(t testing.TB, s *store, set changeSet) error {
	caps := s.Capabilities()
	txn, err := caps.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	prepared, _, err := caps.Prepare(set.Changes[0])
	if err != nil {
		t.Fatal(err)
	}
	if o, err := caps.Apply(t.Context(), txn, changeSet{Changes: []change{prepared}}); err != nil || o.Err != nil {
		t.Fatal(err, o.Err)
	}
	err = txn.Commit(t.Context())
	if errors.Is(err, lockstep.ErrUnknownOutcome) {
		applied, serr := txn.Settle(t.Context())
		settled, err2 := caps.Settle(t.Context(), err)
		if serr != nil || err2 != nil || settled.Applied != applied {
			t.Errorf("Txn.Settle: %t, %v; Settle: %+v, %v", applied, serr, settled, err2)
		}
	}
	return err
}

// A transaction whose COMMIT was never sent is not unknown, whatever broke.
func TestACutBeforeCommitIsNotApplied(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	s := openStore(t, via)
	caps := s.Capabilities()
	txn, err := caps.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	proxy.CutAll()
	c, _, _ := caps.Prepare(put("k", "v"))
	_, err = caps.Apply(t.Context(), txn, set(c))
	wantError(t, err, lockstep.ErrUnavailable)
	err = txn.Commit(t.Context())
	wantError(t, err, lockstep.ErrUnavailable)
	if errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("it is unknown: %v", err)
	}
	if err := txn.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	// The connections that were cut are replaced.
	write(t, s, put("k", "again"))
	wantRow(t, s, "k", "again")
}

// A session that hangs in the middle of the statement that commits, here because of
// a lock, is written off, and wakes up after its key was settled: it changes nothing.
func TestASessionThatWakesUpAfterTheSettlement(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	s, direct := openStore(t, via), openStore(t, url)
	for _, c := range []struct {
		name string
		key  string
	}{
		{"Row", "k"},
		{"AbsentRow", "new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, s, put("k", "old"))
			somebody := connect(t, url)
			run(t, somebody, "BEGIN")
			if c.key == "k" {
				run(t, somebody, "SELECT FROM rows WHERE key = 'k' FOR UPDATE")
			} else {
				run(t, somebody, "INSERT INTO rows (key, value, version) VALUES ('new', '\"theirs\"', 1)")
			}
			failed := make(chan error, 1)
			go func() {
				_, err := s.Commit(t.Context(), []changeSet{set(put(c.key, "late"))})
				failed <- err
			}()
			await(t, url, waiting)
			proxy.CutAll() // the backend does not notice, and goes on waiting for its lock
			err := <-failed
			wantError(t, err, lockstep.ErrUnknownOutcome)
			settled, serr := direct.Capabilities().Settle(t.Context(), err)
			if serr != nil || settled.Applied || settled.Err != nil {
				t.Fatalf("settled as %+v, %v", settled, serr)
			}
			run(t, somebody, "ROLLBACK")
			await(t, url, `SELECT NOT (`+waiting+`)`)
			if c.key == "k" {
				wantRow(t, direct, "k", "old")
			} else {
				wantAbsent(t, direct, "new")
			}
		})
	}
}

// A row that somebody has changed since the commit tells nothing, where the reply
// was all that would have told.
func TestWhatCannotBeToldIsNotGuessed(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	s, direct := openStore(t, via), openStore(t, url)
	write(t, s, put("k", "warm"))
	happened := proxy.CutReply("marker")
	_, err := s.Commit(t.Context(), []changeSet{set(put("k", "marker"))})
	<-happened
	wantError(t, err, lockstep.ErrUnknownOutcome)
	write(t, direct, put("k", "theirs"))
	settled, serr := s.Capabilities().Settle(t.Context(), err)
	if serr != nil || settled.Applied || settled.Err == nil {
		t.Errorf("settled as %+v, %v", settled, serr)
	}

	// A transaction's id tells all the same, as long as the server is known not to have
	// crashed since it was given.
	older, err := s.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	happened = proxy.CutReply("marker")
	_, err = s.Commit(t.Context(), []changeSet{set(put("k", "marker")), {Checks: []check{{Key: "absent", Absent: true}}}})
	<-happened
	wantError(t, err, lockstep.ErrUnknownOutcome)
	write(t, direct, put("k", "theirs"))
	if err := older.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	settled, serr = s.Capabilities().Settle(t.Context(), err)
	if serr != nil || !settled.Applied || settled.Err != nil || len(settled.Outcomes) != 2 {
		t.Errorf("settled as %+v, %v", settled, serr)
	}
}

// A server that crashes in the middle of a commit, and comes back.
func TestACrashIsSettledAfterwards(t *testing.T) {
	server := dbtest.StartPostgres(t)
	proxy, via := dbtest.Via(t, server.URL())
	s := openStore(t, via)
	write(t, s, put("k", "old"))
	happened, release := proxy.HoldReply("marker")
	failed := make(chan error, 1)
	go func() {
		_, err := s.Commit(t.Context(), []changeSet{set(put("k", "marker")), {Checks: []check{{Key: "absent", Absent: true}}}})
		failed <- err
	}()
	<-happened
	server.Kill()
	proxy.CutAll()
	release()
	err := <-failed
	wantError(t, err, lockstep.ErrUnknownOutcome)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if settled, serr := s.Capabilities().Settle(ctx, err); !errors.Is(serr, lockstep.ErrUnavailable) {
		t.Fatalf("while the server is down, settled as %+v, %v", settled, serr)
	}
	server.Start()
	settled, serr := s.Capabilities().Settle(t.Context(), err)
	if serr != nil || !settled.Applied || settled.Err != nil {
		t.Fatalf("settled as %+v, %v", settled, serr)
	}
	wantRow(t, s, "k", "marker")
	write(t, s, put("k", "new"))
}

// A row that a sweep has ended since its commit is still the commit's.
func TestASweepDoesNotHideACommit(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	s := openStore(t, via)
	write(t, s, put("k", "warm"))
	happened := proxy.CutReply("marker")
	over := put("k", "marker")
	over.ExpiresAt = time.Now().Add(-time.Hour)
	_, err := s.Commit(t.Context(), []changeSet{set(over), {Checks: []check{{Key: "absent", Absent: true}}}})
	<-happened
	wantError(t, err, lockstep.ErrUnknownOutcome)
	execute(t, url, `UPDATE rows SET value = NULL, expires_at = NULL, deleted_at = version WHERE key = 'k'`) // as a sweep does
	settled, serr := s.Capabilities().Settle(t.Context(), err)
	if serr != nil || !settled.Applied || settled.Err != nil {
		t.Errorf("settled as %+v, %v", settled, serr)
	}
}

// Connections that were idle in the pool when the server ended them fail nobody who
// reads, or whose COMMIT was not sent; they are used up first.
func TestIdleConnectionsThatTheServerHasEnded(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	v := write(t, s, put("k", "old")).Rows[0].Version
	type V struct {
		Name string `db:"name"`
	}
	execute(t, url, "CREATE TABLE t AS SELECT 'k'::text AS id, 'n'::text AS name")
	execute(t, url, "ALTER TABLE t ADD PRIMARY KEY (id)")
	table, err := pgstore.NewTableIn[string, V](t.Context(), s.Database(), "t", pgstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, use := range map[string]func() error{
		"Load of a table": func() error { _, err := table.Load(t.Context(), []string{"k"}); return err },
		"Scan of a table": func() error {
			page, err := table.Capabilities().Scan(t.Context(), nil, 9)
			if err == nil && len(page.Keys) != 1 {
				err = fmt.Errorf("the page has %v", page.Keys)
			}
			return err
		},
		"Load": func() error { _, err := s.Load(t.Context(), []string{"k"}); return err },
		"Conditional": func() error {
			out, err := s.Commit(t.Context(), []changeSet{set(ifVersion(v, put("k", "new")))})
			if err == nil {
				err = out[0].Err
			}
			return err
		},
		"Begin": func() error {
			txn, err := s.Capabilities().Begin(t.Context())
			if err == nil {
				err = txn.Rollback(t.Context())
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var open []lockstep.Txn
			for range 3 { // the pool has four
				txn, err := s.Capabilities().Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, txn)
			}
			for _, txn := range open {
				if err := txn.Rollback(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			execute(t, url, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
			if err := use(); err != nil {
				t.Error(err)
			}
		})
	}
}

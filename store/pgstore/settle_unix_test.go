//go:build unix

package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// A backend that the kernel does not run cannot be ended, and nothing is said of its
// commit until it has been.
func TestASessionThatIsStopped(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	s, direct := openStore(t, via), openStore(t, url)
	write(t, s, put("k", "old"))
	somebody := connect(t, url)
	run(t, somebody, "BEGIN")
	run(t, somebody, "SELECT FROM rows WHERE key = 'k' FOR UPDATE")
	failed := make(chan error, 1)
	go func() {
		_, err := s.Commit(t.Context(), []changeSet{set(put("k", "late"))})
		failed <- err
	}()
	await(t, url, waiting)
	var pid int
	if err := somebody.QueryRow(t.Context(), `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	proxy.CutAll()
	err := <-failed
	wantError(t, err, lockstep.ErrUnknownOutcome)
	run(t, somebody, "ROLLBACK") // the stopped session has its lock, and only has to go on

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if settled, serr := direct.Capabilities().Settle(ctx, err); !errors.Is(serr, lockstep.ErrUnavailable) {
		t.Fatalf("settled as %+v, %v, and the session is there", settled, serr)
	}
	wantRow(t, direct, "k", "old")
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	settled, serr := direct.Capabilities().Settle(t.Context(), err)
	if serr != nil || settled.Err != nil {
		t.Fatalf("settled as %+v, %v", settled, serr)
	}
	r := get(t, direct, "k")
	if (r.Value == "late") != settled.Applied {
		t.Errorf("settled as %+v, and the row is %+v", settled, r)
	}
	write(t, direct, put("k", "new"))
	wantRow(t, direct, "k", "new")
}

// Behind a pooler nobody can end the backend. Its commit is settled while the kernel does
// not run it, and when it goes on, it changes nothing.
func TestALateCommitBehindAPoolerChangesNothing(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, pooledURL(t, url))
	s, direct := openPooledStore(t, via), openStore(t, url)
	// A row's lock is had before anything that commits is sent, for a mapped table; what
	// it waits for afterwards is a trigger's.
	execute(t, url, `CREATE TABLE mapped (id text PRIMARY KEY, name text);
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM FROM rows WHERE key = 'k' FOR UPDATE; RETURN new; END $$;
CREATE TRIGGER wait BEFORE INSERT ON mapped FOR EACH ROW EXECUTE FUNCTION wait()`)
	type thing struct {
		Name string `db:"name"`
	}
	mapped, err := pgstore.NewTableIn[string, thing](t.Context(), s.Database(), "mapped", pgstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, commit := range map[string]func() error{
		"Mapped": func() error {
			_, err := mapped.Commit(t.Context(), []lockstep.ChangeSet[string, thing]{{Changes: []lockstep.Change[string, thing]{{Key: "m", Value: thing{"late"}}}}})
			return err
		},
		"Blind": func() error {
			_, err := s.Commit(t.Context(), []changeSet{set(put("k", "late"))})
			return err
		},
		"Folded": func() error {
			_, err := s.Commit(t.Context(), []changeSet{set(put("k", "early")), set(put("k", "late")), set(put("l", "late"))})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, s, put("k", "old"))
			somebody := connect(t, url)
			run(t, somebody, "BEGIN")
			run(t, somebody, "SELECT FROM rows WHERE key = 'k' FOR UPDATE")
			failed := make(chan error, 1)
			go func() { failed <- commit() }()
			await(t, url, waiting)
			var pid int
			if err := somebody.QueryRow(t.Context(), `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&pid); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			defer syscall.Kill(pid, syscall.SIGCONT)
			proxy.CutAll()
			err := <-failed
			wantError(t, err, lockstep.ErrUnknownOutcome)
			settled, serr := s.Capabilities().Settle(t.Context(), err)
			if serr != nil || settled.Err != nil || settled.Applied {
				t.Fatalf("settled as %+v, %v, want not applied", settled, serr)
			}
			again, serr := s.Capabilities().Settle(t.Context(), err)
			if serr != nil || again.Err != nil || again.Applied {
				t.Errorf("settled once more as %+v, %v", again, serr)
			}
			run(t, somebody, "ROLLBACK") // the stopped session has its lock, and only has to go on
			before := get(t, direct, "k")
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			await(t, url, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)`, pid)
			if r := get(t, direct, "k"); r != before || r.Value != "old" {
				t.Errorf("the row is %+v, and was %+v when the commit was settled", r, before)
			}
			wantAbsent(t, direct, "l")
			await(t, url, "SELECT count(*) = 0 FROM mapped")
			write(t, s, put("k", "new"))
			wantRow(t, direct, "k", "new")
		})
	}
}

// A pool whose connections belong to several roles, as where passwords are given out
// for an hour, may have to settle what a session of another role has done. The server
// does not show it when that session began, which must not be taken for its end.
func TestASessionOfAnotherRoleIsNotTakenForGone(t *testing.T) {
	url := dbtest.Postgres(t)
	admin := connect(t, url)
	var roles [2]string
	for i := range roles {
		roles[i] = fmt.Sprintf("role%d_%x", i, rand.Uint64())
		run(t, admin, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'secret'", roles[i]))
		t.Cleanup(func() {
			c, err := pgx.Connect(context.Background(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(context.Background())
			if _, err := c.Exec(context.Background(), fmt.Sprintf("DROP OWNED BY %[1]s; DROP ROLE %[1]s", roles[i])); err != nil {
				t.Error(err)
			}
		})
	}
	s := openStore(t, url)
	run(t, admin, fmt.Sprintf("GRANT ALL ON rows, lockstep_tables TO %s, %s", roles[0], roles[1]))
	write(t, s, put("k", "old"))

	proxy, via := dbtest.Via(t, url)
	config, err := pgxpool.ParseConfig(via)
	if err != nil {
		t.Fatal(err)
	}
	var role atomic.Value
	role.Store(roles[0])
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		c.User, c.Password = role.Load().(string), "secret"
		return nil
	}
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	rotating, err := pgstore.OpenIn[string, string](t.Context(), overPool(pool)(t), pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	somebody := connect(t, url)
	run(t, somebody, "BEGIN")
	run(t, somebody, "SELECT FROM rows WHERE key = 'k' FOR UPDATE")
	failed := make(chan error, 1)
	go func() {
		_, err := rotating.Commit(t.Context(), []changeSet{set(put("k", "late"))})
		failed <- err
	}()
	await(t, url, waiting)
	var pid int
	if err := somebody.QueryRow(t.Context(), `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // or the driver's request to cancel would end it
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	role.Store(roles[1])
	proxy.CutAll()
	err = <-failed
	wantError(t, err, lockstep.ErrUnknownOutcome)
	settled, serr := rotating.Capabilities().Settle(t.Context(), err)
	if serr == nil {
		t.Errorf("with the session still there, it was settled as %+v", settled)
	}
	wantError(t, serr, lockstep.ErrUnavailable)
	run(t, somebody, "ROLLBACK")
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(t, url, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)`, roles[0])
	settled, serr = rotating.Capabilities().Settle(t.Context(), err)
	if r := get(t, s, "k"); serr != nil || settled.Err != nil || settled.Applied != (r.Value == "late") {
		t.Errorf("settled as %+v, %v, with the row %+v", settled, serr, r)
	}
}

package pgstore_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// An older copy of the database takes the server's place: what was acknowledged since is
// gone, and memory must not go on answering with it. Then the server has become a
// standby: it refuses, and memory does not answer for it either.
func TestAServerThatIsNotTheOneItWas(t *testing.T) {
	server := dbtest.StartPostgres(t)
	execute(t, server.URL(), `CREATE TABLE users (id text PRIMARY KEY, name text NOT NULL)`)
	pool := newPool(t, server.URL())
	db := mustOpen(t)(pgstore.OpenDatabase(t.Context(), pool, pgstore.DatabaseOptions{}))
	handle := newSQL(t, server.URL())
	overHandle := mustOpen(t)(pgstore.OpenDatabaseSQL(t.Context(), handle, pgstore.DatabaseOptions{}))
	// Behind a pooler the connections go on, and only the server's sessions are new.
	bouncer := dbtest.PgBouncer(t, server.URL(), "server_login_retry=1", "server_check_delay=0")
	pooled := overPooled(newPool(t, unprepared(bouncer.URL())))(t)
	type user struct {
		Name string `db:"name"`
	}
	open := func(db *pgstore.Database, name string) (*lockstep.Cache[string, string], *lockstep.Cache[string, user]) {
		t.Helper()
		own, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: name})
		if err != nil {
			t.Fatal(err)
		}
		mapped, err := pgstore.NewTableIn[string, user](t.Context(), db, "users", pgstore.TableOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return cachetest.Open(t, own, lockstep.Options[string, string]{}), cachetest.Open(t, mapped, lockstep.Options[string, user]{})
	}
	a, users := open(db, "one")
	b, _ := open(overHandle, "two")
	c, _ := open(pooled, "three")
	all := []*lockstep.Cache[string, string]{a, b, c}
	write := func(value string) {
		t.Helper()
		for _, c := range all {
			if _, err := c.Set(t.Context(), "k", value); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := users.Set(t.Context(), "k", user{Name: value}); err != nil {
			t.Fatal(err)
		}
	}
	// Polled: nothing is asked of the store but by the look that it takes by itself.
	forgets := func(replacements uint64) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for i, stats := range []func() lockstep.Stats{a.Stats, b.Stats, c.Stats, users.Stats} {
			for stats().Replacements < replacements {
				if time.Now().After(deadline) {
					t.Fatalf("after 30 s the cache %d was told %d times, want %d", i, stats().Replacements, replacements)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}

	write("old")
	server.Stop()
	restore := server.Backup()
	server.Start()
	forgets(1) // the restart
	write("new")
	if v, ok := a.Peek("k"); !ok || v != "new" {
		t.Fatalf("memory holds %q, %t", v, ok)
	}
	server.Stop()
	restore()
	server.Start()
	forgets(2)
	for _, c := range all {
		if v, err := c.Get(t.Context(), "k"); v != "old" || err != nil {
			t.Errorf("the cache says %q, %v, and the database has the older copy's", v, err)
		}
	}
	if u, err := users.Get(t.Context(), "k"); u.Name != "old" || err != nil {
		t.Errorf("the cache of the mapped table says %q, %v", u.Name, err)
	}

	write("again")
	server.Stop()
	server.Demote()
	server.Start()
	forgets(3)
	_, err := a.Get(t.Context(), "k")
	inRecovery(t, "Get", err)
	_, err = b.Set(t.Context(), "k", "never")
	inRecovery(t, "Set", err)
	_, err = c.Get(t.Context(), "k")
	inRecovery(t, "Get, by way of a pooler,", err)
	promote(t, server.URL())
	if v, err := a.Get(t.Context(), "k"); v != "again" || err != nil {
		t.Errorf("after the promotion: %q, %v", v, err)
	}
	write("once more")
}

// After a failover a pool may have sessions at both servers. Those of the one before are
// not used any more, neither for reads nor for a transaction that was begun there.
func TestSessionsOfTheServerBeforeAreNotUsed(t *testing.T) {
	before, after := dbtest.StartPostgres(t), dbtest.StartPostgres(t)
	s := openStore(t, before.URL())
	write(t, s, put("k", "before"))
	if err := s.Database().Close(); err != nil {
		t.Fatal(err)
	}
	before.Stop()
	after.Stop()
	after.Follow(before)
	after.Demote()
	before.Start()
	after.Start()
	promote(t, after.URL())
	there := openStore(t, after.URL())
	write(t, there, put("k", "after"))

	config, err := pgxpool.ParseConfig(before.URL())
	if err != nil {
		t.Fatal(err)
	}
	var address atomic.Value
	address.Store(before.Addr())
	config.ConnConfig.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address.Load().(string))
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s, err = pgstore.OpenIn[string, string](t.Context(), overPool(pool)(t), pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	txn, err := s.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Rollback(context.Background())
	if o, err := s.Capabilities().Apply(t.Context(), txn, set(put("k", "late"))); err != nil || o.Err != nil {
		t.Fatal(err, o.Err)
	}
	wantRow(t, s, "k", "before") // by another session than the transaction's
	var held []*pgxpool.Conn
	for used := pool.Stat().IdleConns(); used >= 0; used-- { // and one that nobody has used
		c, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	if len(held) < 2 {
		t.Fatal("no session of the server before is left in the pool")
	}
	address.Store(after.Addr())
	wantRow(t, s, "k", "after") // by a new connection
	for _, c := range held {
		c.Release()
	}
	for range 10 {
		wantRow(t, s, "k", "after")
	}
	wantError(t, txn.Commit(t.Context()), lockstep.ErrUnavailable)
	var value string
	if err := connect(t, before.URL()).QueryRow(t.Context(), "SELECT value FROM rows WHERE key = 'k'").Scan(&value); err != nil || value != `"before"` {
		t.Errorf("the server before has %s, %v", value, err)
	}
}

func promote(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "SELECT pg_promote()"); err != nil {
		t.Fatal(err)
	}
}

func inRecovery(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) || !strings.Contains(err.Error(), "in recovery") {
		t.Errorf("%s at a server that has become a standby: %v, want ErrUnavailable that says so", what, err)
	}
}

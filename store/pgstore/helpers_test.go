package pgstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

type (
	store     = pgstore.Store[string, string]
	change    = lockstep.Change[string, string]
	changeSet = lockstep.ChangeSet[string, string]
	check     = lockstep.Check[string]
	row       = lockstep.Row[string]
)

func openStore(t testing.TB, url string) *store {
	t.Helper()
	s, err := pgstore.OpenIn[string, string](t.Context(), openPool(t, url), pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(key, value string) change    { return change{Key: key, Value: value} }
func erase(key string) change         { return change{Key: key, Delete: true} }
func set(changes ...change) changeSet { return changeSet{Changes: changes} }

func ifAbsent(c change) change {
	c.Expect = lockstep.Expect{Kind: lockstep.ExpectAbsent}
	return c
}

func ifVersion(v lockstep.Version, c change) change {
	c.Expect = lockstep.Expect{Kind: lockstep.ExpectVersion, Version: v}
	return c
}

// write commits one set, which has to be applied.
func write(t testing.TB, s *store, changes ...change) lockstep.Outcome[string] {
	t.Helper()
	out, err := s.Commit(t.Context(), []changeSet{set(changes...)})
	if err == nil {
		err = out[0].Err
	}
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return out[0]
}

func get(t testing.TB, s *store, key string) row {
	t.Helper()
	rows, err := s.Load(t.Context(), []string{key})
	if err != nil {
		t.Fatal(err)
	}
	return rows[key]
}

func wantRow(t testing.TB, s *store, key, want string) {
	t.Helper()
	if r := get(t, s, key); !r.Exists || r.Value != want {
		t.Errorf("key %q is %+v, want %q", key, r, want)
	}
}

func wantAbsent(t testing.TB, s *store, key string) {
	t.Helper()
	if r := get(t, s, key); r.Exists {
		t.Errorf("key %q is %+v, want no row", key, r)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("the error is %v, want one that is %v", err, want)
	}
}

// connect is a session of somebody else.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func run(t testing.TB, c *pgx.Conn, query string, args ...any) {
	t.Helper()
	if _, err := c.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// patience is how long a test waits for what has to happen in another process.
const patience = 30 * time.Second

// await asks the server until the answer to a query is true.
func await(t testing.TB, url, query string, args ...any) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for end := time.Now().Add(patience); ; {
		var yes bool
		if err := c.QueryRow(t.Context(), query, args...).Scan(&yes); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if yes {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: still false after %v", query, patience)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// waiting is true while a session of the database waits for a lock.
const waiting = `SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`

package mysqlstore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// replaced waits until the caches have been told of so many servers, or more. It polls:
// nothing is asked of the store but by the look that it takes by itself.
func replaced(t *testing.T, want uint64, own *lockstep.Cache[string, string], mapped *lockstep.Cache[string, user]) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); own.Stats().Replacements < want || mapped.Stats().Replacements < want; {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s: %d and %d replacements, want %d", own.Stats().Replacements, mapped.Stats().Replacements, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

type user struct {
	Name string `db:"name"`
}

// An older copy of the database takes the server's place: what was acknowledged since is
// gone, and memory must not go on answering with it. Then the server is made a replica,
// under sessions that go on: it refuses, and memory does not answer for it either.
func TestAServerThatIsNotTheOneItWas(t *testing.T) {
	server := dbtest.StartMariaDB(t)
	pool := connect(t, server.URL())
	execute(t, pool, "CREATE TABLE users (id VARBINARY(64) PRIMARY KEY, name VARCHAR(64) NOT NULL)")
	db, err := mysqlstore.OpenDatabase(t.Context(), pool, mysqlstore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	store, err := mysqlstore.OpenIn[string, string](t.Context(), db, mysqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	table, err := mysqlstore.NewTableIn[string, user](t.Context(), db, "users", mysqlstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	own := cachetest.Open(t, store, lockstep.Options[string, string]{})
	mapped := cachetest.Open(t, table, lockstep.Options[string, user]{})
	write := func(value string) {
		t.Helper()
		if _, err := own.Set(t.Context(), "k", value); err != nil {
			t.Fatal(err)
		}
		if _, err := mapped.Set(t.Context(), "k", user{value}); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(what, want string) {
		t.Helper()
		if v, err := own.Get(t.Context(), "k"); v != want || err != nil {
			t.Errorf("%s: the cache says %q, %v, and the database has %q", what, v, err, want)
		}
		if u, err := mapped.Get(t.Context(), "k"); u.Name != want || err != nil {
			t.Errorf("%s: the cache of the mapped table says %q, %v, and the database has %q", what, u.Name, err, want)
		}
	}

	write("old")
	server.Stop()
	restore := server.Backup()
	server.Start()
	write("first") // which meets the new run, and so leaves nothing in memory
	write("new")
	if v, ok := own.Peek("k"); !ok || v != "new" {
		t.Fatalf("memory holds %q, %t", v, ok)
	}
	server.Stop()
	restore()
	server.Start()
	j, err := mysqlstore.Join(t.Context(), db, begin(t, connect(t, server.URL())))
	if err != nil {
		t.Fatalf("joining at a server that no store has met yet: %v", err)
	}
	if err := j.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	replaced(t, 2, own, mapped)
	holds("restored", "old")

	execute(t, pool, "SET GLOBAL read_only=1")
	// Memory answers until the store's own look finds it out. How many replacements that
	// makes is not ours to say: a server may be found twice to be another.
	err = nil
	for deadline := time.Now().Add(30 * time.Second); err == nil && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		_, err = own.Get(t.Context(), "k")
	}
	readOnly(t, "Get", err)
	_, err = mapped.Set(t.Context(), "k", user{"never"})
	readOnly(t, "Set", err)
	execute(t, pool, "SET GLOBAL read_only=0")
	holds("writable again", "old")
	write("again")
	holds("written again", "again")
}

// A write that the server refuses because it has become a replica tells of it at once.
func TestARefusedWriteTellsOfAReplica(t *testing.T) {
	server := dbtest.StartMariaDB(t)
	root := connect(t, server.URL())
	execute(t, root, "CREATE USER plain IDENTIFIED BY 'plain'")
	execute(t, root, "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, TRIGGER ON lockstep.* TO plain")
	_, address, _ := strings.Cut(server.URL(), "@")
	store := openStore(t, "plain:plain@"+address)
	write(t, store, put("k", "v"))
	// Its copies expire at once, and would answer if the server were only away.
	cache := cachetest.Open(t, lockstep.Store[string, string](store), lockstep.Options[string, string]{TTL: time.Nanosecond, StaleIfError: time.Hour})
	if _, err := cache.GetEntry(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	told := 0
	stop := store.Capabilities().Replaced(func() { told++ })
	execute(t, root, "SET GLOBAL read_only=1")
	out, err := store.Commit(t.Context(), []changeSet{set(put("k", "w"))})
	if err == nil {
		err = out[0].Err
	}
	readOnly(t, "Commit", err)
	stop()
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	_, err = store.Load(t.Context(), []string{"k"})
	readOnly(t, "Load", err)
	_, err = cache.GetEntry(t.Context(), "k")
	readOnly(t, "GetEntry", err)
	execute(t, root, "SET GLOBAL read_only=0")
}

func readOnly(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) || !strings.Contains(err.Error(), "read") {
		t.Errorf("%s at a server that has become a replica: %v, want ErrUnavailable that says so", what, err)
	}
}

package pgstore_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// unprepared has the connections of a URL run statements without preparing them.
func unprepared(url string) string { return url + "&default_query_exec_mode=exec" }

// pooledURL is a database by way of a PgBouncer.
func pooledURL(t testing.TB, url string) string {
	t.Helper()
	return unprepared(dbtest.PgBouncer(t, url).URL())
}

func overPooled(pool *pgxpool.Pool) func(t testing.TB) *pgstore.Database {
	return func(t testing.TB) *pgstore.Database {
		t.Helper()
		return mustOpen(t)(pgstore.OpenDatabase(t.Context(), pool, pgstore.DatabaseOptions{Pooled: true}))
	}
}

func overPooledSQL(db *sql.DB) func(t testing.TB) *pgstore.Database {
	return func(t testing.TB) *pgstore.Database {
		t.Helper()
		return mustOpen(t)(pgstore.OpenDatabaseSQL(t.Context(), db, pgstore.DatabaseOptions{Pooled: true}))
	}
}

func openPooledStore(t testing.TB, url string) *store {
	t.Helper()
	s, err := pgstore.OpenIn[string, string](t.Context(), overPooled(newPool(t, url))(t), pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A commit whose request or reply is lost between the program and the pooler.
func TestALostReplyIsSettledBehindAPooler(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, pooledURL(t, url))
	lostReplies(t, proxy, openPooledStore(t, via), openStore(t, url))
}

// That Pooled is needed, or cannot be had, is found at open, and the error says what to
// do.
func TestPooledIsFoundNecessaryAtOpen(t *testing.T) {
	url := dbtest.Postgres(t)
	pooled := dbtest.PgBouncer(t, url).URL()
	open := func(url string, opts pgstore.DatabaseOptions) (*pgstore.Database, error) {
		db, err := pgstore.OpenDatabase(t.Context(), newPool(t, url), opts)
		if err == nil {
			t.Cleanup(func() { db.Close() })
		}
		return db, err
	}
	refused := func(err, want error, names string) {
		t.Helper()
		wantError(t, err, want)
		if !strings.Contains(err.Error(), names) {
			t.Errorf("the error does not name %s: %v", names, err)
		}
	}
	_, err := open(unprepared(pooled), pgstore.DatabaseOptions{})
	refused(err, lockstep.ErrUnsupported, "DatabaseOptions.Pooled")
	_, err = open(pooled, pgstore.DatabaseOptions{Pooled: true})
	refused(err, lockstep.ErrInvalid, "default_query_exec_mode=exec")
	db, err := open(unprepared(pooled), pgstore.DatabaseOptions{Pooled: true})
	if err != nil {
		t.Fatal(err)
	}

	// Who looks at what the watch of a table would be changes nothing in the database.
	execute(t, url, "CREATE TABLE looked (id text PRIMARY KEY)")
	if _, err := db.WatchSQL(t.Context(), "looked", pgstore.WatchOptions{}); err != nil {
		t.Error(err)
	}
	await(t, url, "SELECT to_regclass('lockstep_lanes') IS NULL")

	direct := openStore(t, url)
	install(t, direct.Database(), "rows", pgstore.WatchOptions{})
	_, err = pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: "rows"})
	refused(err, lockstep.ErrUnsupported, "is watched")
	refused(db.InstallWatch(t.Context(), "rows", pgstore.WatchOptions{}), lockstep.ErrUnsupported, "by way of a pooler")
	execute(t, url, "CREATE TABLE mapped (id text PRIMARY KEY, name text)")
	install(t, direct.Database(), "mapped", pgstore.WatchOptions{})
	_, err = pgstore.NewTableIn[string, struct {
		Name string `db:"name"`
	}](t.Context(), db, "mapped", pgstore.TableOptions{})
	refused(err, lockstep.ErrUnsupported, "is watched")
}

// A role that may end nobody's session needs lanes, too.
func TestARoleThatMayEndNoSession(t *testing.T) {
	server := dbtest.StartPostgres(t)
	admin := connect(t, server.URL())
	run(t, admin, "REVOKE EXECUTE ON FUNCTION pg_terminate_backend FROM PUBLIC")
	role := fmt.Sprintf("role_%x", rand.Uint64())
	run(t, admin, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret'")
	run(t, admin, "GRANT CREATE ON SCHEMA public TO "+role)
	_, address, _ := strings.Cut(server.URL(), "@")
	url := "postgres://" + role + ":secret@" + address
	_, err := pgstore.OpenDatabase(t.Context(), newPool(t, url), pgstore.DatabaseOptions{})
	wantError(t, err, lockstep.ErrUnsupported)
	if !strings.Contains(err.Error(), "pg_terminate_backend") || !strings.Contains(err.Error(), "DatabaseOptions.Pooled") {
		t.Errorf("the error does not say what to do: %v", err)
	}
	proxy, via := dbtest.Via(t, unprepared(url))
	s := openPooledStore(t, via)
	cut := proxy.CutReply("marker")
	_, err = s.Commit(t.Context(), []changeSet{set(put("k", "marker"))})
	<-cut
	wantError(t, err, lockstep.ErrUnknownOutcome)
	if settled, err := s.Capabilities().Settle(t.Context(), err); err != nil || !settled.Applied {
		t.Errorf("settled as %+v, %v", settled, err)
	}
}

// There are as many lanes as there were commits under way at once, one that was removed
// is replaced by another, and those that nobody uses are removed.
func TestLanes(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openPooledStore(t, unprepared(url))
	count := func(want int) {
		t.Helper()
		await(t, url, "SELECT count(*) = $1 FROM lockstep_lanes", want)
	}
	// As somebody may who has found the table without lanes.
	execute(t, url, "DROP TABLE lockstep_lanes")
	for range 5 {
		write(t, s, put("k", "v"))
		write(t, s, set(put("k", "v"), put("l", "v")).Changes...)
	}
	count(1)
	admin := connect(t, url)
	var node int64
	if err := admin.QueryRow(t.Context(), "SELECT node FROM lockstep_lanes").Scan(&node); err != nil {
		t.Fatal(err)
	}
	run(t, admin, "DELETE FROM lockstep_lanes")
	write(t, s, put("k", "after"))
	wantRow(t, s, "k", "after")
	count(1)
	// What has been settled keeps the commit that it was about from coming.
	run(t, admin, "UPDATE lockstep_lanes SET seq = seq + 2")
	write(t, s, put("k", "again"))
	wantRow(t, s, "k", "again")
	count(2)
	run(t, admin, "UPDATE lockstep_lanes SET used = used - 86400000001 WHERE lane = 2")
	if err := pgstore.SweepLanes(t.Context(), s.Database()); err != nil {
		t.Fatal(err)
	}
	count(1)
	write(t, s, put("k", "in the end"))
	wantRow(t, s, "k", "in the end")
}

// What the caller's own SQL would leave in the session is refused: somebody else has it
// next.
func TestNothingIsLeftInAPooledSession(t *testing.T) {
	s := openPooledStore(t, pooledURL(t, dbtest.Postgres(t)))
	for _, query := range []string{"SELECT set_config('a.b', 'c', false)", "SELECT pg_advisory_lock(1)", "CREATE TEMP TABLE x (a int)"} {
		txn, err := s.Capabilities().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tx, err := pgstore.Lend(txn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), query); err == nil {
			t.Errorf("%s was run", query)
		} else {
			wantError(t, err, lockstep.ErrUnsupported)
		}
		if _, err := tx.Exec(t.Context(), "SELECT 1"); err != nil {
			t.Errorf("after it: %v", err)
		}
		if err := txn.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	}
	txn, err := s.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := pgstore.Lend(txn)
	if err != nil {
		t.Fatal(err)
	}
	tx.Conn()
	wantError(t, txn.Commit(t.Context()), lockstep.ErrUnsupported)
}

// A transaction that the caller's own SQL has ended, unseen, has not touched its lane, which
// would say that nothing was committed.
func TestATransactionThatHasVanishedBehindAPooler(t *testing.T) {
	s := openPooledStore(t, pooledURL(t, dbtest.Postgres(t)))
	for _, end := range []string{"COMMIT", "ROLLBACK"} {
		write(t, s, put("k", "before"))
		txn, err := s.Capabilities().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if o, err := s.Capabilities().Apply(t.Context(), txn, set(put("k", end))); err != nil || o.Err != nil {
			t.Fatal(err, o.Err)
		}
		if _, err := pgstore.Lend(txn); err != nil {
			t.Fatal(err)
		}
		if err := pgstore.RunInside(t.Context(), txn, end); err != nil {
			t.Fatal(err)
		}
		wantError(t, txn.Commit(t.Context()), lockstep.ErrUnknownOutcome)
		applied, err := txn.Settle(t.Context())
		if err != nil || applied != (end == "COMMIT") || applied != (get(t, s, "k").Value == end) {
			t.Errorf("%s: settled as %t, %v, and the row is %+v", end, applied, err, get(t, s, "k"))
		}
	}
}

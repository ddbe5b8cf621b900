package dbtest_test

import (
	"database/sql"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kind is a kind of server.
type kind struct {
	name, driver string
	database     func(testing.TB) string
	start        func(testing.TB, ...string) *dbtest.Server
	durable, yes string // asks whether a commit is synced, and what the answer is
	setting      string // one that is not the default
	show, is     string // asks for it, and what the answer is then
	commit       string // what its driver sends
	parameter    string // of a statement
	waiting      string // counts the statements that change to 'late', and have come as far as a lock
}

var kinds = []kind{
	{
		name: "PostgreSQL", driver: "pgx", database: dbtest.Postgres, start: dbtest.StartPostgres,
		durable: "SELECT current_setting('fsync') || current_setting('synchronous_commit')", yes: "onon",
		setting: "max_connections=50", show: "SHOW max_connections", is: "50",
		commit: "commit", parameter: "$1",
		waiting: "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
	},
	{
		name: "MariaDB", driver: "mysql", database: dbtest.MariaDB, start: dbtest.StartMariaDB,
		durable: "SELECT @@innodb_flush_log_at_trx_commit", yes: "1",
		setting: "--max-connections=50", show: "SELECT @@max_connections", is: "50",
		commit: "COMMIT", parameter: "?",
		// Not INNODB_TRX, which shows an old picture to whoever looks often.
		waiting: "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'Updating' AND info LIKE 'UPDATE%late%'",
	},
}

// each runs a test with each kind of server.
func each(t *testing.T, test func(t *testing.T, k kind)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
}

func (k kind) open(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open(k.driver, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func exec(t testing.TB, db interface {
	Exec(string, ...any) (sql.Result, error)
}, statement string) {
	t.Helper()
	if _, err := db.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func begin(t testing.TB, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func read(t testing.TB, db *sql.DB, query string) (text string) {
	t.Helper()
	if err := db.QueryRow(query).Scan(&text); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return text
}

func TestDatabasesAreNewAndEmptyAndDropped(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		var url string
		var left *sql.DB
		var tx *sql.Tx
		if !t.Run("while the test runs", func(t *testing.T) {
			url = k.database(t)
			one, two := k.open(t, url), k.open(t, k.database(t))
			exec(t, one, "CREATE TABLE t (a INT)")
			exec(t, two, "CREATE TABLE t (a INT)")
			exec(t, two, "INSERT INTO t VALUES (1)")
			if n := read(t, one, "SELECT COUNT(*) FROM t"); n != "0" {
				t.Errorf("the first database has %s rows of the second", n)
			}
			if is := read(t, one, k.durable); is != k.yes {
				t.Errorf("%s: %s, want %s", k.durable, is, k.yes)
			}
			// A test that fails leaves such things behind.
			var err error
			if left, err = sql.Open(k.driver, url); err != nil {
				t.Fatal(err)
			}
			tx = begin(t, left)
			exec(t, tx, "INSERT INTO t VALUES (2)")
		}) {
			return
		}
		defer left.Close()
		if err := tx.Commit(); err == nil {
			t.Error("a connection of the test is open after its end")
		}
		if err := k.open(t, url).Ping(); err == nil {
			t.Error("the database is there after its test")
		}
	})
}

func TestServerKeepsWhatWasCommitted(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		s := k.start(t, k.setting)
		addr := s.Addr()
		db := k.open(t, s.URL())
		if is := read(t, db, k.show); is != k.is {
			t.Errorf("with %s %s: %s, want %s", k.setting, k.show, is, k.is)
		}
		exec(t, db, "CREATE TABLE t (a INT)")
		for i, end := range []func(){s.Kill, s.Stop, s.Kill} {
			exec(t, db, "INSERT INTO t VALUES (1)")
			tx := begin(t, db)
			exec(t, tx, "INSERT INTO t VALUES (2)")
			end()
			if err := tx.Commit(); err == nil {
				t.Fatal("a server that has ended commits")
			}
			if err := db.Ping(); err == nil {
				t.Fatal("a server that has ended answers")
			}
			s.Start()
			if s.Addr() != addr {
				t.Errorf("the server was at %s and is at %s", addr, s.Addr())
			}
			if n := read(t, db, "SELECT SUM(a) FROM t"); n != []string{"1", "2", "3"}[i] {
				t.Errorf("after the server's end no. %d the rows' sum is %s", i+1, n)
			}
		}
	})
}

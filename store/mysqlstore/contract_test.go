package mysqlstore_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// hostile is, with hostileTo, every parameter of a DSN that could change what a statement does, and
// every system variable.
const hostile = "?charset=latin1&clientFoundRows=true&columnsWithAlias=true&interpolateParams=true&loc=Asia%2FTokyo" +
	"&multiStatements=true&parseTime=true&rejectReadOnly=true&checkConnLiveness=false&timeTruncate=1h" +
	"&autocommit=0&sql_mode=%27ANSI_QUOTES%2CNO_BACKSLASH_ESCAPES%2CPAD_CHAR_TO_FULL_LENGTH%27&time_zone=%27%2B05%3A30%27" +
	"&completion_type=%27RELEASE%27&sql_select_limit=1&sql_safe_updates=1" +
	"&innodb_lock_wait_timeout=1&sql_auto_is_null=1&unique_checks=0&foreign_key_checks=0"

// hostileTo is hostile, and what only one of the servers has.
func hostileTo(t testing.TB) string {
	t.Helper()
	return hostile + mysqlstore.Of(t, "&tx_isolation=%27SERIALIZABLE%27&tx_read_only=1&max_statement_time=0.0001",
		"&transaction_isolation=%27SERIALIZABLE%27&transaction_read_only=1&max_execution_time=1&information_schema_stats_expiry=31536000"+
			"&sql_require_primary_key=1&sql_generate_invisible_primary_key=1&show_gipk_in_create_table_and_information_schema=0&default_collation_for_utf8mb4=utf8mb4_general_ci")
}

func TestContractKeyValue(t *testing.T) {
	for _, c := range []struct {
		name   string
		codec  codec.Codec[storetest.Doc]
		params string
		pool   func(t testing.TB, dsn string) *sql.DB
		tweak  func(db *mysqlstore.Database)
	}{
		{"JSON", codec.JSON[storetest.Doc](), "", connect, nil},
		{"CBORWithAHostileDSNAndAWatch", codec.CBOR[storetest.Doc](), hostileTo(t), connectPlainly, nil},
		{"JSONAsOnMySQL", codec.JSON[storetest.Doc](), "", connect, mysqlstore.AsMySQL},
	} {
		t.Run(c.name, func(t *testing.T) {
			// One empty database serves all tests, each with tables of its own.
			pool := c.pool(t, dbtest.MariaDB(t)+c.params)
			tables, tableOf := 0, map[any]string{}
			next := func() string { tables++; return fmt.Sprint("docs", tables) }
			database := func(t testing.TB) *mysqlstore.Database {
				db, err := mysqlstore.OpenDatabase(t.Context(), pool, mysqlstore.DatabaseOptions{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { db.Close() })
				if c.tweak != nil {
					c.tweak(db)
				}
				return db
			}
			var in func(t testing.TB, db *mysqlstore.Database, table string) storetest.Store
			in = func(t testing.TB, db *mysqlstore.Database, table string) storetest.Store {
				s, err := mysqlstore.OpenIn[string, storetest.Doc](t.Context(), db, mysqlstore.Options{Table: table, Codec: c.codec})
				if err != nil {
					t.Fatal(err)
				}
				tableOf[db] = table
				if c.params != "" && s.Capabilities().Watch == nil {
					install(t, db, table, mysqlstore.WatchOptions{})
					return in(t, db, table)
				}
				return s
			}
			open := func(t testing.TB) storetest.Store { return in(t, database(t), next()) }
			storetest.Run(t, storetest.Harness{
				Open: open,
				Reopen: func(t testing.TB, old storetest.Store) storetest.Store {
					db := old.Capabilities().Database.(*mysqlstore.Database)
					if err := db.Close(); err != nil {
						t.Fatal(err)
					}
					return in(t, database(t), tableOf[db])
				},
				OpenTwo: func(t testing.TB) (a, b storetest.Store) {
					db := database(t)
					return in(t, db, next()), in(t, db, next())
				},
				OpenUnreliable: func(t testing.TB) storetest.Store {
					return storetest.Inject(open(t),
						fault.MustParse("commit 20%: lose request; commit 25%: lose reply; commit 30%: lose reply, late"), 1)
				},
				Lacks: []storetest.Feature{storetest.Refusals, storetest.Inserts},
			})
		})
	}
}

// connect returns a pool that is closed when the test ends. The stores know its
// network connections.
func connect(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	connector, err := mysqlstore.NewConnector(config)
	if err != nil {
		t.Fatal(err)
	}
	pool := sql.OpenDB(connector)
	t.Cleanup(func() { pool.Close() })
	return pool
}

// connectPlainly is connect, with the driver's own pool.
func connectPlainly(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return pool
}

// openStore opens the default table of a DSN's database, as a process would.
func openStore(t testing.TB, dsn string) *mysqlstore.Store[string, string] {
	t.Helper()
	s, err := mysqlstore.Open[string, string](t.Context(), connect(t, dsn), mysqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

package mysqlstore_test

import (
	"fmt"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// mapped remembers where a table's rows are.
type mapped struct {
	*mysqlstore.Table[string, storetest.Doc]
	table string
}

func TestContractTable(t *testing.T) {
	const version, without = "version BIGINT NOT NULL,", ""
	for _, c := range []struct {
		name, version, params string
		tweak                 func(db *mysqlstore.Database)
	}{
		{"WithVersion", version, "", nil},
		{"WithVersion/HostileDSNAndAWatch", version, hostileTo(t), nil},
		{"WithoutVersion/AsMySQL", without, "", mysqlstore.AsMySQL},
	} {
		t.Run(c.name, func(t *testing.T) {
			dsn := dbtest.MariaDB(t)
			pool, plain := connect(t, dsn+c.params), connect(t, dsn)
			tables := 0
			table := func() string { tables++; return fmt.Sprint("mapped", tables) }
			refuses, opts := ", CHECK (title <> 'refused')", mysqlstore.TableOptions{VersionColumn: "version"}
			lacks := []storetest.Feature{storetest.Tombstones, storetest.Lifetimes}
			if c.version == without {
				refuses, opts = ", only VARCHAR(9) AS (IF(title = 'refused', title, NULL)) STORED UNIQUE", mysqlstore.TableOptions{}
				lacks = append(lacks, storetest.Versions)
			}
			id := "id VARBINARY(3072) PRIMARY KEY DEFAULT (uuid())"
			if c.tweak != nil || mysqlstore.OnMySQL(t) {
				lacks = append(lacks, storetest.Inserts) // no server but MariaDB tells such a key
			}
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
			in := func(t testing.TB, db *mysqlstore.Database, table string) storetest.Store {
				execute(t, plain, `CREATE TABLE IF NOT EXISTS `+table+` (`+id+`, `+c.version+`
					title LONGTEXT NOT NULL, count BIGINT NOT NULL, score DOUBLE NOT NULL, done BOOLEAN NOT NULL, body LONGBLOB`+refuses+`)`)
				if c.params != "" {
					install(t, db, table, mysqlstore.WatchOptions{VersionColumn: opts.VersionColumn})
				}
				s, err := mysqlstore.NewTableIn[string, storetest.Doc](t.Context(), db, table, opts)
				if err != nil {
					t.Fatal(err)
				}
				return mapped{s, table}
			}
			open := func(t testing.TB) storetest.Store { return in(t, database(t), table()) }
			storetest.Run(t, storetest.Harness{
				Open: open,
				Reopen: func(t testing.TB, old storetest.Store) storetest.Store {
					m := old.(mapped)
					if err := m.Database().Close(); err != nil {
						t.Fatal(err)
					}
					return in(t, database(t), m.table)
				},
				OpenTwo: func(t testing.TB) (a, b storetest.Store) {
					db := database(t)
					return in(t, db, table()), in(t, db, table())
				},
				// It loses replies of its own accord, whatever the server does.
				OpenUnreliable: func(t testing.TB) storetest.Store {
					return storetest.Inject(open(t), fault.MustParse("commit 20%: lose request; commit 25%: lose reply; commit 30%: lose reply, late"), 1)
				},
				// Where titles are kept apart, there is one already.
				Refused: func(t testing.TB, s storetest.Store, key string) lockstep.Change[string, storetest.Doc] {
					if c.version == without {
						execute(t, plain, `INSERT IGNORE INTO `+s.(mapped).table+` (id, title, count, score, done) VALUES ('first', 'refused', 0, 0, false)`)
					}
					return lockstep.Change[string, storetest.Doc]{Key: key, Value: storetest.Doc{Title: "refused"}}
				},
				Lacks: lacks,
			})
		})
	}
}

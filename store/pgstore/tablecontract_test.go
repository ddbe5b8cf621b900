package pgstore_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// mapped remembers where a table's rows are.
type mapped struct {
	*pgstore.Table[string, storetest.Doc]
	table string
}

func TestContractTable(t *testing.T) {
	url := dbtest.Postgres(t)
	const version, without = "version bigint NOT NULL,", ""
	for _, c := range []struct {
		name, version string
		open          func(t testing.TB) *pgstore.Database
		watched       bool
	}{
		{"WithVersion", version, overPool(newPool(t, url)), false},
		{"WithVersion/Simple", version, overPool(newPoolIn(t, url, pgx.QueryExecModeSimpleProtocol)), true},
		{"WithoutVersion/SQL/Pooled", without, overPooledSQL(newSQL(t, pooledURL(t, url))), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := func() string { return fmt.Sprint("mapped", tables.Add(1)) }
			refuses, opts := ", CHECK (title <> 'refused')", pgstore.TableOptions{VersionColumn: "version"}
			lacks := []storetest.Feature{storetest.Tombstones, storetest.Lifetimes}
			if c.version == without {
				refuses, opts = ", EXCLUDE USING btree (title WITH =) WHERE (title = 'refused')", pgstore.TableOptions{}
				lacks = append(lacks, storetest.Versions)
			}
			in := func(t testing.TB, db *pgstore.Database, table string) storetest.Store {
				execute(t, url, `CREATE TABLE IF NOT EXISTS `+table+` (id text PRIMARY KEY DEFAULT gen_random_uuid()::text, `+c.version+`
					title text NOT NULL, count bigint NOT NULL, score double precision NOT NULL, done boolean NOT NULL, body bytea`+refuses+`)`)
				s, err := pgstore.NewTableIn[string, storetest.Doc](t.Context(), db, table, opts)
				if err == nil && c.watched && s.Capabilities().Watch == nil {
					install(t, db, table, pgstore.WatchOptions{VersionColumn: opts.VersionColumn})
					s, err = pgstore.NewTableIn[string, storetest.Doc](t.Context(), db, table, opts)
				}
				if err != nil {
					t.Fatal(err)
				}
				return mapped{s, table}
			}
			open := func(t testing.TB) storetest.Store { return in(t, c.open(t), table()) }
			storetest.Run(t, storetest.Harness{
				Open: open,
				Reopen: func(t testing.TB, old storetest.Store) storetest.Store {
					m := old.(mapped)
					if err := m.Database().Close(); err != nil {
						t.Fatal(err)
					}
					return in(t, c.open(t), m.table)
				},
				OpenTwo: func(t testing.TB) (a, b storetest.Store) {
					db := c.open(t)
					return in(t, db, table()), in(t, db, table())
				},
				// It loses replies of its own accord, whatever the server does.
				OpenUnreliable: func(t testing.TB) storetest.Store {
					return storetest.Inject(open(t), fault.MustParse("commit 20%: lose request; commit 25%: lose reply; commit 30%: lose reply, late"), 1)
				},
				// Where titles are kept apart, there is one already.
				Refused: func(t testing.TB, s storetest.Store, key string) lockstep.Change[string, storetest.Doc] {
					if c.version == without {
						execute(t, url, `INSERT INTO `+s.(mapped).table+` (id, title, count, score, done) VALUES ('first', 'refused', 0, 0, false) ON CONFLICT (id) DO NOTHING`)
					}
					return lockstep.Change[string, storetest.Doc]{Key: key, Value: storetest.Doc{Title: "refused"}}
				},
				Lacks: lacks,
			})
		})
	}
}

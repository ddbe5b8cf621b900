package sqlitestore_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestContractKeyValue(t *testing.T) {
	for _, c := range []codec.Codec[storetest.Doc]{codec.JSON[storetest.Doc](), codec.CBOR[storetest.Doc]()} {
		t.Run(c.Name(), func(t *testing.T) {
			opts := sqlitestore.Options{Codec: c}
			open := func(t testing.TB, path string) storetest.Store {
				s, err := sqlitestore.Open[string, storetest.Doc](t.Context(), path, opts)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s
			}
			storetest.Run(t, storetest.Harness{
				Open: func(t testing.TB) storetest.Store { return open(t, newFile(t)) },
				Reopen: func(t testing.TB, old storetest.Store) storetest.Store {
					s := old.(*sqlitestore.Store[string, storetest.Doc])
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					return open(t, s.Database().Path())
				},
				OpenTwo: func(t testing.TB) (a, b storetest.Store) {
					db := openDatabase(t, newFile(t))
					in := func(table string) storetest.Store {
						o := opts
						o.Table = table
						s, err := sqlitestore.OpenIn[string, storetest.Doc](t.Context(), db, o)
						if err != nil {
							t.Fatal(err)
						}
						return s
					}
					return in("a"), in("b")
				},
				OpenUnreliable: func(t testing.TB) storetest.Store { return unreliable(open(t, newFile(t))) },
				Lacks:          []storetest.Feature{storetest.Refusals, storetest.Inserts},
			})
		})
	}
}

func TestContractTable(t *testing.T) {
	for _, c := range []struct {
		name, version, check string
		unique               bool
		lacks                []storetest.Feature
	}{
		{"WithVersion", "version INTEGER NOT NULL,", ", CHECK (title <> 'refused')", false, []storetest.Feature{storetest.Tombstones, storetest.Lifetimes}},
		{"WithoutVersion", "", "", true, []storetest.Feature{storetest.Versions, storetest.Tombstones, storetest.Lifetimes}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := func(t testing.TB, db *sqlitestore.Database, table string) storetest.Store {
				execute(t, db.Path(), `CREATE TABLE IF NOT EXISTS `+table+` (id TEXT PRIMARY KEY NOT NULL DEFAULT (hex(randomblob(8))), `+c.version+`
					title TEXT NOT NULL, count INTEGER NOT NULL, score REAL NOT NULL, done BOOLEAN NOT NULL, body BLOB`+c.check+`)`)
				if c.unique {
					execute(t, db.Path(), `CREATE UNIQUE INDEX IF NOT EXISTS `+table+`_refused ON `+table+` (title) WHERE title = 'refused'`)
				}
				opts := sqlitestore.TableOptions{}
				if c.version != "" {
					opts.VersionColumn = "version"
				}
				s, err := sqlitestore.NewTable[string, storetest.Doc](t.Context(), db, table, opts)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			storetest.Run(t, storetest.Harness{
				Open: func(t testing.TB) storetest.Store { return in(t, openDatabase(t, newFile(t)), "docs") },
				Reopen: func(t testing.TB, old storetest.Store) storetest.Store {
					db := old.Capabilities().Database.(*sqlitestore.Database)
					if err := db.Close(); err != nil {
						t.Fatal(err)
					}
					return in(t, openDatabase(t, db.Path()), "docs")
				},
				OpenTwo: func(t testing.TB) (a, b storetest.Store) {
					db := openDatabase(t, newFile(t))
					return in(t, db, "a"), in(t, db, "b")
				},
				OpenUnreliable: func(t testing.TB) storetest.Store {
					return unreliable(in(t, openDatabase(t, newFile(t)), "docs"))
				},
				// Where titles are unique, there is one already.
				Refused: func(t testing.TB, s storetest.Store, key string) lockstep.Change[string, storetest.Doc] {
					db := s.Capabilities().Database.(*sqlitestore.Database)
					if c.unique {
						execute(t, db.Path(), `INSERT INTO docs (id, title, count, score, done) VALUES ('first', 'refused', 0, 0, 0) ON CONFLICT DO NOTHING`)
					}
					return lockstep.Change[string, storetest.Doc]{Key: key, Value: storetest.Doc{Title: "refused"}}
				},
				Lacks: c.lacks,
			})
		})
	}
}

// unreliable loses replies of its own accord, whatever SQLite does.
func unreliable(s storetest.Store) storetest.Store {
	return storetest.Inject(s, fault.MustParse("commit 20%: lose request; commit 25%: lose reply; commit 30%: lose reply, late"), 1)
}

func execute(t testing.TB, path, query string, args ...any) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func read(t testing.TB, path, query string) (n int64) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow(query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func newFile(t testing.TB) string { return filepath.Join(t.TempDir(), "test.db") }

func openDatabase(t testing.TB, path string) *sqlitestore.Database {
	db, err := sqlitestore.OpenDatabase(t.Context(), path, sqlitestore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

package pgstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/internal/histories"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

func historiesIn(url string) histories.Harness {
	return histories.Harness{
		Calls: 400,
		Open: func(t testing.TB, n int) func(t testing.TB) []histories.Store {
			first := tables.Add(int64(n))
			return func(t testing.TB) (stores []histories.Store) {
				db := openPool(t, url)
				for i := range n {
					s, err := pgstore.OpenIn[int, int64](t.Context(), db, pgstore.Options{Table: fmt.Sprint("history", first-int64(i))})
					if err != nil {
						t.Fatal(err)
					}
					stores = append(stores, s)
				}
				return stores
			}
		},
		// One that is in the middle of something, if there is one.
		Break: func(t testing.TB) {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			conn, err := pgx.Connect(ctx, url)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close(ctx)
			if _, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
				ORDER BY state = 'active' DESC, random() LIMIT 1`); err != nil {
				t.Error(err)
			}
		},
	}
}

func TestHistories(t *testing.T) { historiesIn(dbtest.Postgres(t)).Run(t, 4) }

func TestHistoriesOfTwoPrograms(t *testing.T) { historiesIn(dbtest.Postgres(t)).RunShared(t, 4) }

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

// postgresHistories breaks sessions of the first program's database, whose URL is
// known when it has a place.
//
// By way of a pooler it breaks sessions that are nobody's, or somebody's, by turns.
func postgresHistories(pooled bool) histories.Harness {
	var url string
	return histories.Harness{
		Calls: 400,
		Place: func(t testing.TB, n int) string {
			url = dbtest.Postgres(t)
			via := url
			if pooled {
				via = pooledURL(t, url)
			}
			return fmt.Sprintln(n, tables.Add(int64(n)), via)
		},
		Connect: func(t testing.TB, place string) (stores []histories.Store) {
			var n int
			var last int64
			var url string
			if _, err := fmt.Sscan(place, &n, &last, &url); err != nil {
				t.Fatal(err)
			}
			db := openPool
			if pooled {
				db = func(t testing.TB, url string) *pgstore.Database { return overPooled(newPool(t, url))(t) }
			}
			in := db(t, url)
			for i := range n {
				s, err := pgstore.OpenIn[int, int64](t.Context(), in, pgstore.Options{Table: fmt.Sprint("history", last-int64(i))})
				if err != nil {
					t.Fatal(err)
				}
				stores = append(stores, s)
			}
			return stores
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

func TestHistories(t *testing.T) { postgresHistories(false).Run(t, 4) }

func TestHistoriesOfTwoPrograms(t *testing.T) { postgresHistories(false).RunShared(t, 4) }

func TestHistoriesOfTwoProcesses(t *testing.T) { postgresHistories(false).RunProcesses(t, 4) }

func TestHistoriesBehindAPooler(t *testing.T) { postgresHistories(true).RunShared(t, 2) }

package mysqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/internal/histories"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

func historiesIn(t *testing.T) (h histories.Harness, dsn string) {
	dsn = dbtest.MariaDB(t)
	tables := 0
	return histories.Harness{
		Calls: 400,
		Open: func(t testing.TB, n int) func(t testing.TB) []histories.Store {
			tables += n
			first := tables
			return func(t testing.TB) (stores []histories.Store) {
				db, err := mysqlstore.OpenDatabase(t.Context(), connect(t, dsn), mysqlstore.DatabaseOptions{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { db.Close() })
				for i := range n {
					s, err := mysqlstore.OpenIn[int, int64](t.Context(), db, mysqlstore.Options{Table: fmt.Sprint("history", first-i)})
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
			pool := connect(t, dsn)
			var id int64
			err := pool.QueryRowContext(ctx, `SELECT ID FROM information_schema.PROCESSLIST
				WHERE DB = DATABASE() AND ID <> CONNECTION_ID() ORDER BY COMMAND <> 'Sleep' DESC, RAND() LIMIT 1`).Scan(&id)
			if err == nil {
				pool.ExecContext(ctx, fmt.Sprint("KILL ", id)) // it may have gone by itself
			}
		},
	}, dsn
}

func TestHistories(t *testing.T) {
	h, _ := historiesIn(t)
	h.Run(t, 4)
}

func TestHistoriesOfTwoPrograms(t *testing.T) {
	h, _ := historiesIn(t)
	h.RunShared(t, 4)
}

// TestTx: the program's own statements are committed with what a transaction writes
// through its caches.
func TestTx(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	execute(t, pool, "CREATE TABLE log (line VARCHAR(100) NOT NULL)")
	cache := cachetest.Open(t, openStore(t, dsn), lockstep.Options[string, string]{})
	if _, err := cache.Set(t.Context(), "k", "0"); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	for _, want := range []error{nil, refused} {
		err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
			if _, err := cache.In(tx).Get(ctx, "k"); err != nil {
				return err
			}
			sql, err := mysqlstore.Tx(tx)
			if err != nil {
				return err
			}
			if _, err := sql.ExecContext(ctx, "INSERT INTO log VALUES (?)", "line"); err != nil {
				return err
			}
			if want != nil {
				return want
			}
			return cache.In(tx).Set(ctx, "k", "1")
		})
		if !errors.Is(err, want) {
			t.Errorf("Transact: %v, want %v", err, want)
		}
	}
	waitFor(t, pool, 1, "SELECT COUNT(*) FROM log")
	if v, err := cache.Get(t.Context(), "k"); v != "1" || err != nil {
		t.Errorf("the row is %q, %v", v, err)
	}
}

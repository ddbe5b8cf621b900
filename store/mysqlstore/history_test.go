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

// mariadbHistories breaks sessions of the first program's database, whose DSN is known
// when it has a place.
func mariadbHistories() histories.Harness { return historiesOf("", openHistory) }

func openHistory(t testing.TB, db *mysqlstore.Database, table string) histories.Store {
	s, err := mysqlstore.OpenIn[int, int64](t.Context(), db, mysqlstore.Options{Table: table})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// historiesOf makes each table with columns, if there are any.
func historiesOf(columns string, open func(t testing.TB, db *mysqlstore.Database, table string) histories.Store) histories.Harness {
	var dsn string
	last := 0
	return histories.Harness{
		Calls: 400,
		Place: func(t testing.TB, n int) string {
			dsn = dbtest.MariaDB(t)
			last += n
			for i := range n {
				if columns != "" {
					execute(t, connect(t, dsn), fmt.Sprintf("CREATE TABLE history%d (%s)", last-i, columns))
				}
			}
			return fmt.Sprintln(n, last, dsn)
		},
		Connect: func(t testing.TB, place string) (stores []histories.Store) {
			var n, last int
			var dsn string
			if _, err := fmt.Sscan(place, &n, &last, &dsn); err != nil {
				t.Fatal(err)
			}
			db := openDatabase(t, dsn)
			for i := range n {
				stores = append(stores, open(t, db, fmt.Sprint("history", last-i)))
			}
			return stores
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
	}
}

func TestHistories(t *testing.T) { mariadbHistories().Run(t, 4) }

func TestHistoriesOfTwoPrograms(t *testing.T) { mariadbHistories().RunShared(t, 4) }

func TestHistoriesOfTwoProcesses(t *testing.T) { mariadbHistories().RunProcesses(t, 4) }

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

package pgstore_test

import (
	"database/sql"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/internal/crash"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

func TestNoAcknowledgedWriteIsLostWhenTheProgramIsKilled(t *testing.T) {
	crash.Harness{
		Place: func(t testing.TB) string { return dbtest.Postgres(t) },
		Connect: func(t testing.TB, url string) crash.Store {
			raw, err := codec.Raw[string]()
			if err != nil {
				t.Fatal(err)
			}
			s, err := pgstore.Open[string, string](t.Context(), newPool(t, url), pgstore.Options{Codec: raw})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Read: func(t testing.TB, url string) map[string]string {
			db, err := sql.Open("pgx", url)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			return crash.Rows(t, db, "SELECT key, value FROM lockstep WHERE deleted_at IS NULL")
		},
	}.Run(t)
}

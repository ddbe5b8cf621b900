package sqlitestore_test

import (
	"database/sql"
	"testing"

	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/internal/crash"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

func TestNoAcknowledgedWriteIsLostWhenTheProgramIsKilled(t *testing.T) {
	crash.Harness{
		Place: func(t testing.TB) string { return newFile(t) },
		Connect: func(t testing.TB, path string) crash.Store {
			raw, err := codec.Raw[string]()
			if err != nil {
				t.Fatal(err)
			}
			s, err := sqlitestore.Open[string, string](t.Context(), path, sqlitestore.Options{Codec: raw})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Read: func(t testing.TB, path string) map[string]string {
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			return crash.Rows(t, db, "SELECT key, value FROM lockstep WHERE deleted = 0")
		},
	}.Run(t)
}

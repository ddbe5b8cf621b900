package mysqlstore_test

import (
	"testing"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/internal/crash"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

func TestNoAcknowledgedWriteIsLostWhenTheProgramIsKilled(t *testing.T) {
	crash.Harness{
		Place: func(t testing.TB) string { return dbtest.MariaDB(t) },
		Connect: func(t testing.TB, dsn string) crash.Store {
			raw, err := codec.Raw[string]()
			if err != nil {
				t.Fatal(err)
			}
			s, err := mysqlstore.Open[string, string](t.Context(), connect(t, dsn), mysqlstore.Options{Codec: raw})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Read: func(t testing.TB, dsn string) map[string]string {
			return crash.Rows(t, connect(t, dsn), "SELECT `key`, value FROM lockstep WHERE deleted = 0")
		},
	}.Run(t)
}

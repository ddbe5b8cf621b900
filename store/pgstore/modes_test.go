package pgstore_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
)

// The caller's pool may be set to another of pgx's ways to run a statement; these two
// differ most from its default.
func TestContractInEachExecMode(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			var values codec.Codec[storetest.Doc] = codec.JSON[storetest.Doc]()
			if mode == pgx.QueryExecModeSimpleProtocol {
				values = codec.CBOR[storetest.Doc]()
			}
			contract(t, func(t testing.TB, url string) *pgstore.Database {
				config, err := pgxpool.ParseConfig(url)
				if err != nil {
					t.Fatal(err)
				}
				config.ConnConfig.DefaultQueryExecMode = mode
				pool, err := pgxpool.NewWithConfig(t.Context(), config)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(pool.Close)
				db, err := pgstore.OpenDatabase(t.Context(), pool, pgstore.DatabaseOptions{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { db.Close() })
				return db
			}, values)
		})
	}
}

package pgstore_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// What a program does to its sessions, as a pool's hook that says DISCARD ALL, takes
// the prepared statements away. The commit is made again, with new ones.
func TestAStatementThatHasGoneIsPreparedAgain(t *testing.T) {
	pool := tracedPool(t, dbtest.Postgres(t), nil)
	s, err := pgstore.Open[string, string](t.Context(), pool, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, gone := range []string{"DEALLOCATE ALL", "DISCARD PLANS", "DEALLOCATE ALL"} {
		write(t, s, put("a", "1"))
		commit(t, s, set(put("a", "2")), set(put("b", "2")))
		if _, err := pool.Exec(t.Context(), gone, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		commit(t, s, set(put("a", "3")), set(put("b", "3")))
		write(t, s, put("a", "4"))
		wantRow(t, s, "a", "4")
		wantRow(t, s, "b", "3")
	}
}

// A tracer is shown the writes, too.
func TestATracerSeesWrites(t *testing.T) {
	var seen tracer
	pool := tracedPool(t, dbtest.Postgres(t), &seen)
	s, err := pgstore.Open[string, string](t.Context(), pool, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := seen.inserts.Load()
	write(t, s, put("a", "1"))
	commit(t, s, set(put("a", "2")), set(put("b", "2")))
	if n := seen.inserts.Load() - before; n != 2 {
		t.Errorf("the tracer has seen %d insertions of 2", n)
	}
}

type tracer struct{ inserts atomic.Int64 }

func (tr *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.HasPrefix(data.SQL, "INSERT") {
		tr.inserts.Add(1)
	}
	return ctx
}

func (tr *tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// tracedPool is a pool of one connection.
func tracedPool(t testing.TB, url string, traced pgx.QueryTracer) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns, config.ConnConfig.Tracer = 1, traced
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func commit(t testing.TB, s *store, sets ...changeSet) {
	t.Helper()
	outcomes, err := s.Commit(t.Context(), sets)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		if o.Err != nil {
			t.Errorf("set %d: %v", i, o.Err)
		}
	}
}

package pgstore_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// lateContext ends between the answer to a statement and what is done about it.
type lateContext struct {
	context.Context
	cuts int
}

func (c *lateContext) AfterFunc(f func()) (stop func() bool) {
	return func() bool {
		c.cuts++
		f()
		return false
	}
}

// TestAConnectionThatWasCutBehindTheAnswerIsNotUsedAgain: a context that ends when the answer
// has come may cut the connection after that. The commit holds, and the program, whose pool
// it is, does not get the connection.
func TestAConnectionThatWasCutBehindTheAnswerIsNotUsedAgain(t *testing.T) {
	pool := onePool(t, dbtest.Postgres(t))
	s, err := pgstore.Open[string, string](t.Context(), pool, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, sets := range map[string][]changeSet{
		"proposal":  {set(put("k", "lone"))},
		"statement": {set(put("k", "batch")), set(put("l", "batch"))},
	} {
		t.Run(name, func(t *testing.T) {
			proposing(t, s, "k")
			write(t, s, put("l", "first"))
			ctx := &lateContext{Context: t.Context()}
			if _, err := s.Commit(ctx, sets); err != nil {
				t.Fatal(err)
			}
			if ctx.cuts != 1 {
				t.Errorf("%d statements were cut behind their answers, want 1", ctx.cuts)
			}
			if err := pool.Ping(t.Context()); err != nil {
				t.Errorf("the program has a connection that fails: %v", err)
			}
			wantRow(t, s, "k", sets[0].Changes[0].Value)
		})
	}
}

// TestACommitThatIsNotSentIsNoDoubt: one whose context ends when it has its connection says
// that it was not applied.
func TestACommitThatIsNotSentIsNoDoubt(t *testing.T) {
	config, err := pgxpool.ParseConfig(dbtest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	taken := func() {}
	config.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
		taken()
		return true, nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s, err := pgstore.Open[string, string](t.Context(), pool, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, sets := range map[string][]changeSet{
		"proposal":  {set(put("k", "never"))},
		"statement": {set(put("k", "never")), set(put("l", "never"))},
	} {
		t.Run(name, func(t *testing.T) {
			proposing(t, s, "k")
			write(t, s, put("k", "before"))
			ctx, cancel := context.WithCancel(t.Context())
			taken = cancel
			_, err := s.Commit(ctx, sets)
			taken = func() {}
			wantError(t, err, lockstep.ErrUnavailable)
			wantRow(t, s, "k", "before")
		})
	}
}

package pgstore

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// Where an address leads to two servers by turns, a session with one of them may be older
// than a commit on the other. It was asked for the commit's id, and told of another
// transaction, of its own server.
func TestAnotherServerIsNotAskedForAnID(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), dbtest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	db, err := OpenDatabase(t.Context(), pool, DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := db.session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer db.release(s)
	a := &attempt{db: db, id: *s.id, born: births.Add(1), verify: func(context.Context, *session) (bool, error) { return false, errUntold }}
	var work tableWork[string, struct{}]
	if err := s.run(t.Context(), work.readClock()); err != nil {
		t.Fatal(err)
	}
	if a.xact = work.xact; a.xact == 0 {
		t.Fatal("there is no id")
	}
	if applied, err := a.outcome(t.Context(), s, false); err != nil || !applied {
		t.Errorf("on the same server: %t, %v", applied, err)
	}
	a.id.server.started++
	if applied, err := a.outcome(t.Context(), s, false); !errors.Is(err, errUntold) {
		t.Errorf("on another server: %t, %v", applied, err)
	}
}

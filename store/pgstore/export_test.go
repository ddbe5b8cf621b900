package pgstore

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep"
)

// Lend and LendSQL are what Tx and SQLTx do once a transaction has begun.
func Lend(t lockstep.Txn) (pgx.Tx, error)     { return lendPgx(t) }
func LendSQL(t lockstep.Txn) (*sql.Tx, error) { return lendSQL(t) }

// RunInside runs a statement in a transaction past all checks.
func RunInside(ctx context.Context, t lockstep.Txn, query string) error {
	return t.(*txn).a.session.run(ctx, command{sql: query})
}

// StaysInside tells whether a statement may be part of a transaction, and whether the
// session can be used afterwards.
func StaysInside(query string) (stays bool, err error) { return staysInside(query) }

// Relative is what a server is taken for.
func Relative(status map[string]string) string {
	return relative(func(key string) string { return status[key] })
}

// Narrow makes room for so many bytes in each commit.
func Narrow(db *Database, room int) { db.room = room }

// Room is how many bytes that is.
func Room(db *Database) int { return db.room }

// Rivals makes n the losses after which an insertion is given up.
func Rivals(t *testing.T, n int) {
	before := rivals
	rivals = n
	t.Cleanup(func() { rivals = before })
}

// SweepLanes removes the lanes that nobody uses.
func SweepLanes(ctx context.Context, db *Database) error {
	_, err := db.lanes.sweep(ctx, db)
	return err
}

// Proposes tells whether the next lone value is proposed.
func Proposes[K comparable, V any](s *Store[K, V]) bool {
	_, known := s.db.clock.now()
	return known && s.proposals.skip.Load() <= 0
}

// Lag makes a store's idea of the server's clock so much older, and as new as it was.
func Lag[K comparable, V any](s *Store[K, V], by time.Duration) {
	s.db.seen.Add(-by.Microseconds())
	s.db.clock.ahead.Add(-by.Microseconds())
}

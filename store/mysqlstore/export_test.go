package mysqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/lockstep-cache/lockstep"
)

// AsMySQL makes the stores that are opened afterwards do without what MySQL has not:
// INSERT … RETURNING, and statements that do not wait for a lock.
func AsMySQL(db *Database) {
	db.server.dialect = "mysql"
}

// Sweep runs the background sweep now.
func (s *Store[K, V]) Sweep(ctx context.Context) (more bool, err error) { return s.sweep(ctx) }

// ServerIs tells whether a server of that version is taken.
func ServerIs(version string) error { return (&server{}).is(version) }

// SQL is what Tx does once a transaction has begun.
func SQL(t lockstep.Txn) (*sql.Tx, bool) {
	tx, err := lend(t)
	return tx, err == nil
}

// RunInside runs a statement in a transaction past all checks.
func RunInside(ctx context.Context, t lockstep.Txn, query string) error {
	return t.(*txn).a.s.run(ctx, query)
}

// CallJoined joins a transaction, and returns a call in it that does nothing.
func CallJoined(ctx context.Context, db *Database, tx *sql.Tx) (call func(context.Context) error, err error) {
	t := newJoinedTxn(db, tx)
	return func(ctx context.Context) error { return t.within(ctx, "", func() error { return nil }) }, t.meet(ctx)
}

// RunInSession runs a statement in a session of the database's.
func RunInSession(ctx context.Context, db *Database, query string) error {
	return db.read(ctx, func(s *session) error { return s.run(ctx, query) })
}

// Prepare has one session run so many statements, some of them for the second time, and returns how
// many it has kept prepared.
func Prepare(ctx context.Context, db *Database, queries []string) (kept int, err error) {
	err = db.read(ctx, func(s *session) error {
		for _, query := range queries {
			if err := s.query(ctx, query, []any{int64(1)}, func([]driver.Value) error { return nil }); err != nil {
				return err
			}
		}
		kept = len(s.stmts)
		return nil
	})
	return kept, err
}

package mysqlstore

import (
	"context"
)

// AsMySQL makes the stores that are opened afterwards do without what MySQL has
// not: INSERT … RETURNING, and statements that do not wait for a lock.
func AsMySQL(db *Database) {
	db.server.dialect = "mysql"
}

// Sweep runs the background sweep now.
func (s *Store[K, V]) Sweep(ctx context.Context) (more bool, err error) { return s.sweep(ctx) }

// ServerIs tells whether a server of that version is taken.
func ServerIs(version string) error { return (&server{}).is(version) }

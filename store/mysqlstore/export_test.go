package mysqlstore

import (
	"context"
	"time"
)

// AsMySQL makes the stores that are opened afterwards do without what MySQL has
// not: INSERT … RETURNING, and waits for a lock of less than a second.
func AsMySQL(db *Database) {
	db.server.dialect, db.server.noWait = "mysql", 1
	db.trim(time.Now().Add(time.Hour))
}

// Sweep runs the background sweep now.
func (s *Store[K, V]) Sweep(ctx context.Context) (more bool, err error) { return s.sweep(ctx) }

// ServerIs tells whether a server of that version is taken.
func ServerIs(version string) error { return (&server{}).is(version) }

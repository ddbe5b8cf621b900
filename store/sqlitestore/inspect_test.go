package sqlitestore

import (
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// Where the column and the index of the primary key collate differently, the
// index keeps rows apart that WHERE takes for one.
func TestAWriteDoesNotHitRowsThatTheColumnsCollationTakesForEqual(t *testing.T) {
	path := newPath(t)
	run(t, path,
		"CREATE TABLE nocase (id TEXT COLLATE NOCASE NOT NULL, name TEXT, PRIMARY KEY (id COLLATE BINARY))",
		"CREATE TABLE rtrim (a INTEGER, b TEXT COLLATE RTRIM, name TEXT, PRIMARY KEY (a, b COLLATE BINARY)) WITHOUT ROWID",
		"CREATE TABLE plain (id TEXT COLLATE BINARY PRIMARY KEY, name TEXT)")
	type pair struct {
		A int    `db:"a"`
		B string `db:"b"`
	}
	db := openAt(t, path)
	wantError(t, tableError[string, justName](db, "nocase"), lockstep.ErrInvalid, "key column id", "collation of the column")
	wantError(t, tableError[pair, justName](db, "rtrim"), lockstep.ErrInvalid, "key column b", "collation of the column")
	if err := tableError[string, justName](db, "plain"); err != nil {
		t.Error(err)
	}
}

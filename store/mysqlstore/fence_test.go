package mysqlstore

import (
	"database/sql"
	"testing"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// Of two that end one session, each has its lock for a moment. Neither is ended by the
// other.
func TestWhoEndsASessionIsNotEnded(t *testing.T) {
	pool, err := sql.Open("mysql", dbtest.MariaDB(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	db, err := OpenDatabase(t.Context(), pool, DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var sessions [2]*session
	for i := range sessions {
		if sessions[i], err = db.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer sessions[i].close()
	}
	victim, other := sessions[0].fence, sessions[1]
	sessions[0].close()
	row, err := other.row(t.Context(), "SELECT GET_LOCK('"+victim.name+"', 10)")
	if err != nil {
		t.Fatal(err)
	}
	if locked, _ := integer(row[0]); locked != 1 {
		t.Fatal("the session that was closed still has its lock")
	}
	if err := db.end(t.Context(), victim); err != nil {
		t.Error(err)
	}
	if err := other.run(t.Context(), "DO 1"); err != nil {
		t.Errorf("the other one was ended: %v", err)
	}
}

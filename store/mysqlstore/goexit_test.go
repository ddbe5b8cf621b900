package mysqlstore_test

import (
	"database/sql/driver"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// exits ends the goroutine that reads it, as t.Fatal does, when it is told to.
type exits struct{}

var exiting atomic.Bool

func (exits) Value() (driver.Value, error) { return "", nil }
func (*exits) Scan(any) error {
	if exiting.Load() {
		runtime.Goexit()
	}
	return nil
}

// A goroutine that a value's own method ends in the midst of a commit takes no session
// along.
func TestAGoroutineThatEndsInACommitLeavesItsSession(t *testing.T) {
	type V struct {
		Name exits `db:"name"`
	}
	dsn := dbtest.MariaDB(t)
	execute(t, connect(t, dsn), "CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, name TEXT)")
	db, err := mysqlstore.OpenDatabase(t.Context(), connect(t, dsn), mysqlstore.DatabaseOptions{MaxSessions: 1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := mysqlstore.NewTableIn[string, V](t.Context(), db, "t", mysqlstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := s.Capabilities().Prepare(lockstep.Change[string, V]{Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	exiting.Store(true)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Commit(t.Context(), []lockstep.ChangeSet[string, V]{{Changes: []lockstep.Change[string, V]{c}}})
		t.Error("the goroutine goes on")
	}()
	<-ended
	exiting.Store(false)
	closed := make(chan struct{})
	go func() { defer close(closed); db.Close() }()
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Error("Close waits for the session")
	}
	waitFor(t, connect(t, dsn), 0, "SELECT COUNT(*) FROM t")
}

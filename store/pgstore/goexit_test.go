package pgstore_test

import (
	"database/sql/driver"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/pgstore"
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
func (e *exits) UnmarshalJSON([]byte) error { return e.Scan(nil) }

// A goroutine that a value's own method ends in the midst of a load or a commit takes no
// session along.
func TestAGoroutineThatEndsGivesItsSessionBack(t *testing.T) {
	type V struct {
		Name exits `db:"name"`
	}
	type set = lockstep.ChangeSet[string, V]
	url := dbtest.Postgres(t)
	execute(t, url, "CREATE TABLE t (id text PRIMARY KEY, name text)")
	for name, begin := range map[string]func(t *testing.T, db *pgstore.Database) (ends func()){
		"load of a table": func(t *testing.T, db *pgstore.Database) func() {
			s, err := pgstore.NewTableIn[string, V](t.Context(), db, "t", pgstore.TableOptions{})
			if err != nil {
				t.Fatal(err)
			}
			store1(t, s, "k", V{})
			return func() { s.Load(t.Context(), []string{"k"}) }
		},
		"commit of a table": func(t *testing.T, db *pgstore.Database) func() {
			s, err := pgstore.NewTableIn[string, V](t.Context(), db, "t", pgstore.TableOptions{})
			if err != nil {
				t.Fatal(err)
			}
			c, _, err := s.Capabilities().Prepare(lockstep.Change[string, V]{Key: "k"})
			if err != nil {
				t.Fatal(err)
			}
			one := set{Changes: []lockstep.Change[string, V]{c}}
			return func() { s.Commit(t.Context(), []set{one, one}) }
		},
		"load of a table of our own": func(t *testing.T, db *pgstore.Database) func() {
			s, err := pgstore.OpenIn[string, *exits](t.Context(), db, pgstore.Options{Codec: codec.JSON[*exits]()})
			if err != nil {
				t.Fatal(err)
			}
			c := lockstep.Change[string, *exits]{Key: "k", Value: &exits{}}
			if _, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, *exits]{{Changes: []lockstep.Change[string, *exits]{c}}}); err != nil {
				t.Fatal(err)
			}
			return func() { s.Load(t.Context(), []string{"k"}) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := pgstore.OpenDatabase(t.Context(), onePool(t, url), pgstore.DatabaseOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ends := begin(t, db)
			exiting.Store(true)
			defer exiting.Store(false)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				ends()
				t.Error("the goroutine goes on")
			}()
			<-ended
			closed := make(chan struct{})
			go func() { defer close(closed); db.Close() }()
			select {
			case <-closed:
			case <-time.After(5 * time.Second):
				t.Fatal("Close waits for the session")
			}
		})
	}
}

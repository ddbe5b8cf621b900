package sqlitestore

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

type versioned struct {
	Name    string `db:"name"`
	Version int64  `db:"version,version"`
}

const versionedSchema = "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT, version INTEGER)"

// After the last version there is none that would be higher.
func TestAVersionDoesNotStartAgainAtItsEnd(t *testing.T) {
	path := newPath(t)
	run(t, path, versionedSchema, fmt.Sprintf("INSERT INTO t VALUES ('k', 'old', %d)", int64(math.MaxInt64)))
	db := openAt(t, path)
	table, err := NewTable[string, versioned](t.Context(), db, "t", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kv, err := OpenIn[string, versioned](t.Context(), db, Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, kv, "k", versioned{Name: "old"})
	run(t, path, fmt.Sprintf("UPDATE lockstep SET version = %d", int64(math.MaxInt64)))
	for name, s := range map[string]lockstep.Store[string, versioned]{"mapped": table, "own": kv} {
		set := lockstep.Change[string, versioned]{Key: "k", Value: versioned{Name: "new"}}
		for _, changes := range [][]lockstep.Change[string, versioned]{
			{set}, {{Key: "k", Delete: true}}, {{Key: "l", Value: versioned{Name: "new"}}, set},
		} {
			_, err := commitOne(s, changes...)
			wantError(t, err, lockstep.ErrInvalid)
		}
		outcomes, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, versioned]{{DeleteAll: true}})
		if err == nil {
			err = outcomes[0].Err
		}
		wantError(t, err, lockstep.ErrInvalid)
		if r := get(t, s, "k"); r.Version != math.MaxInt64 || r.Value.Name != "old" || get(t, s, "l").Exists {
			t.Errorf("%s: %+v", name, r)
		}
		put(t, s, "m", versioned{Name: "another row"})
	}
}

// Nothing in a mapped table keeps the version of a row that was deleted; the
// process does, for all stores over the table.
func TestVersionsGrowAcrossADeletionByAnotherStore(t *testing.T) {
	path := newPath(t)
	// A clock that has stepped back by an hour.
	run(t, path, versionedSchema, fmt.Sprintf("INSERT INTO t VALUES ('k', 'old', %d)", time.Now().Add(time.Hour).UnixMicro()))
	db := openAt(t, path)
	var s [2]*Table[string, versioned]
	for i, name := range []string{"t", "T"} {
		var err error
		if s[i], err = NewTable[string, versioned](t.Context(), db, name, TableOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	o, err := commitOne(s[0], lockstep.Change[string, versioned]{Key: "k", Delete: true})
	if err != nil {
		t.Fatal(err)
	}
	if again := put(t, s[1], "k", versioned{Name: "new"}); again.Version <= o.Rows[0].Version {
		t.Errorf("deleted at %d, and made again at %d", o.Rows[0].Version, again.Version)
	}
}

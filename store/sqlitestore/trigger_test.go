package sqlitestore

import (
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// What a trigger has kept is not deleted, and neither is the rest.
func TestDeleteAllDoesNotSucceedWhereATriggerKeepsRows(t *testing.T) {
	s := openTable[int64, justName](t, TableOptions{}, "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)",
		"INSERT INTO t VALUES (1, 'keep'), (2, 'go')",
		"CREATE TRIGGER k BEFORE DELETE ON t WHEN old.name = 'keep' BEGIN SELECT RAISE(IGNORE); END")
	all := lockstep.ChangeSet[int64, justName]{DeleteAll: true}
	one := lockstep.ChangeSet[int64, justName]{Changes: []lockstep.Change[int64, justName]{{Key: 3, Value: justName{"new"}}}}
	for _, sets := range [][]lockstep.ChangeSet[int64, justName]{{all}, {all, one}} {
		outcomes, err := s.Commit(t.Context(), sets)
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, outcomes[0].Err, lockstep.ErrInvalid, "table t", "trigger")
		if !get(t, s, 1).Exists || !get(t, s, 2).Exists {
			t.Error("a DeleteAll that was refused has deleted rows")
		}
	}
	if !get(t, s, 3).Exists {
		t.Error("the set beside it was not committed")
	}
	run(t, s.db.path, "DROP TRIGGER k")
	if outcomes, err := s.Commit(t.Context(), []lockstep.ChangeSet[int64, justName]{all}); err != nil || outcomes[0].Err != nil {
		t.Error(err, outcomes)
	}
}

package mysqlstore_test

import (
	"context"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/histories"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

func TestHistoriesOfTables(t *testing.T) {
	for _, version := range []string{"", "version"} {
		t.Run("version="+version, func(t *testing.T) { mappedHistories(version).Run(t, 4) })
	}
}

func TestHistoriesOfTablesOfTwoPrograms(t *testing.T) {
	mappedHistories("version").RunShared(t, 4)
}

func TestHistoriesOfTablesOfTwoProcesses(t *testing.T) {
	mappedHistories("version").RunProcesses(t, 4)
}

func mappedHistories(version string) histories.Harness {
	const columns = "id INT PRIMARY KEY, n BIGINT NOT NULL, version BIGINT NOT NULL DEFAULT 0"
	return historiesOf(columns, func(t testing.TB, db *mysqlstore.Database, table string) histories.Store {
		s, err := mysqlstore.NewTableIn[int, number](t.Context(), db, table, mysqlstore.TableOptions{VersionColumn: version})
		if err != nil {
			t.Fatal(err)
		}
		return numbers{s}
	})
}

type number struct {
	N int64 `db:"n"`
}

// numbers is a table of one column, whose values are the column's.
type numbers struct {
	*mysqlstore.Table[int, number]
}

func (s numbers) Load(ctx context.Context, keys []int) (map[int]lockstep.Row[int64], error) {
	found, err := s.Table.Load(ctx, keys)
	rows := make(map[int]lockstep.Row[int64], len(found))
	for k, r := range found {
		rows[k] = plainRow(r)
	}
	return rows, err
}

func (s numbers) Commit(ctx context.Context, sets []lockstep.ChangeSet[int, int64]) ([]lockstep.Outcome[int64], error) {
	mapped := make([]lockstep.ChangeSet[int, number], len(sets))
	for i, set := range sets {
		mapped[i] = mappedSet(set)
	}
	out, err := s.Table.Commit(ctx, mapped)
	return plainOutcomes(out), err
}

func (s numbers) Capabilities() lockstep.Capabilities[int, int64] {
	caps := s.Table.Capabilities()
	return lockstep.Capabilities[int, int64]{
		Name: caps.Name, Versions: caps.Versions, Checks: caps.Checks, Atomic: caps.Atomic, DeleteAll: caps.DeleteAll, Batch: caps.Batch,
		Database: caps.Database, Begin: caps.Begin,
		Settle: func(ctx context.Context, err error) (lockstep.Settlement[int64], error) {
			settled, err := caps.Settle(ctx, err)
			return lockstep.Settlement[int64]{Applied: settled.Applied, Outcomes: plainOutcomes(settled.Outcomes), Err: settled.Err}, err
		},
		Apply: func(ctx context.Context, txn lockstep.Txn, set lockstep.ChangeSet[int, int64]) (lockstep.Outcome[int64], error) {
			o, err := caps.Apply(ctx, txn, mappedSet(set))
			return plainOutcomes([]lockstep.Outcome[number]{o})[0], err
		},
	}
}

func mappedSet(set lockstep.ChangeSet[int, int64]) lockstep.ChangeSet[int, number] {
	mapped := lockstep.ChangeSet[int, number]{DeleteAll: set.DeleteAll}
	for _, c := range set.Changes {
		mapped.Changes = append(mapped.Changes, lockstep.Change[int, number]{Key: c.Key, Delete: c.Delete, Value: number{c.Value}, Expect: c.Expect})
	}
	for _, c := range set.Checks {
		if v, ok := c.Value.(int64); ok {
			c.Value = number{v}
		}
		mapped.Checks = append(mapped.Checks, c)
	}
	return mapped
}

func plainOutcomes(mapped []lockstep.Outcome[number]) (out []lockstep.Outcome[int64]) {
	for _, m := range mapped {
		o := lockstep.Outcome[int64]{Existed: m.Existed, Err: m.Err, Blocked: m.Blocked}
		for _, r := range m.Rows {
			o.Rows = append(o.Rows, plainRow(r))
		}
		if m.Rows != nil && o.Rows == nil {
			o.Rows = []lockstep.Row[int64]{}
		}
		out = append(out, o)
	}
	return out
}

func plainRow(r lockstep.Row[number]) lockstep.Row[int64] {
	return lockstep.Row[int64]{Value: r.Value.N, Version: r.Version, Exists: r.Exists}
}

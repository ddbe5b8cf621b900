package jointest

import (
	"context"

	"github.com/lockstep-cache/lockstep"
)

// Row is what a mapped table's rows are in these tests.
type Row struct {
	N int `db:"n"`
}

// Ints is a store of numbers over one of rows with a column for them.
func Ints(rows lockstep.Store[string, Row]) lockstep.Store[string, int] { return ints{rows} }

type ints struct{ rows lockstep.Store[string, Row] }

func (s ints) Load(ctx context.Context, keys []string) (map[string]lockstep.Row[int], error) {
	rows, err := s.rows.Load(ctx, keys)
	return loaded(rows), err
}

func (s ints) Commit(ctx context.Context, sets []lockstep.ChangeSet[string, int]) ([]lockstep.Outcome[int], error) {
	of := make([]lockstep.ChangeSet[string, Row], len(sets))
	for i, set := range sets {
		of[i] = setOf(set)
	}
	outcomes, err := s.rows.Commit(ctx, of)
	return outcomesOf(outcomes), err
}

func (s ints) Capabilities() lockstep.Capabilities[string, int] {
	of := s.rows.Capabilities()
	return lockstep.Capabilities[string, int]{
		Name: of.Name, ReadOnly: of.ReadOnly, Versions: of.Versions, Checks: of.Checks, Atomic: of.Atomic, Tombstones: of.Tombstones,
		Lifetimes: of.Lifetimes, DeleteAll: of.DeleteAll, Immediate: of.Immediate, Interruptible: of.Interruptible, Batch: of.Batch,
		Database: of.Database, Begin: of.Begin, Watch: of.Watch, Replaced: of.Replaced, Report: of.Report,
		Prepare: func(c lockstep.Change[string, int]) (lockstep.Change[string, int], int, error) {
			prepared, size, err := of.Prepare(changeOf(c))
			c.Key, c.Value, c.Prepared = prepared.Key, prepared.Value.N, prepared.Prepared
			return c, size, err
		},
		Settle: func(ctx context.Context, err error) (lockstep.Settlement[int], error) {
			settled, err := of.Settle(ctx, err)
			return lockstep.Settlement[int]{Applied: settled.Applied, Outcomes: outcomesOf(settled.Outcomes), Err: settled.Err}, err
		},
		Scan: func(ctx context.Context, cursor any, limit int) (lockstep.Page[string, int], error) {
			page, err := of.Scan(ctx, cursor, limit)
			return lockstep.Page[string, int]{Keys: page.Keys, Rows: rowsOf(page.Rows), Next: page.Next}, err
		},
		Apply: func(ctx context.Context, txn lockstep.Txn, set lockstep.ChangeSet[string, int]) (lockstep.Outcome[int], error) {
			outcome, err := of.Apply(ctx, txn, setOf(set))
			return outcomeOf(outcome), err
		},
		Read: func(ctx context.Context, txn lockstep.Txn, keys []string) (map[string]lockstep.Row[int], error) {
			rows, err := of.Read(ctx, txn, keys)
			return loaded(rows), err
		},
	}
}

func setOf(set lockstep.ChangeSet[string, int]) lockstep.ChangeSet[string, Row] {
	of := lockstep.ChangeSet[string, Row]{Checks: make([]lockstep.Check[string], len(set.Checks)), DeleteAll: set.DeleteAll}
	for _, c := range set.Changes {
		of.Changes = append(of.Changes, changeOf(c))
	}
	for i, c := range set.Checks {
		if n, ok := c.Value.(int); ok {
			c.Value = Row{n}
		}
		of.Checks[i] = c
	}
	return of
}

func changeOf(c lockstep.Change[string, int]) lockstep.Change[string, Row] {
	return lockstep.Change[string, Row]{
		Key: c.Key, Delete: c.Delete, Value: Row{c.Value}, Expect: c.Expect, ExpiresAt: c.ExpiresAt, Lifetime: c.Lifetime, Prepared: c.Prepared,
	}
}

func rowOf(r lockstep.Row[Row]) lockstep.Row[int] {
	return lockstep.Row[int]{Value: r.Value.N, Version: r.Version, Exists: r.Exists, ExpiresAt: r.ExpiresAt, Remaining: r.Remaining}
}

func rowsOf(rows []lockstep.Row[Row]) []lockstep.Row[int] {
	if rows == nil {
		return nil
	}
	of := make([]lockstep.Row[int], len(rows))
	for i, r := range rows {
		of[i] = rowOf(r)
	}
	return of
}

func loaded(rows map[string]lockstep.Row[Row]) map[string]lockstep.Row[int] {
	if rows == nil {
		return nil
	}
	of := make(map[string]lockstep.Row[int], len(rows))
	for k, r := range rows {
		of[k] = rowOf(r)
	}
	return of
}

func outcomeOf(o lockstep.Outcome[Row]) lockstep.Outcome[int] {
	return lockstep.Outcome[int]{Rows: rowsOf(o.Rows), Existed: o.Existed, Err: o.Err, Blocked: o.Blocked}
}

func outcomesOf(outcomes []lockstep.Outcome[Row]) []lockstep.Outcome[int] {
	if outcomes == nil {
		return nil
	}
	of := make([]lockstep.Outcome[int], len(outcomes))
	for i, o := range outcomes {
		of[i] = outcomeOf(o)
	}
	return of
}

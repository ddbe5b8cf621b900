package verify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
)

// outsider is another program, as far as the caches can tell: it changes rows by a
// database of its own, and tells nobody.
type outsider struct {
	stores []Store
	keys   int
	random *rand.Rand
	log    *history.Log
	values int64
	id     int64
}

// outsiders is what its changes are called.
const outsiders = "another program's change"

func (p plan) outsider(ctx context.Context, db Database, a assignment, log *history.Log) (*outsider, error) {
	o := &outsider{
		keys: p.keys, log: log, id: int64(a.Life*(clients+1) + clients),
		random: rand.New(rand.NewPCG(p.seed, uint64(a.Life)<<32|2)),
	}
	for _, table := range a.Tables {
		s, err := db.Table(ctx, table)
		if err != nil {
			return nil, err
		}
		o.stores = append(o.stores, s)
	}
	return o, nil
}

func (o *outsider) run(ctx context.Context, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(10+o.random.IntN(80)) * time.Millisecond):
			o.change(ctx, stop)
		}
	}
}

// change changes a row. Caches may answer with what was there before for as long as
// their copies live.
func (o *outsider) change(ctx context.Context, stop <-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	table, key := o.random.IntN(len(o.stores)), o.random.IntN(o.keys)
	store := o.stores[table]
	op := o.log.Call(outsiders)
	o.values++
	row := history.Row{Key: history.KeyOf(table, key), Exists: o.random.IntN(4) > 0}
	change := lockstep.Change[int, int64]{Key: key, Delete: !row.Exists}
	if row.Exists {
		row.Value = o.values*1000 + o.id
		change.Value = row.Value
	}
	op.Writes = []history.Row{row}
	if prepare := store.Capabilities().Prepare; prepare != nil {
		var err error
		if change, _, err = prepare(change); err != nil {
			panic(fmt.Sprintf("verify: a number is refused: %v", err))
		}
	}
	o.log.Intend(op)
	outcomes, err := store.Commit(ctx, []lockstep.ChangeSet[int, int64]{{Changes: []lockstep.Change[int, int64]{change}}})
	switch {
	case errors.Is(err, lockstep.ErrUnknownOutcome):
		op.Fate = o.settle(store, err, stop)
	case err != nil || outcomes[0].Err != nil:
		op.Fate = history.NotApplied
	case len(outcomes[0].Rows) == 1 && row.Exists:
		op.Writes[0].Version = int64(outcomes[0].Rows[0].Version)
	}
	if op.Fate == history.Unknown {
		return // as it was begun
	}
	o.log.ReturnWithin(op, staleWithin+slack)
}

func (o *outsider) settle(store Store, unknown error, stop <-chan struct{}) history.Fate {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		settled, err := store.Capabilities().Settle(ctx, unknown)
		cancel()
		switch {
		case err == nil && settled.Err != nil:
			return history.Unknown
		case err == nil && settled.Applied && (settled.Outcomes == nil || settled.Outcomes[0].Err == nil):
			return history.Applied
		case err == nil:
			return history.NotApplied
		}
		select {
		case <-stop:
			return history.Unknown
		case <-time.After(20 * time.Millisecond):
		}
	}
}

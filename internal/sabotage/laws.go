package sabotage

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
)

// ofLaws break one law of lockstep.Store each.
var ofLaws = []Sabotage{
	{
		Name:  "lagging-loads",
		About: "a load answers what was there some milliseconds ago, as a replica would; readers see an older row than was acknowledged",
		store: breaks(laggingLoads),
	},
	{
		Name:  "early-acknowledgement",
		About: "a write is acknowledged before it is committed; readers see the older row, and a crash loses it",
		store: breaks(earlyAcknowledgement),
	},
	{
		Name:  "torn-sets",
		About: "the changes of SetMany and Transact are committed one by one; readers see some and not the others",
		store: breaks(tornSets),
	},
	{
		Name:  "torn-transactions",
		About: "a transaction of two tables is committed table by table; readers see one and not the other",
		Needs: Needs{Tables: 2},
		store: breaks(tornTransactions),
	},
	{
		Name:  "backward-batches",
		About: "a batch is applied from its end; of two writes of a key the earlier one stays",
		store: breaks(backwardBatches),
	},
	{
		Name:  "ignored-conditions",
		About: "IfVersion and IfAbsent are not looked at; a write passes whose condition does not hold",
		store: breaks(func(b *broken) {
			b.eachSet(func(set *changeSet) {
				for i := range set.Changes {
					set.Changes[i].Expect = lockstep.Expect{}
				}
			})
		}),
	},
	{
		Name:  "unchecked-reads",
		About: "what Update and Transact have read is not checked when they commit; others' updates are lost",
		store: breaks(func(b *broken) {
			b.eachSet(func(set *changeSet) {
				if len(set.Changes) > 0 {
					set.Checks = nil
				}
			})
		}),
	},
	{
		Name:  "lost-deletions",
		About: "deletions are acknowledged and not made; readers find the row",
		store: breaks(lostDeletions),
	},
	{
		Name:  "coarse-versions",
		About: "versions are rounded down to milliseconds; two writes have one version",
		Needs: Needs{Versions: true},
		store: breaks(coarseVersions), plain: true,
		// Without conditions, which would not find the versions that they expect.
		only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, GetEntry: all.GetEntry, Set: all.Set, Delete: all.Delete, Invalidate: all.Invalidate}
		},
	},
	{
		Name:  "unknown-as-failed",
		About: "a commit whose reply was lost is said not to be applied; readers see it",
		Needs: Needs{LostReplies: true},
		store: breaks(func(b *broken) {
			b.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
				outcomes, err := b.inner.Commit(ctx, sets)
				if unknown(err) {
					err = fmt.Errorf("%w: %v", lockstep.ErrUnavailable, err)
				}
				return outcomes, err
			}
		}),
	},
	{
		Name:  "unknown-as-applied",
		About: "a commit whose request was lost is acknowledged; readers do not see it",
		Needs: Needs{LostRequests: true},
		store: breaks(func(b *broken) {
			b.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
				outcomes, err := b.inner.Commit(ctx, sets)
				if unknown(err) && blind(sets) {
					return make([]outcome, len(sets)), nil
				}
				return outcomes, err
			}
		}),
	},
	{
		Name:  "blind-retry",
		About: "a commit whose reply was lost is made again before it is settled; it conflicts with itself, or undoes what others have written",
		Needs: Needs{LostReplies: true},
		store: breaks(func(b *broken) {
			b.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
				outcomes, err := b.inner.Commit(ctx, sets)
				for range 3 {
					if unknown(err) {
						outcomes, err = b.inner.Commit(ctx, sets)
					}
				}
				return outcomes, err
			}
		}),
	},
	{
		Name:  "guessed-settlement",
		About: "an unknown outcome is settled as not applied, unseen; readers see it",
		Needs: Needs{LostReplies: true},
		store: breaks(func(b *broken) {
			b.caps.Settle = func(context.Context, error) (settlement, error) { return settlement{}, nil }
		}),
	},
	{
		Name:  "unfenced-settlement",
		About: "an unknown outcome is settled by reading, and nothing keeps the commit from arriving later; some do here",
		store: breaks(unfencedSettlement),
	},
}

// laggingLoads breaks law 1: it answers what it knows already, if that is not old.
func laggingLoads(b *broken) {
	type copied struct {
		row   row
		until time.Time
	}
	var mu sync.Mutex
	copies := make(map[int]copied)
	b.load = func(ctx context.Context, keys []int) (map[int]row, error) {
		rows := make(map[int]row)
		var missing []int
		mu.Lock()
		for _, key := range keys {
			if c, ok := copies[key]; ok && time.Now().Before(c.until) {
				rows[key] = c.row
			} else {
				missing = append(missing, key)
			}
		}
		mu.Unlock()
		if len(missing) == 0 {
			return rows, nil
		}
		loaded, err := b.inner.Load(ctx, missing)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, key := range missing {
			rows[key] = loaded[key]
			copies[key] = copied{loaded[key], time.Now().Add(moment)}
		}
		return rows, nil
	}
}

// earlyAcknowledgement breaks law 2: what can be promised is, and is committed in the
// background a moment later, one batch after the other.
func earlyAcknowledgement(b *broken) {
	turn := make(chan struct{}, 1)
	b.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", lockstep.ErrUnavailable, context.Cause(ctx))
		}
		if !blind(sets) {
			defer func() { <-turn }()
			return b.inner.Commit(ctx, sets)
		}
		b.later(ctx, kept(sets), func() { <-turn })
		return make([]outcome, len(sets)), nil
	}
}

// tornSets breaks law 3.
func tornSets(b *broken) {
	b.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
		if !slices.ContainsFunc(sets, func(set changeSet) bool { return len(set.Changes) > 1 }) {
			return b.inner.Commit(ctx, sets)
		}
		outcomes := make([]outcome, len(sets))
		for i, set := range sets {
			var err error
			if outcomes[i], err = b.oneByOne(ctx, set); unknown(err) {
				return nil, &lost{err, func(ctx context.Context) (settlement, error) {
					settled, settleErr := b.below.Settle(ctx, err)
					if settleErr == nil && settled.Err == nil {
						settled = settlement{Err: fmt.Errorf("only a part of it was asked for: %w", err)}
					}
					return settled, settleErr
				}}
			} else if err != nil {
				outcomes[i].Err = err
			}
		}
		return outcomes, nil
	}
}

func (b *broken) oneByOne(ctx context.Context, set changeSet) (all outcome, err error) {
	changes := set.Changes
	for i := range max(1, len(changes)) {
		if len(changes) > 0 {
			set.Changes = changes[i : i+1]
		}
		outcomes, err := b.inner.Commit(ctx, []changeSet{set})
		if err != nil {
			return all, err
		}
		set.Checks = nil // the first change has passed them
		all.Rows = append(all.Rows, outcomes[0].Rows...)
		all.Existed = append(all.Existed, outcomes[0].Existed...)
		if all.Err = outcomes[0].Err; all.Err != nil {
			return all, nil
		}
	}
	if len(all.Rows) < len(changes) {
		all.Rows = nil
	}
	if len(all.Existed) < len(changes) {
		all.Existed = nil
	}
	return all, nil
}

// tornTransactions breaks law 3 where the sets are of several tables: each is
// committed when it is applied, and nothing is left for the transaction.
func tornTransactions(b *broken) {
	b.caps.Database = torn{b.below.Database}
	b.caps.Read = nil
	b.caps.Begin = func(context.Context) (lockstep.Txn, error) { return idle{}, nil }
	b.caps.Apply = func(ctx context.Context, _ lockstep.Txn, set changeSet) (outcome, error) {
		outcomes, err := b.inner.Commit(ctx, []changeSet{set})
		if err != nil {
			return outcome{}, err
		}
		return outcomes[0], nil
	}
}

// torn names the database of tornTransactions: the inner one takes no idle Txn.
type torn struct{ inner any }

type idle struct{}

func (idle) Commit(context.Context) error         { return nil }
func (idle) Rollback(context.Context) error       { return nil }
func (idle) Settle(context.Context) (bool, error) { return true, nil }

// backwardBatches breaks law 4.
func backwardBatches(b *broken) {
	b.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
		sets = slices.Clone(sets)
		slices.Reverse(sets)
		outcomes, err := b.inner.Commit(ctx, sets)
		slices.Reverse(outcomes)
		if !unknown(err) || b.below.Settle == nil {
			return outcomes, err
		}
		return nil, &lost{err, func(ctx context.Context) (settlement, error) {
			settled, err := b.below.Settle(ctx, err)
			settled.Outcomes = slices.Clone(settled.Outcomes)
			slices.Reverse(settled.Outcomes)
			return settled, err
		}}
	}
}

// lostDeletions breaks law 2 for batches of nothing but deletions without condition.
func lostDeletions(b *broken) {
	b.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
		var keys []int
		for _, set := range sets {
			for _, c := range set.Changes {
				if !c.Delete || c.Expect.Kind != lockstep.ExpectAnything {
					return b.inner.Commit(ctx, sets)
				}
				keys = append(keys, c.Key)
			}
			if set.DeleteAll || len(set.Checks) > 0 {
				return b.inner.Commit(ctx, sets)
			}
		}
		rows, err := b.inner.Load(ctx, keys)
		if err != nil {
			return nil, err
		}
		outcomes := make([]outcome, len(sets))
		for i, set := range sets {
			for _, c := range set.Changes {
				outcomes[i].Existed = append(outcomes[i].Existed, rows[c.Key].Exists)
			}
		}
		return outcomes, nil
	}
}

// coarseVersions breaks law 8.
func coarseVersions(b *broken) {
	const coarse = 1000 // versions are microseconds, or one more than the last
	round := func(rows []row) {
		for i := range rows {
			rows[i].Version -= rows[i].Version % coarse
		}
	}
	told := func(outcomes []outcome) []outcome {
		outcomes = slices.Clone(outcomes)
		for i := range outcomes {
			outcomes[i].Rows = slices.Clone(outcomes[i].Rows)
			round(outcomes[i].Rows)
		}
		return outcomes
	}
	b.load = func(ctx context.Context, keys []int) (map[int]row, error) {
		rows, err := b.inner.Load(ctx, keys)
		for key, r := range rows {
			r.Version -= r.Version % coarse
			rows[key] = r
		}
		return rows, err
	}
	b.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
		outcomes, err := b.inner.Commit(ctx, sets)
		return told(outcomes), err
	}
	if settle := b.below.Settle; settle != nil {
		b.caps.Settle = func(ctx context.Context, err error) (settlement, error) {
			settled, err := settle(ctx, err)
			if settled.Outcomes != nil {
				settled.Outcomes = told(settled.Outcomes)
			}
			return settled, err
		}
	}
	if scan := b.below.Scan; scan != nil {
		b.caps.Scan = func(ctx context.Context, cursor any, limit int) (page, error) {
			page, err := scan(ctx, cursor, limit)
			round(page.Rows)
			return page, err
		}
	}
}

// unfencedSettlement breaks law 6. One commit in eight is under way when it is called
// unknown, as after a time-out, and arrives a moment later.
func unfencedSettlement(b *broken) {
	var commits atomic.Int64
	b.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
		sets = kept(sets) // a settlement comes after the call
		read := func(ctx context.Context) (settlement, error) { return b.byReading(ctx, sets) }
		if commits.Add(1)%8 == 0 {
			b.later(ctx, sets, func() {})
			return nil, &lost{fmt.Errorf("%w: there was no reply in time", lockstep.ErrUnknownOutcome), read}
		}
		outcomes, err := b.inner.Commit(ctx, sets)
		if unknown(err) {
			err = &lost{err, read}
		}
		return outcomes, err
	}
	b.caps.Settle = b.settle
}

// byReading takes what is there for what was written.
func (b *broken) byReading(ctx context.Context, sets []changeSet) (settlement, error) {
	settled := settlement{Applied: true, Outcomes: make([]outcome, len(sets))}
	for i, set := range sets {
		for _, c := range set.Changes {
			rows, err := b.inner.Load(ctx, []int{c.Key})
			if err != nil {
				return settlement{}, err
			}
			if r := rows[c.Key]; r.Exists == c.Delete || r.Exists && r.Value != c.Value {
				settled.Outcomes[i].Err = fmt.Errorf("%w: key %d has another value", lockstep.ErrUnavailable, c.Key)
			}
		}
	}
	return settled, nil
}

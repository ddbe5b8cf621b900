package sabotage

import (
	"context"
	"errors"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/internal/textbook"
)

// ofTextbook are the faults of package textbook that a history shows, by their
// numbers there. Its fault 2 is shared-reads: in the textbook, whoever shares a load
// that is too old finds it in memory, too, which is fault 1.
var ofTextbook = []Sabotage{
	{
		Name:  "stale-fill", // 1
		About: "a reader who missed puts the old row back over a write that was acknowledged meanwhile; later readers see it",
		Needs: Needs{RealTime: true},
		open:  textbooks(unversioned), plain: true,
		slow: true,
		only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, Set: all.Set, Invalidate: all.Invalidate}
		},
	},
	{
		Name:  "remembered-condition", // 5
		About: "IfAbsent is compared with memory and not by the database; two writers both find the key absent",
		Needs: Needs{RealTime: true},
		open:  textbooks(unversioned), plain: true,
		only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, SetIf: all.SetIf, Invalidate: all.Invalidate}
		},
	},
	{
		Name:  "restarted-versions", // 6
		About: "versions start again at 1 when memory has forgotten the row; two values have one version",
		Needs: Needs{RealTime: true},
		open:  textbooks(versioned), plain: true,
		only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, Set: all.Set, Delete: all.Delete, Invalidate: all.Invalidate}
		},
	},
	{
		Name:  "failed-write", // 8
		About: "a write whose reply was lost leaves the old value in memory; readers see it after the write was settled",
		Needs: Needs{LostReplies: true, RealTime: true},
		open:  textbooks(unversioned), plain: true,
		only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, Set: all.Set}
		},
	},
	{
		Name:  "half-batch", // 12
		About: "SetMany that fails half-way leaves memory with all of it; readers see what was said not to be applied",
		Needs: Needs{Failures: true, RealTime: true},
		open:  textbooks(unversioned), plain: true,
		only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, SetMany: all.SetMany}
		},
	},
	{
		Name:  "half-transaction", // 13
		About: "a transaction is committed key by key; readers see one key new and the other old",
		Needs: Needs{RealTime: true},
		open:  textbooks(unversioned),
		only:  func(all history.Table) history.Table { return history.Table{Get: all.Get} },
	},
	{
		Name:  "lost-update", // 15
		About: "Update writes over what others have written since it read; their updates are lost",
		Needs: Needs{RealTime: true},
		open:  textbooks(unversioned), plain: true,
		only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, Update: all.Update}
		},
	},
	{
		Name:  "undone-invalidation", // 16
		About: "a load that was under way undoes an invalidation; a write past the cache stays unseen after it",
		open:  textbooks(unversioned), plain: true,
		around: writtenPast,
		slow:   true,
		only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, Set: all.Set}
		},
	},
}

// Whether the versions that the textbook's memory counts are told. They are wrong in
// so many ways that nothing else would be found.
const (
	unversioned = false
	versioned   = true
)

// textbooks opens the textbook's cache over the first store: it has no transactions
// of several tables.
func textbooks(versions bool) func([]store, options) (history.Subject, Close, error) {
	return func(stores []store, o options) (history.Subject, Close, error) {
		c := textbook.New(stores[0], textbook.Options{MaxEntries: o.MaxEntries})
		end := func(context.Context) error {
			c.Kill()
			return nil
		}
		return textbookSubject(c, stores[0], versions), end, nil
	}
}

func textbookSubject(c *textbook.Cache[int, int64], store store, versions bool) history.Subject {
	tell := func(version lockstep.Version, err error) (lockstep.Version, error) {
		if !versions {
			version = 0
		}
		return version, err
	}
	return history.Subject{
		Tables: []history.Table{{
			Get: c.Get, GetMany: c.GetMany, Exists: c.Exists, Peek: c.Peek,
			Set: func(ctx context.Context, key int, value int64) (lockstep.Version, error) {
				version, err := c.Set(ctx, key, value)
				// Its caller asks the database; nobody tells the cache.
				return tell(version, asked(ctx, store, err))
			},
			SetIf: func(ctx context.Context, key int, value int64, expect lockstep.Expect) (lockstep.Version, error) {
				if expect.Kind == lockstep.ExpectVersion {
					return tell(c.SetIfVersion(ctx, key, value, expect.Version))
				}
				return tell(c.SetIfAbsent(ctx, key, value))
			},
			SetMany: c.SetMany, Delete: c.Delete, DeleteMany: c.DeleteMany, Update: c.Update,
			Invalidate: c.Invalidate, InvalidateAll: c.InvalidateAll,
		}},
		Transact: func(ctx context.Context, f func(context.Context, func(int) history.InTx) error) error {
			return c.Transact(ctx, func(ctx context.Context, tx *textbook.Tx[int, int64]) error {
				return f(ctx, func(int) history.InTx { return tx })
			})
		},
	}
}

// asked is the error of a lone write, once the database was asked about an unknown
// outcome.
func asked(ctx context.Context, store store, err error) error {
	settle := store.Capabilities().Settle
	if settle == nil || !errors.Is(err, lockstep.ErrUnknownOutcome) {
		return err
	}
	if settled, settleErr := settle(ctx, err); settleErr == nil && settled.Applied {
		return nil
	}
	return err
}

// writtenPast has a program that writes past its cache, and then invalidates the key.
// That is sound over a cache in which an invalidation defeats a load under way.
func writtenPast(s history.Subject, stores []store) history.Subject {
	for i := range s.Tables {
		store, invalidate := stores[i], s.Tables[i].Invalidate
		s.Tables[i].Set = func(ctx context.Context, key int, value int64) (lockstep.Version, error) {
			defer invalidate(key)
			change := change{Key: key, Value: value}
			if prepare := store.Capabilities().Prepare; prepare != nil {
				var err error
				if change, _, err = prepare(change); err != nil {
					return 0, err
				}
			}
			outcomes, err := store.Commit(ctx, []changeSet{{Changes: []lockstep.Change[int, int64]{change}}})
			if err == nil {
				err = outcomes[0].Err
			}
			return 0, asked(ctx, store, err)
		}
	}
	return s
}

package sabotage

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
)

// ofRules are programs that break a rule of the cache's.
var ofRules = []Sabotage{
	{
		Name:    "shared-reads",
		About:   "a reader shares the Get of another who asked earlier; it misses a write that was acknowledged in between",
		subject: sharedReads,
		slow:    true,
		only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, Set: all.Set, Invalidate: all.Invalidate}
		},
	},
	{
		Name:  "left-as-failed",
		About: "a caller who leaves during the commit is told that the write is not applied; readers see it",
		Needs: Needs{Leavers: true},
		subject: func(s history.Subject) history.Subject {
			for i, t := range s.Tables {
				s.Tables[i].Set = func(ctx context.Context, key int, value int64) (lockstep.Version, error) {
					version, err := t.Set(ctx, key, value)
					if unknown(err) && ctx.Err() != nil {
						err = ctx.Err()
					}
					return version, err
				}
			}
			return s
		},
	},
	{
		Name:  "deaf-neighbour",
		About: "two caches over one table do not hear of each other's writes; one goes on to answer with the older row",
		plain: true,
		open:  neighbours,
		only: func(all history.Table) history.Table {
			return history.Table{Get: all.Get, Set: all.Set, Delete: all.Delete}
		},
	},
}

// sharedReads puts around the cache what many a program puts around a database.
func sharedReads(s history.Subject) history.Subject {
	type flight struct {
		done  chan struct{}
		value int64
		err   error
	}
	for i, t := range s.Tables {
		var mu sync.Mutex
		flights := make(map[int]*flight)
		s.Tables[i].Get = func(ctx context.Context, key int) (int64, error) {
			mu.Lock()
			f, joined := flights[key]
			if !joined {
				f = &flight{done: make(chan struct{})}
				flights[key] = f
			}
			mu.Unlock()
			if joined {
				<-f.done
				return f.value, f.err
			}
			f.value, f.err = t.Get(ctx, key)
			mu.Lock()
			delete(flights, key)
			mu.Unlock()
			close(f.done)
			return f.value, f.err
		}
	}
	return s
}

// neighbours are two caches, of which the calls take turns.
func neighbours(stores []store, o options) (history.Subject, Close, error) {
	// Each over the first store, as two processes would be.
	one, endOne, err := Sabotage{}.ours(stores[:1], o)
	if err != nil {
		return history.Subject{}, nil, err
	}
	other, endOther, err := Sabotage{}.ours(stores[:1], o)
	if err != nil {
		return history.Subject{}, nil, errors.Join(err, endOne(context.Background()))
	}
	var calls atomic.Uint64
	turn := func() *history.Table {
		if calls.Add(1)%2 == 0 {
			return &one.Tables[0]
		}
		return &other.Tables[0]
	}
	table := history.Table{
		Get: func(ctx context.Context, key int) (int64, error) { return turn().Get(ctx, key) },
		Set: func(ctx context.Context, key int, value int64) (lockstep.Version, error) {
			return turn().Set(ctx, key, value)
		},
		Delete: func(ctx context.Context, key int) (bool, error) { return turn().Delete(ctx, key) },
	}
	end := func(ctx context.Context) error { return errors.Join(endOne(ctx), endOther(ctx)) }
	return history.Subject{Tables: []history.Table{table}}, end, nil
}

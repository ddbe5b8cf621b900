package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// stage is where scenes are played: the page they tell their story on, the
// tables they have opened, what they were expected to show.
type stage struct {
	page
	options Options
	plain   *sql.DB
	result  *Result
	scene   *Scene
	tables  []compared
}

// expect notes something that must be true.
func (s *stage) expect(met bool, format string, args ...any) {
	c := Check{What: fmt.Sprintf(format, args...), Met: met}
	s.scene.Checks = append(s.scene.Checks, c)
	s.tick(c.Met, c.What)
}

// some is n at the demo's scale, and never less than least.
func (s *stage) some(n, least int) int { return max(least, int(float64(n)*s.options.Scale)) }

// lasting is d at the demo's scale.
func (s *stage) lasting(d time.Duration) time.Duration {
	return time.Duration(float64(d) * s.options.Scale)
}

// table is a table of the demo's with the cache in front of it.
type table[V comparable] struct {
	name   string // as people call it
	sql    string // as the database does
	cache  *lockstep.Cache[string, V]
	faults *fault.Store[string, V] // nil without recipe.faults
}

// recipe says how a table is made.
type recipe[V comparable] struct {
	name    string
	open    Opener[V]
	options lockstep.Options[string, V]
	faults  bool                    // with a fault injector around the store
	retry   *resilience.RetryPolicy // and retries around that
}

const faultSeed = 20

// openTable makes a table and its cache. The cache stays open until the end, to
// be compared with the database.
func openTable[V comparable](ctx context.Context, s *stage, r recipe[V]) (*table[V], error) {
	t := &table[V]{name: r.name, sql: s.options.Database.Prefix + r.name}
	store, err := r.open(ctx, t.sql)
	if err != nil {
		return nil, err
	}
	if r.faults {
		t.faults = fault.Inject(store, fault.Script{}, faultSeed)
		store = t.faults
	}
	if r.retry != nil {
		if store, err = resilience.Retry(store, *r.retry); err != nil {
			return nil, err
		}
	}
	// Settlements that fail are part of the show, and are counted in it.
	r.options.Logger = slog.New(slog.DiscardHandler)
	if t.cache, err = lockstep.New(store, r.options); err != nil {
		return nil, err
	}
	s.tables = append(s.tables, t)
	return t, nil
}

// close closes every cache, also when ctx has ended.
func (s *stage) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var errs []error
	for _, t := range s.tables {
		errs = append(errs, t.close(ctx))
	}
	return errors.Join(errs...)
}

func (t *table[V]) close(ctx context.Context) error {
	if t.faults != nil {
		t.faults.Play(fault.Script{})
		t.faults.Release()
	}
	return t.cache.Close(ctx)
}

// fill writes n rows, many in a transaction.
func (t *table[V]) fill(ctx context.Context, n int, key func(int) string, row func(int) V) error {
	const chunk = 500
	rows := make(map[string]V, chunk)
	for i := range n {
		rows[key(i)] = row(i)
		if len(rows) == chunk || i == n-1 {
			if err := t.cache.SetMany(ctx, rows); err != nil {
				return err
			}
			clear(rows)
		}
	}
	return nil
}

// clients runs f for so many clients at once, and returns the first error: what
// goes wrong for one of them mostly does so for all.
func clients(n int, f func(client int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// took is how long f takes.
func took(f func() error) (time.Duration, error) {
	began := time.Now()
	err := f()
	return time.Since(began), err
}

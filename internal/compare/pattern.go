package compare

import (
	"context"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/textbook"
)

// Store is one over a table of numbers.
type Store = lockstep.Store[int, int64]

// subject is a pattern at work.
type subject interface {
	Get(ctx context.Context, key int) (int64, error)
	Set(ctx context.Context, key int, number int64) error
	// counts are the reads that memory has answered, and those that it has not.
	counts() (hits, misses uint64)
	Close(ctx context.Context) error
}

// pattern is a way to have a cache beside a database.
type pattern struct {
	name  string
	about string
	open  func(p place) (subject, error)
	// recovers: what a crash has left is taken up by the next program.
	recovers bool
}

// place is what a pattern has to work with.
type place struct {
	store   Store
	entries int           // that memory may have
	ttl     time.Duration // for how long it may answer
}

var patterns = []pattern{
	{name: "database alone", about: "no cache: each read and each write is a call of the database",
		open: func(p place) (subject, error) { return alone{p.store}, nil }},
	{name: "textbook", about: "the write-through cache that articles print, with its faults",
		open: openTextbook},
	{name: "write-through", about: "committed, then in memory, then acknowledged",
		open: openCache(lockstep.Options[int, int64]{})},
	{name: "write-around", about: "committed, then out of memory, then acknowledged",
		open: openCache(lockstep.Options[int, int64]{Mode: lockstep.WriteAround})},
	{name: "write-behind", about: "acknowledged from memory, committed a little later",
		open: openCache(lockstep.Options[int, int64]{Mode: lockstep.WriteBehind})},
}

// Patterns are their names, in order.
func Patterns() (names []string) {
	for _, p := range patterns {
		names = append(names, p.name)
	}
	return names
}

// About says what a pattern is.
func About(name string) string {
	p, _ := find(name)
	return p.about
}

// find is the pattern of a name.
func find(name string) (pattern, error) {
	for _, p := range patterns {
		if p.name == name {
			return p, nil
		}
	}
	return pattern{}, fmt.Errorf("there is no pattern called %q", name)
}

// alone is the database without a cache.
type alone struct{ store Store }

func (s alone) Get(ctx context.Context, key int) (int64, error) {
	rows, err := s.store.Load(ctx, []int{key})
	if err != nil {
		return 0, err
	}
	if row := rows[key]; row.Exists {
		return row.Value, nil
	}
	return 0, lockstep.ErrNotFound
}

func (s alone) Set(ctx context.Context, key int, number int64) error {
	return commit(ctx, s.store, []lockstep.Change[int, int64]{{Key: key, Value: number}})
}

func (alone) counts() (hits, misses uint64) { return 0, 0 }
func (alone) Close(context.Context) error   { return nil }

// commit commits the changes as one set.
func commit(ctx context.Context, store Store, changes []lockstep.Change[int, int64]) error {
	if prepare := store.Capabilities().Prepare; prepare != nil {
		for i := range changes {
			var err error
			if changes[i], _, err = prepare(changes[i]); err != nil {
				return err
			}
		}
	}
	outcomes, err := store.Commit(ctx, []lockstep.ChangeSet[int, int64]{{Changes: changes}})
	if err != nil {
		return err
	}
	return outcomes[0].Err
}

// cached is a cache of ours.
type cached struct {
	*lockstep.Cache[int, int64]
}

func openCache(options lockstep.Options[int, int64]) func(place) (subject, error) {
	return func(p place) (subject, error) {
		options.MaxEntries, options.TTL = p.entries, p.ttl
		cache, err := lockstep.New(p.store, options)
		return cached{cache}, err
	}
}

func (c cached) Set(ctx context.Context, key int, number int64) error {
	_, err := c.Cache.Set(ctx, key, number)
	return err
}

func (c cached) counts() (hits, misses uint64) {
	stats := c.Stats()
	return stats.Hits, stats.Misses
}

// printed is the textbook's cache.
type printed struct {
	*textbook.Cache[int, int64]
}

func openTextbook(p place) (subject, error) {
	return printed{textbook.New(p.store, textbook.Options{MaxEntries: p.entries, TTL: p.ttl})}, nil
}

func (c printed) Set(ctx context.Context, key int, number int64) error {
	_, err := c.Cache.Set(ctx, key, number)
	return err
}

func (c printed) counts() (hits, misses uint64) {
	stats := c.Stats()
	return uint64(stats.Hits), uint64(stats.Misses)
}

func (c printed) Close(ctx context.Context) error {
	err := c.Cache.Close(ctx)
	c.Kill()
	return err
}

package compare

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/textbook"
	"github.com/lockstep-cache/lockstep/journal"
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
	open  func(ctx context.Context, p place) (subject, error)
	// recovers: what a crash has left is taken up by the next program.
	recovers bool
}

// place is what a pattern has to work with.
type place struct {
	store   Store
	entries int           // that memory may have
	ttl     time.Duration // for how long it may answer
	// journal is a directory, and positions a store for where the journal stands.
	journal   string
	positions func() (lockstep.Store[string, int64], error)
}

var patterns = []pattern{
	{name: "database alone", about: "no cache: each read and each write is a call of the database",
		open: func(_ context.Context, p place) (subject, error) { return alone{p.store}, nil }},
	{name: "textbook", about: "the write-through cache that articles print, with its faults",
		open: openTextbook},
	{name: "write-through", about: "committed, then in memory, then acknowledged",
		open: openCache(lockstep.Options[int, int64]{})},
	{name: "refresh-ahead", about: "write-through, and what is read near the end of its time is loaded before that",
		open: openAhead},
	{name: "write-around", about: "committed, then out of memory, then acknowledged",
		open: openCache(lockstep.Options[int, int64]{Mode: lockstep.WriteAround})},
	{name: "write-behind", about: "acknowledged from memory, committed a little later",
		open: openCache(lockstep.Options[int, int64]{Mode: lockstep.WriteBehind})},
	{name: "with a journal", about: "write-behind, acknowledged when it is in a journal on the disk",
		open: openJournal, recovers: true},
	{name: "cache-aside", about: "by hand, with the program's own reads and writes of the database: GetWith and WriteWith",
		open: openAside},
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

func openCache(options lockstep.Options[int, int64]) func(context.Context, place) (subject, error) {
	return func(_ context.Context, p place) (subject, error) {
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

// openAhead: a copy is loaded anew in the last third of its time.
func openAhead(ctx context.Context, p place) (subject, error) {
	return openCache(lockstep.Options[int, int64]{RefreshAhead: p.ttl / 3})(ctx, p)
}

// journaled closes its journal behind it.
type journaled struct {
	subject
	journal *journal.Journal[int, int64]
}

func openJournal(ctx context.Context, p place) (subject, error) {
	positions, err := p.positions()
	if err != nil {
		return nil, err
	}
	kept, err := journal.Open(ctx, p.journal, journal.Options[int, int64]{Positions: positions})
	if err != nil {
		return nil, err
	}
	s, err := openCache(lockstep.Options[int, int64]{
		Mode: lockstep.WriteBehind, Behind: lockstep.Behind[int, int64]{Journal: kept},
	})(ctx, p)
	if err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	return journaled{s, kept}, nil
}

func (j journaled) Close(ctx context.Context) error {
	return errors.Join(j.subject.Close(ctx), j.journal.Close())
}

// aside is cache-aside. What the program reads and writes itself is the database alone.
type aside struct {
	cached
	database alone
}

func openAside(_ context.Context, p place) (subject, error) {
	cache, err := lockstep.New(lockstep.ByHand[int, int64](), lockstep.Options[int, int64]{
		Mode: lockstep.CacheAside, MaxEntries: p.entries, TTL: p.ttl,
	})
	return aside{cached{cache}, alone{p.store}}, err
}

func (s aside) Get(ctx context.Context, key int) (int64, error) {
	return s.GetWith(ctx, key, func(ctx context.Context) (int64, error) { return s.database.Get(ctx, key) })
}

func (s aside) Set(ctx context.Context, key int, number int64) error {
	return s.WriteWith(ctx, []int{key}, func(ctx context.Context) error { return s.database.Set(ctx, key, number) })
}

// printed is the textbook's cache.
type printed struct {
	*textbook.Cache[int, int64]
}

func openTextbook(_ context.Context, p place) (subject, error) {
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

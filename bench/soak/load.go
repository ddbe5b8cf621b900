package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// load is what is asked of the cache.
type load struct {
	keys, entries    int
	readers, writers int
}

// fullLoad keeps two cores busy. Memory has room for a twentieth of what is asked for. The
// keys are made for each call: a table of them would be a part of the heap that hides what
// grows.
var fullLoad = load{keys: 1_000_000, entries: 50_000, readers: 4, writers: 64}

func (l load) check() error {
	switch {
	case l.entries < 1 || l.keys < 10*l.entries:
		return fmt.Errorf("%d keys with a bound of %d: memory must be far below the rows that are asked for", l.keys, l.entries)
	case l.readers < 1 || l.writers < 1:
		return errors.New("it takes at least one reader and one writer")
	}
	return nil
}

const (
	copyLives = 30 * time.Second // the cache's TTL
	skew      = 1.01             // of Zipf's law: half of the calls are for some 600 of the keys
)

// kinds of calls.
type kind int

const (
	get kind = iota
	getMany
	set
	setShort
	setMany
	update
	transact
	remove
	kinds
)

func (k kind) String() string {
	return [...]string{"Get", "GetMany", "Set", "Set with a lifetime and a TTL", "SetMany", "Update", "Transact", "Delete"}[k]
}

// Each is as frequent as it is in these.
var (
	reads  = []kind{get, get, get, get, get, get, get, get, get, getMany}
	writes = []kind{set, set, set, set, set, setShort, setMany, update, update, transact, remove, remove}
)

// present is the part of the rows that are there when the load has gone on for ever: those
// whose last change made them.
var present = func() float64 {
	makes := [kinds]float64{set: 1, setMany: some, update: 1, transact: 1}
	unmakes := [kinds]float64{setShort: 1, transact: 1, remove: 1}
	var made, unmade float64
	for _, k := range writes {
		made += makes[k]
		unmade += unmakes[k]
	}
	return made / (made + unmade)
}()

// some is how many keys there are in calls of several.
const some = 8

// fill makes the table what the load would make of it in the end. From an empty one the
// copies in memory would be of absent rows at first, and of ever more values later, which
// is no leak and looks like one.
func (l load) fill(ctx context.Context, cache *lockstep.Cache[string, []byte]) error {
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	c := caller{random: random, keys: uint64(l.keys)}
	rows := map[string][]byte{}
	for n := range l.keys {
		if random.Float64() < present {
			rows[name(uint64(n))] = c.value()
		}
		if len(rows) == 1000 || n == l.keys-1 {
			if err := cache.SetMany(ctx, rows); err != nil {
				return fmt.Errorf("filling the table: %w", err)
			}
			clear(rows)
		}
	}
	return nil
}

func name(n uint64) string { return "user:" + strconv.FormatUint(n, 10) }

// workers are the goroutines of a load.
type workers struct {
	cache   *lockstep.Cache[string, []byte]
	keys    int
	failed  chan error // the first failure
	stopped atomic.Bool
	running sync.WaitGroup
	counts  [kinds]atomic.Uint64
}

func (l load) start(cache *lockstep.Cache[string, []byte]) *workers {
	w := &workers{cache: cache, keys: l.keys, failed: make(chan error, 1)}
	for range l.readers {
		w.running.Go(func() { w.work(reads) })
	}
	for range l.writers {
		w.running.Go(func() { w.work(writes) })
	}
	return w
}

// stop ends the load after the calls that are under way.
func (w *workers) stop() {
	w.stopped.Store(true)
	w.running.Wait()
}

func (w *workers) calls() (all [kinds]uint64) {
	for k := range all {
		all[k] = w.counts[k].Load()
	}
	return all
}

func (w *workers) work(mix []kind) {
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	c := caller{cache: w.cache, random: random, zipf: rand.NewZipf(random, skew, 1, uint64(w.keys-1)), keys: uint64(w.keys)}
	for !w.stopped.Load() {
		k := mix[random.IntN(len(mix))]
		if err := c.call(context.Background(), k); err != nil && !errors.Is(err, lockstep.ErrNotFound) {
			select {
			case w.failed <- fmt.Errorf("%s: %w", k, err):
			default:
			}
			return
		}
		w.counts[k].Add(1)
	}
}

// caller is one of the load's goroutines.
type caller struct {
	cache  *lockstep.Cache[string, []byte]
	random *rand.Rand
	zipf   *rand.Zipf
	keys   uint64
}

// key is one by Zipf's law, with those that are asked for often spread over the table.
func (c *caller) key() string {
	const prime = 2_654_435_761
	return name(c.zipf.Uint64() * prime % c.keys)
}

// several are values for a few keys, or for fewer where one was drawn twice.
func (c *caller) several() map[string][]byte {
	values := make(map[string][]byte, some)
	for range some {
		values[c.key()] = c.value()
	}
	return values
}

// value is one of 64 to 511 bytes.
func (c *caller) value() []byte {
	value := make([]byte, 64+c.random.IntN(448))
	for i := range value {
		value[i] = byte(i)
	}
	value[0] = byte(c.random.Uint32())
	return value
}

func (c *caller) call(ctx context.Context, k kind) error {
	switch k {
	case get:
		_, err := c.cache.Get(ctx, c.key())
		return err
	case getMany:
		keys := make([]string, 0, some)
		for range cap(keys) {
			keys = append(keys, c.key())
		}
		_, err := c.cache.GetMany(ctx, keys)
		return err
	case set:
		_, err := c.cache.Set(ctx, c.key(), c.value())
		return err
	case setShort:
		_, err := c.cache.Set(ctx, c.key(), c.value(), lockstep.Lifetime(2*time.Second), lockstep.TTL(time.Second))
		return err
	case setMany:
		return c.cache.SetMany(ctx, c.several())
	case update:
		_, err := c.cache.Update(ctx, c.key(), func([]byte, bool) ([]byte, error) { return c.value(), nil })
		return err
	case transact:
		from, to := c.key(), c.key()
		return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			a := c.cache.In(tx)
			value, err := a.Get(ctx, from)
			if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
				return err
			}
			if value == nil {
				value = c.value()
			}
			if err := a.Set(ctx, to, value); err != nil {
				return err
			}
			return a.Delete(ctx, from)
		})
	case remove:
		_, err := c.cache.Delete(ctx, c.key())
		return err
	}
	panic("no such call: " + k.String())
}

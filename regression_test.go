package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/textbook"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// What the write-through cache of the articles gets wrong, each as a scenario
// that finds it. A scenario is played twice, over Lockstep and over
// internal/textbook, and returns what went wrong. Lockstep must pass, and the
// textbook must not: a test that does not find the fault where it is would not
// find it here either. All 22 faults apply to the textbook.
//
// The scenarios are in faults_*_test.go; this file is the stage.

// subject is a cache that scenarios are played over.
type subject[V any] interface {
	Get(ctx context.Context, key string) (V, error)
	Set(ctx context.Context, key string, value V) (lockstep.Version, error)
	SetIfVersion(ctx context.Context, key string, value V, version lockstep.Version) (lockstep.Version, error)
	SetIfAbsent(ctx context.Context, key string, value V) (lockstep.Version, error)
	SetMany(ctx context.Context, values map[string]V) error
	Delete(ctx context.Context, key string) (bool, error)
	Transact(ctx context.Context, f func(ctx context.Context, tx transaction[V]) error) error
	Invalidate(key string)
	Peek(key string) (V, bool)
	Close(ctx context.Context) error

	// Entries is the number of entries in memory.
	Entries() int
	// Looked is how many entries were looked at to put entries into memory and to
	// make room for them.
	Looked() int
	// Rates are the statistics that are quotients.
	Rates() []float64
	// SlowestRead is what the statistics say about the slowest read.
	SlowestRead() time.Duration
}

type transaction[V any] interface {
	Set(ctx context.Context, key string, value V) error
}

// setup is what a scenario asks of its cache.
type setup[V any] struct {
	maxEntries int
	// batching chooses the textbook's queue, which waits for a batch to fill up;
	// Lockstep has its own at all times, which does not wait. With gather it does.
	batching time.Duration
	gather   time.Duration
	// retrying: commits that fail are tried again, up to 5 times, after about a
	// second at first.
	retrying bool
	// inFlight is the number of batches at once.
	inFlight int
	// clone makes copies of values.
	clone func(V) V
	// outside plays the scenario outside a bubble: over the textbook only, which
	// blocks on a lock, and there a bubble's time stands still; or over both.
	outside place
}

type place uint8

const (
	never place = iota
	textbookOnly
	both
)

// trial is one scenario over one subject.
type trial[V any] struct {
	subject[V]
	ctx     context.Context
	table   *memstore.Store[string, V]
	store   *fault.Store[string, V] // around table
	commits *clock[V]               // around store
	// patience is how long a call may take before it is said to hang.
	patience time.Duration
	bubble   bool
	running  sync.WaitGroup
	leaks    func() error
}

// finds plays a scenario over both caches.
func finds[V any](t *testing.T, s setup[V], scenario func(tr *trial[V]) error) {
	t.Helper()
	play := func(t *testing.T, bubble bool, scene func(t *testing.T)) {
		if bubble {
			synctest.Test(t, scene)
		} else {
			scene(t)
		}
	}
	t.Run("lockstep", func(t *testing.T) {
		play(t, s.outside != both, func(t *testing.T) {
			// In a bubble the patience costs nothing, and ends only when nothing can
			// happen any more.
			tr := newTrial(t, s, s.outside != both, 24*time.Hour)
			tr.overLockstep(t, s)
			defer tr.running.Wait()
			if err := scenario(tr); err != nil {
				t.Errorf("Lockstep: %v", err)
			}
		})
	})
	t.Run("textbook", func(t *testing.T) {
		patience := 24 * time.Hour
		if s.outside != never {
			// It hangs for as long as it is looked at.
			patience = 50 * time.Millisecond
		}
		play(t, s.outside == never, func(t *testing.T) {
			tr := newTrial(t, s, s.outside == never, patience)
			tr.overTextbook(t, s)
			err := scenario(tr)
			if err == nil {
				t.Error("the textbook passes: the scenario does not find the fault")
			}
			t.Logf("found: %v", err)
		})
	})
}

func newTrial[V any](t *testing.T, s setup[V], bubble bool, patience time.Duration) *trial[V] {
	tr := &trial[V]{ctx: t.Context(), patience: patience, bubble: bubble}
	here := goleak.IgnoreCurrent()
	tr.leaks = func() error { return goleak.Find(here) }
	tr.table = memstore.New(memstore.Options[string, V]{Clone: s.clone})
	tr.store = fault.Inject(tr.table, fault.Script{}, 1)
	tr.commits = &clock[V]{Store: tr.store}
	return tr
}

func (tr *trial[V]) overLockstep(t *testing.T, s setup[V]) {
	l := &lockstepSubject[V]{}
	options := lockstep.Options[string, V]{
		Batch:  lockstep.Batch{MaxDelay: s.gather, InFlight: s.inFlight},
		Clone:  s.clone,
		Logger: quiet,
	}
	if s.maxEntries > 0 { // by weight, so that looks can be counted
		options.MaxBytes = int64(s.maxEntries)
		options.Weigher = func(string, V) uint32 { l.looked.Add(1); return 1 }
	}
	var store lockstep.Store[string, V] = tr.commits
	if s.retrying {
		var err error
		if store, err = resilience.Retry(store, resilience.RetryPolicy{MaxAttempts: 6, BaseDelay: time.Second, MaxDelay: 10 * time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	l.Cache = cachetest.Open(t, store, options)
	t.Cleanup(func() { tr.store.Play(fault.Script{}); tr.store.Release() })
	tr.subject = l
}

func (tr *trial[V]) overTextbook(t *testing.T, s setup[V]) {
	options := textbook.Options{MaxEntries: s.maxEntries}
	if delay := max(s.batching, s.gather); delay > 0 {
		options.BatchSize, options.BatchDelay = 64, delay
	}
	if s.retrying {
		options.MaxRetries, options.RetryDelay = 5, time.Second
	}
	cache := textbook.New[string, V](tr.commits, options)
	t.Cleanup(func() {
		tr.store.Play(fault.Script{})
		tr.store.Release()
		cache.Kill()
		tr.running.Wait()
	})
	tr.subject = textbookSubject[V]{cache}
}

// clock notes when commits arrive.
type clock[V any] struct {
	lockstep.Store[string, V]
	mu       sync.Mutex
	arrivals []time.Time
}

func (c *clock[V]) Commit(ctx context.Context, sets []lockstep.ChangeSet[string, V]) ([]lockstep.Outcome[V], error) {
	c.mu.Lock()
	c.arrivals = append(c.arrivals, time.Now())
	c.mu.Unlock()
	return c.Store.Commit(ctx, sets)
}

func (c *clock[V]) times() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.arrivals)
}

// lockstepSubject is Lockstep as a subject.
type lockstepSubject[V any] struct {
	*lockstep.Cache[string, V]
	looked atomic.Int64
}

func (l *lockstepSubject[V]) Set(ctx context.Context, key string, value V) (lockstep.Version, error) {
	return l.Cache.Set(ctx, key, value)
}

func (l *lockstepSubject[V]) SetIfVersion(ctx context.Context, key string, value V, v lockstep.Version) (lockstep.Version, error) {
	return l.Cache.Set(ctx, key, value, lockstep.IfVersion(v))
}

func (l *lockstepSubject[V]) SetIfAbsent(ctx context.Context, key string, value V) (lockstep.Version, error) {
	return l.Cache.Set(ctx, key, value, lockstep.IfAbsent())
}

func (l *lockstepSubject[V]) Delete(ctx context.Context, key string) (bool, error) {
	return l.Cache.Delete(ctx, key)
}

func (l *lockstepSubject[V]) Transact(ctx context.Context, f func(context.Context, transaction[V]) error) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		return f(ctx, inTx[V]{l.In(tx)})
	})
}

// inTx writes without options.
type inTx[V any] struct{ lockstep.InTx[string, V] }

func (t inTx[V]) Set(ctx context.Context, key string, value V) error {
	return t.InTx.Set(ctx, key, value)
}

func (l *lockstepSubject[V]) Entries() int { return int(l.Stats().Entries) }
func (l *lockstepSubject[V]) Looked() int  { return int(l.looked.Load()) }

func (l *lockstepSubject[V]) Rates() []float64 {
	s := l.Stats()
	return floats(reflect.ValueOf(s))
}

func (l *lockstepSubject[V]) SlowestRead() time.Duration { return l.Stats().LoadLatency.Max }

// textbookSubject is the textbook as a subject.
type textbookSubject[V any] struct {
	*textbook.Cache[string, V]
}

func (b textbookSubject[V]) Transact(ctx context.Context, f func(context.Context, transaction[V]) error) error {
	return b.Cache.Transact(ctx, func(ctx context.Context, tx *textbook.Tx[string, V]) error { return f(ctx, tx) })
}

func (b textbookSubject[V]) Entries() int     { return b.Len() }
func (b textbookSubject[V]) Looked() int      { return int(b.Stats().Scanned) }
func (b textbookSubject[V]) Rates() []float64 { return floats(reflect.ValueOf(b.Stats())) }

func (b textbookSubject[V]) SlowestRead() time.Duration {
	return time.Duration(b.Stats().AverageReadSeconds * float64(time.Second)) // it has no better
}

func floats(s reflect.Value) (list []float64) {
	for i := range s.NumField() {
		if f := s.Field(i); f.Kind() == reflect.Float64 {
			list = append(list, f.Float())
		}
	}
	return list
}

// What scenarios are made of. They return an error where a test would fail.

// pending is a call that runs beside the scenario.
type pending[V any] struct {
	value V
	err   error
	done  chan struct{}
}

func (tr *trial[V]) start(f func() (V, error)) *pending[V] {
	p := &pending[V]{done: make(chan struct{})}
	tr.running.Go(func() {
		defer close(p.done)
		defer func() {
			if r := recover(); r != nil {
				p.err = fmt.Errorf("panic: %v", r)
			}
		}()
		p.value, p.err = f()
	})
	return p
}

func (tr *trial[V]) startGet(key string) *pending[V] {
	return tr.start(func() (V, error) { return tr.Get(tr.ctx, key) })
}

func (tr *trial[V]) startSet(ctx context.Context, key string, value V) *pending[V] {
	return tr.start(func() (V, error) {
		_, err := tr.Set(ctx, key, value)
		return value, err
	})
}

// answers tells whether the call returns in good time.
func (tr *trial[V]) answers(p *pending[V]) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(tr.patience):
		return false
	}
}

// quiet waits until nothing can happen by itself.
func (tr *trial[V]) quiet() {
	if tr.bubble {
		synctest.Wait()
	}
}

// script says what goes wrong from now on.
func (tr *trial[V]) script(text string) { tr.store.Play(fault.MustParse(text)) }

// behind writes a row past the cache.
func (tr *trial[V]) behind(key string, value V) error {
	outcomes, err := tr.table.Commit(tr.ctx, []lockstep.ChangeSet[string, V]{{Changes: []lockstep.Change[string, V]{{Key: key, Value: value}}}})
	if err == nil {
		err = outcomes[0].Err
	}
	return err
}

// get reads a key and requires a value.
func (tr *trial[V]) get(key string, want V) error {
	switch got, err := tr.Get(tr.ctx, key); {
	case err != nil:
		return fmt.Errorf("read %s: %w", key, err)
	case !reflect.DeepEqual(got, want):
		return fmt.Errorf("read %s = %v, want %v", key, got, want)
	}
	return nil
}

// set writes some keys, one after the other.
func (tr *trial[V]) set(key string, values ...V) (version lockstep.Version, err error) {
	for _, value := range values {
		if version, err = tr.Set(tr.ctx, key, value); err != nil {
			return 0, fmt.Errorf("write %s: %w", key, err)
		}
	}
	return version, nil
}

// agrees compares memory's copies of the keys with the table.
func (tr *trial[V]) agrees(keys ...string) error {
	rows, err := tr.table.Load(tr.ctx, keys)
	if err != nil {
		return err
	}
	for _, key := range keys {
		value, ok := tr.Peek(key)
		if row := rows[key]; ok && (!row.Exists || !reflect.DeepEqual(value, row.Value)) {
			return fmt.Errorf("memory has %s = %v, the table %v (exists: %v)", key, value, row.Value, row.Exists)
		}
	}
	return nil
}

// first is the first error, for scenarios whose steps must succeed.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func notANumber(f float64) bool { return math.IsNaN(f) || math.IsInf(f, 0) }

var errNotRefused = errors.New("nothing was refused")

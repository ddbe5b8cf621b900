package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
)

// A function.

func TestFromFunc(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		errBroken := errors.New("broken")
		cache := cachetest.Open(t, lockstep.FromFunc(func(ctx context.Context, key string) (int, error) {
			calls++
			time.Sleep(time.Second)
			switch key {
			case "nobody":
				return 0, fmt.Errorf("%s: %w", key, lockstep.ErrNotFound)
			case "broken":
				return 0, errBroken
			}
			return len(key), nil
		}), options{TTL: time.Hour})
		ctx := t.Context()
		var readers sync.WaitGroup
		for range 5 {
			readers.Go(func() {
				if value, err := cache.Get(ctx, "four"); value != 4 || err != nil {
					t.Errorf("Get = %d, %v", value, err)
				}
			})
		}
		readers.Wait()
		for range 2 {
			if _, err := cache.Get(ctx, "nobody"); !errors.Is(err, lockstep.ErrNotFound) {
				t.Errorf("Get: %v", err)
			}
		}
		if calls != 2 {
			t.Errorf("%d calls, want 2", calls)
		}
		if _, err := cache.Get(ctx, "broken"); !errors.Is(err, errBroken) {
			t.Errorf("Get: %v", err)
		}
		values, err := cache.GetMany(ctx, []string{"four", "nobody", "three"})
		if !maps.Equal(values, map[string]int{"four": 4, "three": 5}) || err != nil {
			t.Errorf("GetMany = %v, %v", values, err)
		}
		for name, err := range map[string]error{
			"Set":       second(cache.Set(ctx, "four", 1)),
			"Delete":    second(cache.Delete(ctx, "four")),
			"DeleteAll": cache.DeleteAll(ctx),
			"Warm":      second(cache.Warm(ctx, lockstep.WarmOptions{})),
		} {
			if !errors.Is(err, lockstep.ErrUnsupported) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, err := range cache.Scan(ctx) {
			if !errors.Is(err, lockstep.ErrUnsupported) {
				t.Errorf("Scan: %v", err)
			}
		}
		calls = 0
		time.Sleep(time.Hour)
		if value, err := cache.Get(ctx, "four"); value != 4 || err != nil || calls != 1 {
			t.Errorf("Get after TTL = %d, %v, %d calls", value, err, calls)
		}
	})
}

func TestFromNothing(t *testing.T) {
	for name, store := range map[string]store{
		"function":   lockstep.FromFunc[string, int](nil),
		"data store": lockstep.FromDataStore[string, int](nil),
		"typed nil":  lockstep.FromDataStore[string, int]((*dataStore)(nil)),
	} {
		if _, err := lockstep.New(store, options{}); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("a nil %s: %v", name, err)
		}
	}
}

// Four plain methods.

// dataStore is a program's own database. What its writes do instead of working is
// in fail, which may also write.
type dataStore struct {
	mu     sync.Mutex
	rows   map[string]int
	fail   func(write func()) error
	broken error // what Read returns
}

func (d *dataStore) Read(_ context.Context, key string) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return 0, d.broken
	}
	value, ok := d.rows[key]
	if !ok {
		return 0, lockstep.ErrNotFound
	}
	return value, nil
}

func (d *dataStore) write(write func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if fail := d.fail; fail != nil {
		d.fail = nil
		return fail(write)
	}
	write()
	return nil
}

func (d *dataStore) Write(_ context.Context, key string, value int) error {
	return d.write(func() { d.rows[key] = value })
}

func (d *dataStore) WriteBatch(_ context.Context, values map[string]int) error {
	return d.write(func() { maps.Copy(d.rows, values) })
}

func (d *dataStore) Delete(_ context.Context, key string) error {
	return d.write(func() { delete(d.rows, key) })
}

func (d *dataStore) row(key string) (int, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	value, ok := d.rows[key]
	return value, ok
}

func withDataStore(t *testing.T, test func(t *testing.T, cache *lockstep.Cache[string, int], d *dataStore)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := &dataStore{rows: make(map[string]int)}
		test(t, cachetest.Open(t, lockstep.FromDataStore(d), options{Logger: quiet}), d)
	})
}

func TestFromDataStore(t *testing.T) {
	withDataStore(t, func(t *testing.T, cache *lockstep.Cache[string, int], d *dataStore) {
		ctx := t.Context()
		if version, err := cache.Set(ctx, "k", 1); version != 0 || err != nil {
			t.Errorf("Set = %d, %v", version, err)
		}
		if value, err := cache.Get(ctx, "k"); value != 1 || err != nil {
			t.Errorf("Get = %d, %v", value, err)
		}
		if err := cache.SetMany(ctx, map[string]int{"k": 2, "l": 3}); err != nil {
			t.Error(err)
		}
		values, err := cache.GetMany(ctx, []string{"k", "l", "m"})
		if !maps.Equal(values, map[string]int{"k": 2, "l": 3}) || err != nil {
			t.Errorf("GetMany = %v, %v", values, err)
		}
		if _, err := cache.Delete(ctx, "k"); err != nil {
			t.Error(err)
		}
		if err := cache.DeleteMany(ctx, []string{"l"}); err != nil {
			t.Error(err)
		}
		if _, err := cache.Get(ctx, "k"); !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("Get: %v", err)
		}
		for name, err := range map[string]error{
			"IfVersion":  second(cache.Set(ctx, "k", 1, lockstep.IfVersion(1))),
			"IfAbsent":   second(cache.Set(ctx, "k", 1, lockstep.IfAbsent())),
			"Lifetime":   second(cache.Set(ctx, "k", 1, lockstep.Lifetime(time.Hour))),
			"Update":     second(cache.Update(ctx, "k", func(int, bool) (int, error) { return 1, nil })),
			"DeleteMany": cache.DeleteMany(ctx, []string{"k", "l"}),
			"DeleteAll":  cache.DeleteAll(ctx),
			"Transact": lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return cache.In(tx).Set(ctx, "k", 1)
			}),
		} {
			if !errors.Is(err, lockstep.ErrUnsupported) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(d.rows) != 0 {
			t.Errorf("the database has %v", d.rows)
		}
	})
}

// A write that fails may have been made: the cache looks. Rows that are as written
// were written; rows whose existence the write would have changed were not; of any
// others it cannot be told, for databases change what they are given.
func TestADataStoresFailureIsSettledByReading(t *testing.T) {
	errBroken := errors.New("connection lost")
	set := func(cache *lockstep.Cache[string, int]) error {
		return second(cache.Set(context.Background(), "k", 2))
	}
	setMany := func(cache *lockstep.Cache[string, int]) error {
		return cache.SetMany(context.Background(), map[string]int{"k": 2, "l": 2})
	}
	remove := func(cache *lockstep.Cache[string, int]) error {
		return second(cache.Delete(context.Background(), "k"))
	}
	const written, unwritten, untold = "written", "not written", "cannot be told"
	for _, c := range []struct {
		name    string
		row     bool // there is one before
		do      func(*lockstep.Cache[string, int]) error
		written bool
		verdict string
	}{
		{"Set of a new row, written", false, set, true, written},
		{"Set of a new row, not written", false, set, false, unwritten},
		{"Set of an old row, written", true, set, true, written},
		{"Set of an old row, not written", true, set, false, untold},
		{"SetMany of new rows, written", false, setMany, true, written},
		{"SetMany of new rows, not written", false, setMany, false, unwritten},
		{"SetMany of an old row, not written", true, setMany, false, untold},
		{"Delete, written", true, remove, true, written},
		{"Delete, not written", true, remove, false, unwritten},
		{"Delete of nothing", false, remove, false, written},
	} {
		for how, failure := range map[string]func() error{
			"error": func() error { return errBroken },
			"panic": func() error { panic("nil map") },
		} {
			t.Run(c.name+", "+how, func(t *testing.T) {
				withDataStore(t, func(t *testing.T, cache *lockstep.Cache[string, int], d *dataStore) {
					ctx := t.Context()
					if c.row {
						if _, err := cache.Set(ctx, "k", 1); err != nil {
							t.Fatal(err)
						}
					}
					d.fail = func(write func()) error {
						if c.written {
							write()
						}
						return failure()
					}
					err := c.do(cache)
					var w *lockstep.WriteError
					if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
						t.Fatalf("the outcome is not unknown: %v", err)
					}
					if how == "error" && !errors.Is(err, errBroken) {
						t.Errorf("the cause is lost: %v", err)
					}
					ctx, cancel := context.WithTimeout(ctx, time.Minute)
					defer cancel()
					verdict := untold
					switch applied, _, err := w.Wait(ctx); {
					case err == nil && applied:
						verdict = written
					case err == nil:
						verdict = unwritten
					case !errors.Is(err, lockstep.ErrUnknownOutcome):
						t.Fatalf("Wait: %v", err)
					}
					if verdict != c.verdict {
						t.Errorf("the verdict is %s, want %s", verdict, c.verdict)
					}
					value, getErr := cache.Get(ctx, "k")
					row, exists := d.row("k")
					if value != row || exists != (getErr == nil) {
						t.Errorf("Get = %d, %v, and the database has %d, %v", value, getErr, row, exists)
					}
					if _, err := cache.Set(ctx, "k", 3); err != nil {
						t.Errorf("Set after the settlement: %v", err)
					}
				})
			})
		}
	}
}

// Errors that say that nothing was written are believed.
func TestADataStoresRefusalIsBelieved(t *testing.T) {
	for _, refusal := range []error{lockstep.ErrInvalid, lockstep.ErrTooLarge, lockstep.ErrUnavailable, lockstep.ErrConflict} {
		withDataStore(t, func(t *testing.T, cache *lockstep.Cache[string, int], d *dataStore) {
			d.fail = func(func()) error { return fmt.Errorf("no: %w", refusal) }
			_, err := cache.Set(t.Context(), "k", 1)
			var w *lockstep.WriteError
			if !errors.As(err, &w) || w.Outcome != lockstep.NotApplied || !errors.Is(err, refusal) {
				t.Errorf("Set: %v", err)
			}
		})
	}
}

// Others of ours say nothing about the write: they come from whatever else the
// program did in its method.
func TestAnErrorThatSaysNothingOfAWriteIsAnUnknownOutcome(t *testing.T) {
	for _, elsewhere := range []error{
		lockstep.ErrNotFound, lockstep.ErrUnsupported, lockstep.ErrClosed, lockstep.ErrInTransaction, lockstep.Keep,
	} {
		withDataStore(t, func(t *testing.T, cache *lockstep.Cache[string, int], d *dataStore) {
			d.rows["k"] = 1
			if _, err := cache.Get(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
			d.fail = func(write func()) error {
				write()
				return fmt.Errorf("telling the search index: %w", elsewhere)
			}
			_, err := cache.Set(t.Context(), "k", 2)
			if !errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Errorf("Set: %v", err)
			}
			if got, err := cache.Get(t.Context(), "k"); got != 2 || err != nil {
				t.Errorf("Get = %d, %v", got, err)
			}
		})
	}
}

// Of a batch some rows are as written and some are not.
func TestADataStoresHalfABatch(t *testing.T) {
	withDataStore(t, func(t *testing.T, cache *lockstep.Cache[string, int], d *dataStore) {
		ctx := t.Context()
		d.fail = func(func()) error { d.rows["k"] = 2; return errors.New("connection lost") }
		err := cache.SetMany(ctx, map[string]int{"k": 2, "l": 2})
		var w *lockstep.WriteError
		if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
			t.Fatalf("SetMany: %v", err)
		}
		if applied, _, err := w.Wait(ctx); applied || !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Errorf("Wait = %v, %v", applied, err)
		}
		if values, err := cache.GetMany(ctx, []string{"k", "l"}); !maps.Equal(values, map[string]int{"k": 2}) || err != nil {
			t.Errorf("GetMany = %v, %v", values, err)
		}
	})
}

// The database is away when the cache looks, and comes back.
func TestADataStoreThatCannotBeReadForAWhile(t *testing.T) {
	withDataStore(t, func(t *testing.T, cache *lockstep.Cache[string, int], d *dataStore) {
		ctx := t.Context()
		d.fail = func(write func()) error { write(); d.broken = errors.New("away"); return d.broken }
		_, err := cache.Set(ctx, "k", 1)
		var w *lockstep.WriteError
		if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
			t.Fatalf("Set: %v", err)
		}
		time.Sleep(time.Minute)
		if _, err := cache.Get(ctx, "k"); err == nil {
			t.Error("Get succeeds while the database is away")
		}
		d.mu.Lock()
		d.broken = nil
		d.mu.Unlock()
		if applied, _, err := w.Wait(ctx); !applied || err != nil {
			t.Errorf("Wait = %v, %v", applied, err)
		}
	})
}

// Writes of different keys run at once, and those of one key do not.
func TestADataStoresWritesRunSideBySide(t *testing.T) {
	withDataStore(t, func(t *testing.T, cache *lockstep.Cache[string, int], d *dataStore) {
		ctx := t.Context()
		var writers sync.WaitGroup
		for i := range 100 {
			writers.Go(func() {
				if _, err := cache.Set(ctx, fmt.Sprint("k", i%10), i); err != nil {
					t.Error(err)
				}
			})
		}
		writers.Wait()
		if stats := cache.Stats(); stats.Committed != 100 || stats.Batches != 100 {
			t.Errorf("Stats say %d committed in %d batches", stats.Committed, stats.Batches)
		}
	})
}

package textbook

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// table is a database of one table, in memory.
type table struct {
	mu   sync.Mutex
	rows map[string]int
	fail error // what the next Commit returns, once
}

func (s *table) Load(_ context.Context, keys []string) (map[string]lockstep.Row[int], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make(map[string]lockstep.Row[int])
	for _, k := range keys {
		if v, ok := s.rows[k]; ok {
			found[k] = lockstep.Row[int]{Value: v, Exists: true}
		}
	}
	return found, nil
}

func (s *table) Commit(_ context.Context, sets []lockstep.ChangeSet[string, int]) ([]lockstep.Outcome[int], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail; err != nil {
		s.fail = nil
		return nil, err
	}
	outcomes := make([]lockstep.Outcome[int], len(sets))
	for i, set := range sets {
		for _, c := range set.Changes {
			_, existed := s.rows[c.Key]
			outcomes[i].Existed = append(outcomes[i].Existed, existed)
			if c.Delete {
				delete(s.rows, c.Key)
			} else {
				s.rows[c.Key] = c.Value
			}
		}
	}
	return outcomes, nil
}

func (s *table) Capabilities() lockstep.Capabilities[string, int] {
	return lockstep.Capabilities[string, int]{Name: "table"}
}

// run gives a test a cache in a bubble of fake time, and compares the cache
// with its store when the test is through.
func run(t *testing.T, options Options, test func(t *testing.T, c *Cache[string, int], s *table)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &table{rows: make(map[string]int)}
		c := New(s, options)
		defer c.Kill()
		test(t, c, s)
		for k := range c.entries {
			if v, ok := c.Peek(k); ok && s.rows[k] != v {
				t.Errorf("memory has %s = %d, the database %d", k, v, s.rows[k])
			}
		}
	})
}

func want(t *testing.T, c *Cache[string, int], k string, value int) {
	t.Helper()
	if v, err := c.Get(t.Context(), k); err != nil || v != value {
		t.Fatalf("Get(%s) = %d, %v; want %d", k, v, err, value)
	}
}

func TestReadsAndWrites(t *testing.T) {
	run(t, Options{}, func(t *testing.T, c *Cache[string, int], s *table) {
		ctx := t.Context()
		if _, err := c.Get(ctx, "a"); !errors.Is(err, lockstep.ErrNotFound) {
			t.Fatalf("error %v", err)
		}
		if version, err := c.Set(ctx, "a", 1); version != 1 || err != nil {
			t.Fatalf("Set = %d, %v", version, err)
		}
		want(t, c, "a", 1)
		s.rows["b"] = 2
		want(t, c, "b", 2)
		if ok, err := c.Exists(ctx, "c"); ok || err != nil {
			t.Fatalf("Exists = %v, %v", ok, err)
		}
		if err := c.SetMany(ctx, map[string]int{"c": 3, "d": 4}); err != nil {
			t.Fatal(err)
		}
		found, err := c.GetMany(ctx, []string{"a", "b", "c", "d", "e"})
		if err != nil || len(found) != 4 || found["d"] != 4 {
			t.Fatalf("GetMany = %v, %v", found, err)
		}
		if v, err := c.Update(ctx, "a", func(old int, exists bool) (int, error) { return old + 10, nil }); v != 11 || err != nil {
			t.Fatalf("Update = %d, %v", v, err)
		}
		if v, err := c.Update(ctx, "a", func(int, bool) (int, error) { return 0, lockstep.Keep }); v != 11 || err != nil {
			t.Fatalf("Update = %d, %v", v, err)
		}
		if existed, err := c.Delete(ctx, "a"); !existed || err != nil {
			t.Fatalf("Delete = %v, %v", existed, err)
		}
		if err := c.DeleteMany(ctx, []string{"a", "b"}); err != nil {
			t.Fatal(err)
		}
		c.Invalidate("c")
		c.InvalidateAll()
		want(t, c, "c", 3)
		if st := c.Stats(); st.Hits != 7 || st.Misses != 5 || st.Entries != 1 {
			t.Fatalf("Stats = %+v", st)
		}
		c.Close(ctx)
		if _, err := c.Set(ctx, "a", 1); !errors.Is(err, lockstep.ErrClosed) {
			t.Fatalf("error %v", err)
		}
	})
}

func TestVersions(t *testing.T) {
	run(t, Options{}, func(t *testing.T, c *Cache[string, int], s *table) {
		ctx := t.Context()
		version, _ := c.Set(ctx, "a", 1)
		next, err := c.SetIfVersion(ctx, "a", 2, version)
		if err != nil || next != version+1 {
			t.Fatalf("SetIfVersion = %d, %v", next, err)
		}
		if _, err := c.SetIfVersion(ctx, "a", 3, version); !errors.Is(err, lockstep.ErrConflict) {
			t.Fatalf("error %v", err)
		}
		if _, err := c.SetIfAbsent(ctx, "a", 3); !errors.Is(err, lockstep.ErrConflict) {
			t.Fatalf("error %v", err)
		}
		if _, err := c.SetIfAbsent(ctx, "b", 3); err != nil {
			t.Fatal(err)
		}
		if v, ok := c.Version("a"); !ok || v != next || c.Stats().Conflicts != 2 {
			t.Fatalf("Version = %d, %v", v, ok)
		}
	})
}

func TestEvictionAndExpiry(t *testing.T) {
	run(t, Options{MaxEntries: 2, TTL: time.Hour}, func(t *testing.T, c *Cache[string, int], s *table) {
		for i, k := range []string{"a", "b", "c"} {
			if _, err := c.Set(t.Context(), k, i); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if _, ok := c.Peek("a"); ok || c.Len() != 2 {
			t.Fatalf("%d entries, a among them: %v", c.Len(), ok)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if c.Len() != 0 {
			t.Fatalf("%d entries after their time", c.Len())
		}
	})
}

func TestBatches(t *testing.T) {
	run(t, Options{BatchSize: 3, BatchDelay: time.Second}, func(t *testing.T, c *Cache[string, int], s *table) {
		var wg sync.WaitGroup
		for i, k := range []string{"a", "b", "c", "d"} {
			wg.Go(func() {
				if _, err := c.Set(t.Context(), k, i); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if st := c.Stats(); st.Batches != 2 || st.Writes != 4 {
			t.Fatalf("Stats = %+v", st)
		}
	})
}

func TestRetries(t *testing.T) {
	run(t, Options{MaxRetries: 1, RetryDelay: time.Second}, func(t *testing.T, c *Cache[string, int], s *table) {
		s.fail = lockstep.ErrUnavailable
		if _, err := c.Set(t.Context(), "a", 1); err != nil || c.Stats().Retries != 1 {
			t.Fatalf("error %v, %d retries", err, c.Stats().Retries)
		}
		want(t, c, "a", 1)
	})
}

func TestTransactionsRollBack(t *testing.T) {
	run(t, Options{}, func(t *testing.T, c *Cache[string, int], s *table) {
		ctx := t.Context()
		c.SetMany(ctx, map[string]int{"a": 1, "b": 2})
		move := func(ctx context.Context, tx *Tx[string, int]) error {
			tx.Set(ctx, "a", 0)
			tx.Set(ctx, "b", 3)
			if v, err := tx.Get(ctx, "b"); v != 3 || err != nil {
				t.Errorf("Get in the transaction = %d, %v", v, err)
			}
			return tx.Delete(ctx, "c")
		}
		if err := c.Transact(ctx, move); err != nil {
			t.Fatal(err)
		}
		want(t, c, "b", 3)
		broken := errors.New("broken")
		err := c.Transact(ctx, func(ctx context.Context, tx *Tx[string, int]) error {
			tx.Set(ctx, "a", 9)
			s.fail = broken
			return nil
		})
		if !errors.Is(err, broken) {
			t.Fatalf("error %v", err)
		}
		want(t, c, "a", 0)
	})
}

func TestAveragesOfNothing(t *testing.T) {
	run(t, Options{}, func(t *testing.T, c *Cache[string, int], s *table) {
		if st := c.Stats(); !math.IsNaN(st.HitRate) || !math.IsNaN(st.AverageWriteSeconds) {
			t.Fatalf("Stats = %+v", st)
		}
	})
}

func TestKillFreesWhoeverHangs(t *testing.T) {
	run(t, Options{BatchSize: 9, BatchDelay: time.Hour}, func(t *testing.T, c *Cache[string, int], s *table) {
		result := make(chan error, 1)
		go func() {
			_, err := c.Set(t.Context(), "a", 1)
			result <- err
		}()
		synctest.Wait()
		c.Close(t.Context())
		time.Sleep(2 * time.Hour)
		select {
		case err := <-result:
			t.Fatalf("answered with %v, though closing strands the queue", err)
		default:
		}
		c.Kill()
		if err := <-result; !errors.Is(err, errKilled) {
			t.Fatalf("error %v", err)
		}
	})
}

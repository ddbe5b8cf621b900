package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// rows makes rows k0, k1 and so on behind the cache.
func (s *scene) rows(n int, value func(i int) int) {
	for i := range n {
		s.behind(fmt.Sprint("k", i), value(i))
	}
}

func itself(i int) int { return i }

// Warm reads the table page by page, tells how far it is, and leaves what a read would find.
func TestWarm(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		const rows = 1300
		s.rows(rows, itself)
		s.write("k5", -5)
		var told []int
		n, err := s.Warm(s.ctx, lockstep.WarmOptions{Progress: func(n int) { told = append(told, n) }})
		if n != rows || err != nil || !slices.Equal(told, []int{512, 1024, rows}) {
			t.Errorf("Warm = %d, %v, and told %v", n, err, told)
		}
		if n := s.loads(func() {
			for i := range rows {
				if i != 5 {
					s.reads(fmt.Sprint("k", i), i)
				}
			}
			s.reads("k5", -5)
		}); n != 0 {
			t.Errorf("reads of what is warm cost %d loads", n)
		}
	})
}

func TestWarmStopsAtItsLimit(t *testing.T) {
	inBubble(t, options{MaxEntries: 100}, func(s *scene) {
		s.rows(300, itself)
		if n, err := s.Warm(s.ctx, lockstep.WarmOptions{Limit: 7}); n != 7 || err != nil {
			t.Errorf("Warm of 7 = %d, %v", n, err)
		}
		if n := s.Stats().Entries; n != 7 {
			t.Errorf("memory has %d entries", n)
		}
		if n, err := s.Warm(s.ctx, lockstep.WarmOptions{}); n != 100 || err != nil {
			t.Errorf("Warm of what fits = %d, %v", n, err)
		}
		if _, err := s.Warm(s.ctx, lockstep.WarmOptions{Limit: -1}); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("Warm of less than nothing: %v", err)
		}
	})
}

// Where memory is bounded by bytes, no more rows are read than about fit: a page of as many
// as usual might be many times what the program has memory for.
func TestWarmReadsNoMoreThanFits(t *testing.T) {
	for name, c := range map[string]struct {
		value func(i int) int // is its weight
		most  int             // loaded
	}{
		"large values":           {func(int) int { return 100 }, 16},
		"small values":           {func(int) int { return 1 }, 1000},
		"large ones after small": {func(i int) int { return map[bool]int{true: 1, false: 200}[i < 16] }, 600},
	} {
		t.Run(name, func(t *testing.T) {
			var scanned, loaded int
			around := func(inner *fault.Store[string, int]) store {
				return altered{store: inner,
					can: func(c *capability) {
						scan := c.Scan
						c.Scan = func(ctx context.Context, cursor any, limit int) (lockstep.Page[string, int], error) {
							page, err := scan(ctx, cursor, limit)
							scanned += len(page.Keys)
							return page, err
						}
					},
					load: func(ctx context.Context, keys []string) (map[string]row, error) {
						loaded += len(keys)
						return inner.Load(ctx, keys)
					}}
			}
			o := options{MaxBytes: 1000, Weigher: func(_ string, value int) uint32 { return uint32(value) }}
			inBubbleOver(t, o, around, func(s *scene) {
				s.rows(2000, func(i int) int { return c.value(i) })
				n, err := s.Warm(s.ctx, lockstep.WarmOptions{})
				if err != nil || n != loaded || n > c.most || scanned != loaded {
					t.Errorf("Warm = %d, %v; %d rows scanned, %d loaded, want %d at most", n, err, scanned, loaded, c.most)
				}
				if entries := s.Stats().Entries; entries == 0 {
					t.Error("memory is empty")
				}
			})
		})
	}
}

// A row that is deleted between the scan and the load is none that was loaded.
func TestWarmCountsRows(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.rows(3, itself)
		load := s.store.Block(fault.BeforeLoad)
		warm := s.start(func() error {
			n, err := s.Warm(s.ctx, lockstep.WarmOptions{})
			if n != 2 {
				err = fmt.Errorf("Warm = %d, %v", n, err)
			}
			return err
		})
		<-load.Reached
		if _, err := s.table.Commit(s.ctx, []changeSet{{Changes: []change{{Key: "k1", Delete: true}}}}); err != nil {
			t.Fatal(err)
		}
		load.Pass()
		warm.succeeds()
	})
}

// An error ends it, and what was loaded stays.
func TestWarmThatFails(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.rows(600, itself)
		s.script("load 2: fail")
		if n, err := s.Warm(s.ctx, lockstep.WarmOptions{}); n != 512 || !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("Warm = %d, %v", n, err)
		}
		if n := s.Stats().Entries; n != 512 {
			t.Errorf("memory has %d entries", n)
		}
		s.script("scan 1: fail")
		if n, err := s.Warm(s.ctx, lockstep.WarmOptions{}); n != 0 || !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("Warm = %d, %v", n, err)
		}
	})
}

// Memory keeps nothing before the watch of a table has begun, so a Warm right after New
// loaded the rows, said so, and memory had none of them.
func TestWarmWaitsForTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := watched{memstore.New(memstore.Options[string, int]{}), make(chan lockstep.Event[string]), make(chan error)}
		s.behind(t, "k", 1)
		cache := cachetest.Open(t, s, options{Logger: quiet})
		warm := make(chan error, 1)
		start := func(ctx context.Context) {
			go func() {
				_, err := cache.Warm(ctx, lockstep.WarmOptions{})
				warm <- err
			}()
			synctest.Wait()
		}
		waits := func() {
			t.Helper()
			select {
			case err := <-warm:
				t.Errorf("Warm does not wait: %v", err)
			default:
			}
		}
		start(t.Context())
		waits()
		s.tell(lockstep.Event[string]{})
		if err := <-warm; err != nil {
			t.Error(err)
		}
		if value, ok := cache.Peek("k"); value != 1 || !ok {
			t.Errorf("memory has %d, %v", value, ok)
		}
		s.lose <- errors.New("the connection is gone")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		start(ctx)
		waits()
		if err := <-warm; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("whose context ends is told %v", err)
		}
		start(t.Context())
		waits()
		go func() { _ = cache.Close(context.WithoutCancel(t.Context())) }()
		if err := <-warm; !errors.Is(err, lockstep.ErrClosed) {
			t.Errorf("when the cache is closed it is told %v", err)
		}
	})
}

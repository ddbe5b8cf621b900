package pgstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// A server that accepts connections and answers nothing: hits do not notice, and
// whoever asks is answered by his deadline. When it answers again, what was not known
// is settled.
func TestAServerThatHangs(t *testing.T) {
	proxy, via := dbtest.Via(t, dbtest.Postgres(t))
	cache := cachetest.Open(t, lockstep.Store[string, string](openStore(t, via)), lockstep.Options[string, string]{})
	for _, key := range []string{"hit", "known"} {
		if _, err := cache.Set(t.Context(), key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	release := proxy.Hang()
	t.Cleanup(release) // before the cache is compared with the table
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	calls := map[string]func() error{
		"Get":     func() error { _, err := cache.Get(ctx, "k"); return err },
		"GetMany": func() error { _, err := cache.GetMany(ctx, []string{"hit", "k", "l"}); return err },
		"Refresh": func() error { return cache.Refresh(ctx, "known") },
		"Set":     func() error { _, err := cache.Set(ctx, "s", "2"); return err },
		"SetMany": func() error { return cache.SetMany(ctx, map[string]string{"m": "2", "n": "2"}) },
		"Delete":  func() error { _, err := cache.Delete(ctx, "d"); return err },
		"Update": func() error {
			_, err := cache.Update(ctx, "known", func(old string, _ bool) (string, error) { return old + "2", nil })
			return err
		},
		"Transact": func() error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				if err := cache.In(tx).Set(ctx, "t", "2"); err != nil {
					return err
				}
				_, err := tx.Txn()
				return err
			})
		},
		"Scan": func() (err error) {
			for _, err = range cache.Scan(ctx) {
			}
			return err
		},
		"Warm":  func() error { _, err := cache.Warm(ctx, lockstep.WarmOptions{}); return err },
		"Audit": func() error { _, err := cache.Audit(ctx); return err },
	}
	type answer struct {
		name string
		err  error
	}
	answers := make(chan answer, len(calls))
	for name, call := range calls {
		go func() { answers <- answer{name, call()} }()
	}
	for ctx.Err() == nil {
		if v, err := cache.Get(ctx, "hit"); v != "1" || err != nil {
			t.Fatalf("a hit is %q, %v", v, err)
		}
	}
	var unknown []*lockstep.WriteError
	for range calls {
		select {
		case a := <-answers:
			if !errors.Is(a.err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", a.name, a.err)
			}
			var w *lockstep.WriteError
			if errors.As(a.err, &w) && w.Outcome == lockstep.Unknown {
				unknown = append(unknown, w)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a caller has no answer, and its deadline was 300 ms")
		}
	}
	release()
	for _, w := range unknown {
		if _, _, err := w.Wait(t.Context()); err != nil {
			t.Errorf("settled: %v", err)
		}
	}
	if v, err := cache.Get(t.Context(), "known"); !strings.HasPrefix(v, "1") || err != nil {
		t.Errorf("afterwards: %q, %v", v, err)
	}
}

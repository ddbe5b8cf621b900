package sabotage

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Every sabotage shows over a real database, where time is real and nobody holds back
// a commit for it; all that is made to go wrong is what it needs.
func TestEachShowsOverSQLite(t *testing.T) {
	for _, s := range All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			const most = 30
			for seed := uint64(1); seed <= most; seed++ {
				err := overSQLite(t, s, seed)
				var v *history.Violation
				if errors.As(err, &v) {
					t.Logf("seed %d: %v", seed, err)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			t.Errorf("not found in %d histories", most)
		})
	}
}

func overSQLite(t *testing.T, s Sabotage, seed uint64) error {
	db, err := sqlitestore.OpenDatabase(t.Context(), filepath.Join(t.TempDir(), "app.db"), sqlitestore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var script string
	for statement, needed := range map[string]bool{
		"commit 5%: lose reply\n":   s.Needs.LostReplies,
		"commit 5%: lose request\n": s.Needs.LostRequests,
		"commit 10%: fail\n":        s.Needs.Failures,
	} {
		if needed {
			script += statement
		}
	}
	var stores []store
	for i := range max(1, s.Needs.Tables) {
		table, err := sqlitestore.OpenIn[int, int64](t.Context(), db, sqlitestore.Options{Table: string(rune('a' + i))})
		if err != nil {
			t.Fatal(err)
		}
		stores = append(stores, fault.Inject[int, int64](table, fault.MustParse(script), seed+uint64(i)<<32))
	}
	subject, end, err := s.Open(stores, lockstep.Options[int, int64]{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	w := history.Workload{
		Seed: seed, Calls: 150, Clients: 6, Keys: 3,
		Pause: time.Millisecond, Patience: time.Minute, LeaveAfter: time.Millisecond,
		Clock: history.RealTime(),
	}
	if s.Needs.Leavers {
		w.Leave = 0.2
	}
	h := w.Run(context.Background(), subject)
	if err := end(context.Background()); err != nil {
		t.Error(err)
	}
	return history.Check(h.Ops, time.Minute)
}

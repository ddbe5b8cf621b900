package journal_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/journal"
)

// A row that a constraint of a key-value table refuses is handed back, and holds up
// nothing behind it.
func TestARowThatAConstraintRefusesDoesNotHoldUpTheLine(t *testing.T) {
	for name, c := range map[string]struct {
		place      func(t *testing.T) string
		constraint string
	}{
		"SQLite": {func(t *testing.T) string { return filepath.Join(t.TempDir(), "db") },
			"CREATE TRIGGER choosy BEFORE INSERT ON written WHEN CAST(NEW.value AS TEXT) = '-1' BEGIN SELECT RAISE(ABORT, 'below zero'); END"},
		"PostgreSQL": {func(t *testing.T) string { return dbtest.Postgres(t) },
			"ALTER TABLE written ADD CHECK (value::text <> '-1')"},
	} {
		t.Run(name, func(t *testing.T) {
			s := connect(t, c.place(t))
			if _, err := s.db.ExecContext(t.Context(), c.constraint); err != nil {
				t.Fatal(err)
			}
			kept, err := journal.Open(t.Context(), filepath.Join(t.TempDir(), "journal"), journal.Options[string, int]{Positions: s.positions, Logger: silent})
			if err != nil {
				t.Fatal(err)
			}
			defer kept.Close()
			cache, err := lockstep.New(s.rows, lockstep.Options[string, int]{Mode: lockstep.WriteBehind, Behind: lockstep.Behind[string, int]{Journal: kept, MaxDelay: time.Hour}, Logger: silent})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			defer cache.Close(ctx)
			for key, value := range map[string]int{"good": 1, "bad": -1, "better": 2} {
				if _, err := cache.Set(ctx, key, value); err != nil {
					t.Fatal(err)
				}
			}
			if err := cache.Flush(ctx); !errors.Is(err, lockstep.ErrInvalid) {
				t.Errorf("Flush = %v", err)
			}
			if rejected := cache.Rejected(); len(rejected) != 1 || rejected[0].Key != "bad" {
				t.Errorf("Rejected = %+v", rejected)
			}
			if got := s.table(t, ""); len(got) != 2 || got["good"] != 1 || got["better"] != 2 {
				t.Errorf("the table has %v", got)
			}
		})
	}
}

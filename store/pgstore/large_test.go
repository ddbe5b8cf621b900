package pgstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// A set that is more than a message can carry had an unknown outcome: the driver failed,
// and closed the connection.
func TestASetThatNoMessageCarriesIsRefused(t *testing.T) {
	url := dbtest.Postgres(t)
	db := openPool(t, url)
	const most = 1000
	pgstore.Narrow(db, most)
	own, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	run(t, connect(t, url), "CREATE TABLE texts (id text COLLATE \"C\" PRIMARY KEY, line text NOT NULL)")
	mapped, err := pgstore.NewTableIn[string, line](t.Context(), db, "texts", pgstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", most/2)

	cache := cachetest.Open(t, own, lockstep.Options[string, string]{})
	lines := cachetest.Open(t, mapped, lockstep.Options[string, line]{})
	for name, write := range map[string]func() error{
		"SetMany":         func() error { return cache.SetMany(t.Context(), map[string]string{"a": large, "b": large}) },
		"SetMany, mapped": func() error { return lines.SetMany(t.Context(), map[string]line{"a": {large}, "b": {large}}) },
		"in a transaction": func() error {
			return lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
				in := cache.In(tx)
				return errors.Join(lines.In(tx).Set(ctx, "a", line{"x"}), in.Set(ctx, "a", large), in.Set(ctx, "b", large))
			})
		},
	} {
		var w *lockstep.WriteError
		if err := write(); !errors.Is(err, lockstep.ErrTooLarge) || !errors.As(err, &w) || w.Outcome != lockstep.NotApplied {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
	for _, key := range []string{"a", "b"} {
		wantAbsent(t, own, key)
		if _, err := lines.Get(t.Context(), key); !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("Get(%s): %v", key, err)
		}
	}

	// The others of a batch do not suffer, as far as there is room for them.
	giant := set(put("c", large), put("d", large))
	out, err := own.Commit(t.Context(), []changeSet{set(put("a", large)), giant, set(put("b", large)), set(put("e", "small"))})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, lockstep.ErrTooLarge, lockstep.ErrUnavailable, nil} {
		if !errors.Is(out[i].Err, want) {
			t.Errorf("set %d: %v, want %v", i, out[i].Err, want)
		}
	}
	wantRow(t, own, "a", large)
	wantRow(t, own, "e", "small")
	wantAbsent(t, own, "b")
	wantAbsent(t, own, "c")
}

type line struct {
	Line string `db:"line"`
}

// As text a value may take twice the bytes.
func TestACommitHasLessRoomAsText(t *testing.T) {
	url := dbtest.Postgres(t)
	binary := pgstore.Room(openPool(t, url))
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		if room := pgstore.Room(overPool(newPoolIn(t, url, mode))(t)); room != binary/2 {
			t.Errorf("%v: %d bytes, and in binary form %d", mode, room, binary)
		}
	}
}

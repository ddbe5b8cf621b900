package pgstore

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

func sweepAll[K comparable, V any](t *testing.T, s *Store[K, V]) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = s.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A sweep ends what is over without changing a version, removes what was deleted a
// day ago, and leaves versions that go on from there.
func TestSweep(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), dbtest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s, err := Open[int, string](t.Context(), pool, Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 2*sweepRows + 10
	var changes []lockstep.Change[int, string]
	for i := range n {
		changes = append(changes, lockstep.Change[int, string]{Key: i, Value: "v"})
		if i%2 == 1 {
			changes[i].ExpiresAt = time.Now().Add(-time.Hour)
		}
	}
	out, err := s.Commit(t.Context(), []lockstep.ChangeSet[int, string]{{Changes: changes}})
	if err != nil || out[0].Err != nil {
		t.Fatal(err, out)
	}
	count := func(where string) (n int) {
		t.Helper()
		if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM rows WHERE `+where).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	// What somebody holds is left for the next time.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), `SELECT FROM rows WHERE key = 1 FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	sweepAll(t, s)
	if live, gone := count("deleted_at IS NULL"), count("value IS NULL AND deleted_at IS NOT NULL AND expires_at IS NULL"); live != n/2+1 || gone != n/2-1 {
		t.Errorf("after a sweep %d rows live and %d are tombstones, of %d", live, gone, n)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	sweepAll(t, s)
	rows, err := s.Load(t.Context(), []int{1, 3})
	if err != nil || rows[1].Exists || rows[1].Version != out[0].Rows[1].Version {
		t.Errorf("%+v, %v: the row was at %+v", rows, err, out[0].Rows[1])
	}

	// Their versions are far ahead of the clock, as after it was set back.
	const ahead = 9_000_000_000_000_000_000
	if _, err := pool.Exec(t.Context(), `UPDATE rows SET deleted_at = deleted_at - 86400000000, version = $1 + key WHERE deleted_at IS NOT NULL AND key < 600`, int64(ahead)); err != nil {
		t.Fatal(err)
	}
	sweepAll(t, s)
	if gone := count("deleted_at IS NOT NULL"); gone != 0 {
		t.Errorf("%d tombstones of yesterday are left", gone)
	}
	// For this store, and for one that is opened afterwards.
	again, err := Open[int, string](t.Context(), pool, Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for i, s := range []*Store[int, string]{s, again} {
		out, err := s.Commit(t.Context(), []lockstep.ChangeSet[int, string]{{Changes: []lockstep.Change[int, string]{{Key: 2*i + 1, Value: "again"}}}})
		if err != nil || out[0].Rows[0].Version <= ahead {
			t.Errorf("%+v, %v: the version is not above what was purged", out, err)
		}
	}
}

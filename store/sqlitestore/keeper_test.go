package sqlitestore

import (
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Writers and readers that never pause: the log must start again all the same.
func TestTheLogIsBoundedUnderConstantLoad(t *testing.T) {
	const limit = 256 << 10
	db, err := OpenDatabase(t.Context(), newPath(t), DatabaseOptions{CheckpointBytes: limit})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := OpenIn[int, []byte](t.Context(), db, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var written atomic.Int64
	var stop atomic.Bool
	var readers, writers sync.WaitGroup
	for r := range 2 {
		readers.Go(func() {
			for n := r; !stop.Load(); n++ {
				if _, err := s.Load(t.Context(), []int{n % 512, (n + 7) % 512}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for w := range 4 {
		writers.Go(func() {
			for n := 0; written.Load() < 40*limit; n++ {
				var changes []lockstep.Change[int, []byte]
				for i := range 8 {
					changes = append(changes, lockstep.Change[int, []byte]{Key: (w*128 + n*8 + i) % 512, Value: noise(3000)})
				}
				if _, err := commitOne(s, changes...); err != nil {
					t.Error(err)
					return
				}
				written.Add(8 * 4096)
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	st, err := os.Stat(db.Path() + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	// At least 40 times the limit was logged. A log that never starts again holds
	// all of it.
	if st.Size() > 20*limit {
		t.Errorf("the log has grown to %d bytes, %d times the limit", st.Size(), st.Size()/limit)
	}
	t.Logf("the log has grown to %.1f times the limit", float64(st.Size())/limit)
}

// noise is a value that takes pages of its own.
func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Int())
	}
	return b
}

func TestSweepEndsWhatIsOver(t *testing.T) {
	s := openStore[string, string](t, newPath(t), Options{})
	put(t, s, "stays", "v")
	soon := lockstep.Change[string, string]{Key: "soon", Value: "v", ExpiresAt: time.Now().Add(-time.Second)}
	if _, err := commitOne(s, soon); err != nil {
		t.Fatal(err)
	}
	gone := get(t, s, "soon")
	if gone.Exists || gone.Version == 0 {
		t.Fatalf("a row whose lifetime is over is %+v", gone)
	}
	sweepAll(t, s)
	if r := get(t, s, "soon"); r.Exists || r.Version != gone.Version {
		t.Errorf("swept, it is %+v, want a tombstone at %d", r, gone.Version)
	}
	if n := count(t, s, "SELECT count(*) FROM lockstep WHERE deleted = 1 AND value IS NULL"); n != 1 {
		t.Errorf("%d tombstones, want 1", n)
	}
	if r := get(t, s, "stays"); !r.Exists {
		t.Error("the sweep has taken a row that stays")
	}
}

// The version of a key grows across the purge of its tombstone, whatever the
// clock does.
func TestVersionsGrowAcrossAPurge(t *testing.T) {
	s := openStore[string, string](t, newPath(t), Options{})
	put(t, s, "k", "v")
	if _, err := commitOne(s, lockstep.Change[string, string]{Key: "k", Delete: true}); err != nil {
		t.Fatal(err)
	}
	// As if the deletion were older than a day, and the clock had been ahead of
	// what it is now.
	old := time.Now().Add(-48 * time.Hour).UnixMicro()
	path := s.Database().Path()
	run(t, path, "UPDATE lockstep SET version = "+strconv.FormatInt(old, 10))
	sweepAll(t, s)
	if n := count(t, s, "SELECT count(*) FROM lockstep"); n != 0 {
		t.Fatalf("%d rows are left after the purge", n)
	}
	if n := count(t, s, "SELECT floor FROM lockstep_tables"); n != old {
		t.Errorf("the floor is %d, want %d", n, old)
	}
	future := time.Now().Add(time.Hour).UnixMicro()
	run(t, path, "UPDATE lockstep_tables SET floor = "+strconv.FormatInt(future, 10))
	again, err := OpenIn[string, string](t.Context(), s.Database(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r := put(t, again, "k", "v"); int64(r.Version) <= future {
		t.Errorf("the version is %d, below the floor of %d", r.Version, future)
	}
}

func TestSweepOfManyRowsGoesOn(t *testing.T) {
	s := openStore[int, string](t, newPath(t), Options{})
	var changes []lockstep.Change[int, string]
	for i := range 3*sweepRows + 5 {
		changes = append(changes, lockstep.Change[int, string]{Key: i, Value: "v", ExpiresAt: time.Now().Add(-time.Hour)})
	}
	if _, err := commitOne(s, changes...); err != nil {
		t.Fatal(err)
	}
	if n := sweepAll(t, s); n < 4 {
		t.Errorf("%d sweeps, want at least 4", n)
	}
	if n := count(t, s, "SELECT count(*) FROM lockstep WHERE deleted = 0"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func sweepAll[K comparable, V any](t *testing.T, s *Store[K, V]) (sweeps int) {
	t.Helper()
	for more := true; more; sweeps++ {
		err := s.db.read(t.Context(), func(c *conn) (err error) {
			more, err = s.sweep(c)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sweeps
}

func count[K comparable, V any](t *testing.T, s *Store[K, V], query string) (n int64) {
	t.Helper()
	err := s.db.read(t.Context(), func(c *conn) (err error) {
		n, err = c.integer(query)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Rows that DeleteAll has deleted all have one version.
func TestAPurgeOfManyRowsOfOneVersionDoesNotHoldUpCommits(t *testing.T) {
	s := openStore[int, string](t, newPath(t), Options{})
	const rows = 3*sweepRows + 5
	var changes []lockstep.Change[int, string]
	for i := range rows {
		changes = append(changes, lockstep.Change[int, string]{Key: i, Value: "v"})
	}
	if _, err := commitOne(s, changes...); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), []lockstep.ChangeSet[int, string]{{DeleteAll: true}}); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-48 * time.Hour).UnixMicro()
	run(t, s.Database().Path(), "UPDATE lockstep SET version = "+strconv.FormatInt(old, 10))
	for left := int64(rows); left > 0; {
		if err := s.db.read(t.Context(), func(c *conn) error { _, err := s.sweep(c); return err }); err != nil {
			t.Fatal(err)
		}
		n := count(t, s, "SELECT count(*) FROM lockstep")
		if gone := left - n; gone == 0 || gone > sweepRows {
			t.Fatalf("one sweep has removed %d rows, and may remove %d", gone, sweepRows)
		}
		left = n
	}
	if n := count(t, s, "SELECT floor FROM lockstep_tables"); n != old {
		t.Errorf("the floor is %d, want %d", n, old)
	}
}

package pgstore_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// Keys of each form go through every statement.
func TestKeysOfEachKind(t *testing.T) {
	db := openPool(t, dbtest.Postgres(t))
	type pair struct {
		Tenant string
		N      int
	}
	type name string
	t.Run("text", func(t *testing.T) {
		keys[name](t, db, "", "a", `\`, `\\`, `\x00`, "\x00", "\xff", `\xff`, "\\\xff", "☃")
	})
	t.Run("integer", func(t *testing.T) { keys[int64](t, db, 0, 1, -1, math.MaxInt64, math.MinInt64) })
	t.Run("unsigned", func(t *testing.T) { keys[uint64](t, db, 0, 1, math.MaxUint64) })
	t.Run("bool", func(t *testing.T) { keys[bool](t, db, true, false) })
	t.Run("real", func(t *testing.T) { keys[float64](t, db, 0, 1.5, -1, math.Inf(1), math.SmallestNonzeroFloat64) })
	t.Run("bytes", func(t *testing.T) { keys[[4]byte](t, db, [4]byte{}, [4]byte{0, 1}, [4]byte{0xff}) })
	t.Run("tuple", func(t *testing.T) { keys[pair](t, db, pair{"a", 1}, pair{"a", 2}, pair{"\x00\\", 1}) })
}

func keys[K comparable](t *testing.T, db *pgstore.Database, all ...K) {
	s, err := pgstore.OpenIn[K, int](t.Context(), db, pgstore.Options{Table: "t_" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "_")), Codec: codec.CBOR[int]()})
	if err != nil {
		t.Fatal(err)
	}
	var blind, conditional, deletes []lockstep.ChangeSet[K, int]
	for i, k := range all {
		blind = append(blind, lockstep.ChangeSet[K, int]{Changes: []lockstep.Change[K, int]{{Key: k, Value: i}}})
		conditional = append(conditional, lockstep.ChangeSet[K, int]{Changes: []lockstep.Change[K, int]{{Key: k, Value: i + 100}}, Checks: []lockstep.Check[K]{{Key: k}}})
		deletes = append(deletes, lockstep.ChangeSet[K, int]{Changes: []lockstep.Change[K, int]{{Key: k, Delete: true}}})
	}
	commit := func(sets []lockstep.ChangeSet[K, int]) {
		t.Helper()
		out, err := s.Commit(t.Context(), sets)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range out {
			if o.Err != nil {
				t.Errorf("key %v: %v", all[i], o.Err)
			} else if i < len(conditional) {
				conditional[i].Checks[0].Version = o.Rows[0].Version
			}
		}
	}
	for i := range blind {
		commit(blind[i : i+1]) // by the statement for one row
	}
	want := func(n int) {
		t.Helper()
		rows, err := s.Load(t.Context(), all)
		if err != nil || len(rows) != len(all) {
			t.Fatal(rows, err)
		}
		for i, k := range all {
			if one, err := s.Load(t.Context(), all[i:i+1]); err != nil || one[k].Value != i+n || rows[k].Value != i+n {
				t.Errorf("key %v: %+v, %+v, %v", k, one[k], rows[k], err)
			}
		}
	}
	commit(blind)
	want(0)
	commit(conditional)
	want(100)
	seen := 0
	var cursor any
	for {
		page, err := s.Capabilities().Scan(t.Context(), cursor, 2)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(page.Keys)
		if cursor = page.Next; cursor == nil {
			break
		}
	}
	if seen != len(all) {
		t.Errorf("Scan has %d of %d rows", seen, len(all))
	}
	commit(deletes)
	rows, err := s.Load(t.Context(), all)
	for k, r := range rows {
		if err != nil || r.Exists {
			t.Errorf("key %v is still there: %+v, %v", k, r, err)
		}
	}
}

func TestLongKeys(t *testing.T) {
	s := openStore(t, dbtest.Postgres(t))
	longest := strings.Repeat("k", 2<<10)
	write(t, s, put(longest, "v"))
	wantRow(t, s, longest, "v")
	for _, long := range []string{longest + "k", strings.Repeat("\x00", 1000)} {
		_, _, err := s.Capabilities().Prepare(put(long, "v"))
		wantError(t, err, lockstep.ErrTooLarge)
		_, err = s.Load(t.Context(), []string{long})
		wantError(t, err, lockstep.ErrTooLarge)
	}
	_, err := s.Load(t.Context(), nil)
	if err != nil {
		t.Error(err)
	}
}

// A row that somebody else has written, with what is no key or value of ours, is an
// error of those who read it.
func TestRowsThatDoNotDecode(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	write(t, s, put("good", "v"))
	execute(t, url, `INSERT INTO rows (key, value, version) VALUES ('bad', '{', 1), ('null', NULL, 1), ('\', '"v"', 1)`)
	for _, key := range []string{"bad", "null"} {
		_, err := s.Load(t.Context(), []string{"good", key})
		refused(t, err, lockstep.ErrInvalid, key)
	}
	_, err := s.Capabilities().Scan(t.Context(), nil, 10)
	refused(t, err, lockstep.ErrInvalid, "escapes")
	if errors.Is(err, lockstep.ErrUnavailable) {
		t.Error(err)
	}
	write(t, s, put("bad", "mended"))
	wantRow(t, s, "bad", "mended")
}

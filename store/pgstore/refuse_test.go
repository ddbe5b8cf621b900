package pgstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// Constraints that somebody has put on our table. A set that they refuse is left out
// alone, and says why.
func TestWhatTheServerRefusesIsLeftOutAlone(t *testing.T) {
	url := dbtest.Postgres(t)
	for name, constraint := range map[string]string{
		"Check":    `CHECK (value <> '"bad"')`,
		"Deferred": `EXCLUDE (value WITH =) WHERE (value = '"bad"' OR value = '"bad too"') DEFERRABLE INITIALLY DEFERRED`,
	} {
		for _, conditional := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				execute(t, url, `DROP TABLE IF EXISTS rows`)
				s := openStore(t, url)
				write(t, s, put("there", "old"))
				if name == "Deferred" {
					write(t, s, put("first", "bad"))
				}
				execute(t, url, `ALTER TABLE rows ADD `+constraint)
				first := set(put("a", "1"))
				if conditional {
					first.Checks = []check{{Key: "absent", Absent: true}}
				}
				batch := []changeSet{first, set(put("b", "2")), set(put("there", "bad")), set(erase("never")), set(put("c", "3")), set(put("d", "4"), put("new", "bad"))}
				out, err := s.Commit(t.Context(), batch)
				if err != nil {
					t.Fatal(err)
				}
				for i, o := range out {
					if bad := i == 2 || i == 5; bad != errors.Is(o.Err, lockstep.ErrInvalid) || !bad && o.Err != nil || o.Blocked {
						t.Errorf("set %d: %+v", i, o)
					}
				}
				for key, value := range map[string]string{"a": "1", "b": "2", "c": "3", "there": "old"} {
					wantRow(t, s, key, value)
				}
				wantAbsent(t, s, "d")
				wantAbsent(t, s, "new")
				out, err = s.Commit(t.Context(), batch[2:3])
				if err != nil || !errors.Is(out[0].Err, lockstep.ErrInvalid) {
					t.Errorf("alone: %v, %v", out, err)
				}
				wantRow(t, s, "there", "old")
			})
		}
	}
}

// The last version that an integer holds is the last that a row can have.
func TestVersionsEnd(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	write(t, s, put("k", "old"), put("other", "old"))
	execute(t, url, `UPDATE rows SET version = 9223372036854775807 WHERE key = 'k'`)
	for _, first := range []changeSet{set(put("other", "new")), {Checks: []check{{Key: "absent", Absent: true}}}} {
		out, err := s.Commit(t.Context(), []changeSet{first, set(put("k", "new"))})
		if err != nil || out[0].Err != nil || !errors.Is(out[1].Err, lockstep.ErrInvalid) {
			t.Errorf("%+v, %v", out, err)
		}
	}
	wantRow(t, s, "k", "old")
	wantRow(t, s, "other", "new")
}

// textCodec makes texts of whatever it is given.
type textCodec struct{}

func (textCodec) Name() string                                { return "plain" }
func (textCodec) Text() bool                                  { return true }
func (textCodec) Encode(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }
func (textCodec) Decode(data []byte) (string, error)          { return string(data), nil }

func TestTextThatPostgresCannotHold(t *testing.T) {
	db := openPool(t, dbtest.Postgres(t))
	s, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: "rows", Codec: textCodec{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"a\x00b", "\xff"} {
		_, _, err := s.Capabilities().Prepare(put("k", bad))
		refused(t, err, lockstep.ErrInvalid, "k", "plain")
		out, err := s.Commit(context.Background(), []changeSet{set(put("k", bad)), set(put("l", "good"))})
		if err != nil || !errors.Is(out[0].Err, lockstep.ErrInvalid) || out[1].Err != nil {
			t.Errorf("%q: %v, %v", bad, out, err)
		}
	}
	write(t, s, put("empty", ""))
	wantRow(t, s, "empty", "")
	wantAbsent(t, s, "k")
}

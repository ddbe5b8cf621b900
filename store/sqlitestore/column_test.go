package sqlitestore

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

type everything struct {
	Int     int                 `db:"i"`
	Int8    int8                `db:"i8"`
	Uint64  uint64              `db:"u64"`
	Float   float32             `db:"f"`
	Bool    bool                `db:"b"`
	Text    string              `db:"s"`
	Bytes   []byte              `db:"raw"`
	Array   [4]byte             `db:"arr"`
	At      time.Time           `db:"at"`
	Unix    time.Time           `db:"ts,unixmicro"`
	Ptr     *string             `db:"ps"`
	Null    sql.Null[int64]     `db:"ni"`
	NullT   sql.NullTime        `db:"nt"`
	NullAt  sql.Null[time.Time] `db:"nat"`
	Doc     map[string]any      `db:"doc,json"`
	Tags    []string            `db:"tags,json"`
	Money   money               `db:"money"`
	Ignored string
}

// money converts itself.
type money struct{ cents int64 }

func (m money) Value() (driver.Value, error) {
	return fmt.Sprintf("%d.%02d", m.cents/100, m.cents%100), nil
}
func (m *money) Scan(src any) error {
	var units, cents int64
	if _, err := fmt.Sscanf(src.(string), "%d.%02d", &units, &cents); err != nil {
		return err
	}
	m.cents = units*100 + cents
	return nil
}

const everythingSchema = `CREATE TABLE t (id TEXT PRIMARY KEY, i INT, i8 INTEGER, u64 BIGINT, f REAL, b BOOLEAN, s VARCHAR(10), raw BLOB,
	arr BLOB, at DATETIME, ts INTEGER, ps TEXT, ni INTEGER, nt TIMESTAMP, nat TEXT, doc TEXT, tags, money TEXT)`

func TestEveryKindOfColumn(t *testing.T) {
	s := openTable[string, everything](t, TableOptions{}, everythingSchema)
	at := time.Date(2026, 11, 22, 1, 2, 3, 456789123, time.FixedZone("", 3600))
	text := "there"
	full := everything{
		Int: math.MinInt64, Int8: -128, Uint64: math.MaxInt64, Float: 0.1, Bool: true, Text: "a\x00\xff", Bytes: []byte{0, 1},
		Array: [4]byte{1, 2, 3, 4}, At: at, Unix: at, Ptr: &text, Null: sql.Null[int64]{V: 5, Valid: true},
		NullT: sql.NullTime{Time: at, Valid: true}, NullAt: sql.Null[time.Time]{V: at, Valid: true},
		Doc: map[string]any{"a": 1.5}, Tags: []string{"x"}, Money: money{1234}, Ignored: "not stored",
	}
	want := full
	want.At, want.NullT.Time, want.NullAt.V = at.UTC(), at.UTC(), at.UTC()
	want.Unix = at.Truncate(time.Microsecond).UTC()
	want.Ignored = ""
	for key, v := range map[string]struct{ in, out everything }{"full": {full, want}, "zero": {everything{}, everything{}}} {
		c, _, err := s.m.Prepare(lockstep.Change[string, everything]{Key: key, Value: v.in})
		if err != nil {
			t.Fatal(err)
		}
		if key == "zero" {
			v.out.At, v.out.Unix = time.Time{}.UTC(), time.Time{}.UTC()
		}
		if !reflect.DeepEqual(c.Value, v.out) {
			t.Errorf("%s prepared:\n%+v, want\n%+v", key, c.Value, v.out)
		}
		r := put(t, s, key, v.in)
		if !reflect.DeepEqual(r.Value, v.out) {
			t.Errorf("%s committed:\n%+v, want\n%+v", key, r.Value, v.out)
		}
		if l := get(t, s, key); !reflect.DeepEqual(l.Value, v.out) {
			t.Errorf("%s loaded:\n%+v, want\n%+v", key, l.Value, v.out)
		}
		clone, err := s.m.Clone(r.Value)
		if err != nil || !reflect.DeepEqual(clone, v.out) {
			t.Errorf("%s cloned:\n%+v, %v", key, clone, err)
		}
	}
	// A row that is kept unchanged by value is unchanged, also with what it cannot hold.
	r := get(t, s, "full")
	outcomes, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, everything]{
		{Checks: []lockstep.Check[string]{{Key: "full", Value: r.Value}, {Key: "none", Absent: true}}},
		{Checks: []lockstep.Check[string]{{Key: "full", Value: everything{}}}},
		{Checks: []lockstep.Check[string]{{Key: "full", Value: "of another type"}}},
	})
	if err != nil || outcomes[0].Err != nil {
		t.Errorf("%v, %v", outcomes, err)
	}
	wantError(t, outcomes[1].Err, lockstep.ErrConflict, "full")
	wantError(t, outcomes[2].Err, lockstep.ErrInvalid, "full")
}

func TestColumnValuesThatAreRefused(t *testing.T) {
	s := openTable[string, everything](t, TableOptions{}, everythingSchema)
	for part, v := range map[string]everything{
		"Uint64: column u64": {Uint64: math.MaxUint64},
		"Float: column f":    {Float: float32(math.NaN())},
		"At: column at":      {At: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"Doc: column doc":    {Doc: map[string]any{"c": make(chan int)}},
	} {
		_, err := commitOne(s, lockstep.Change[string, everything]{Key: "k", Value: v})
		wantError(t, err, lockstep.ErrInvalid, "key k", part)
	}
	put(t, s, "k", everything{})
	for column, bad := range map[string]string{
		"i": "'x'", "i8": "300", "u64": "-1", "b": "2", "s": "NULL", "raw": "5", "arr": "x'00'", "at": "'yesterday'",
		"ts": "'x'", "doc": "'{'", "ni": "'x'",
	} {
		t.Run(column, func(t *testing.T) {
			path := s.Database().Path()
			run(t, path, "UPDATE t SET "+column+" = "+bad)
			_, err := s.Load(t.Context(), []string{"k"})
			wantError(t, err, lockstep.ErrInvalid, "k", "column "+column)
			put(t, s, "k", everything{}) // what does not decode can be overwritten
		})
	}
}

func TestTimesOfOtherPrograms(t *testing.T) {
	for s, want := range map[string]string{
		"2026-01-02 03:04:05":           "2026-01-02T03:04:05Z",
		"2026-01-02T03:04:05.5Z":        "2026-01-02T03:04:05.5Z",
		"2026-01-02 03:04:05.123+02:00": "2026-01-02T01:04:05.123Z",
		"2026-01-02 03:04":              "2026-01-02T03:04:00Z",
		"2026-01-02T03:04-01:00":        "2026-01-02T04:04:00Z",
		"2026-01-02":                    "2026-01-02T00:00:00Z",
		"2026-01-02 03:04:05.123456789": "2026-01-02T03:04:05.123456789Z",
		" 2026-01-02 ":                  "2026-01-02T00:00:00Z",
	} {
		got, ok := parseTime(s)
		if !ok || got.Format(time.RFC3339Nano) != want {
			t.Errorf("%q is %v, %t, want %s", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "now", "12:00", "2026-13-01", "2026-01-02 25:00:00"} {
		if got, ok := parseTime(s); ok {
			t.Errorf("%q is %v", s, got)
		}
	}
}

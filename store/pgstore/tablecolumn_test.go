package pgstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// connect opens a session on a new database with a schema.
func connect(t testing.TB, schema ...string) *pgx.Conn {
	t.Helper()
	return connectTo(t, dbtest.Postgres(t), schema...)
}

func connectTo(t testing.TB, url string, schema ...string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	for _, s := range schema {
		if _, err := c.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	return c
}

func fitted[K comparable, V any](t testing.TB, c *pgx.Conn, table string) (*shape, *mapping.Mapping[K, V]) {
	t.Helper()
	s, err := inspectTable(t.Context(), c, table)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mapTo[K, V](s, mapping.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s, m
}

func wantError(t *testing.T, err, is error, parts ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("%v, want %v", err, is)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
}

// write inserts rows as a table store does: the columns of a batch in one array
// each.
func write[K comparable, V any](ctx context.Context, c *pgx.Conn, s *shape, m *mapping.Mapping[K, V], rows map[K]V) error {
	type target struct {
		mapping.Field
		values []any
	}
	var targets []target
	for _, f := range m.Key {
		targets = append(targets, target{Field: f})
	}
	for _, f := range m.Value {
		if f.Written {
			targets = append(targets, target{Field: f})
		}
	}
	for k, v := range rows {
		change, _, err := m.Prepare(lockstep.Change[K, V]{Key: k, Value: v})
		if err != nil {
			return err
		}
		p := change.Prepared.(*mapping.Prepared)
		bound := p.Key
		for i, f := range m.Value {
			if f.Written {
				bound = append(bound, p.Columns[i])
			}
		}
		for i, x := range bound {
			targets[i].values = append(targets[i].values, x)
		}
	}
	var names, elements, params []string
	var args []any
	for i, x := range targets {
		w := wire(x.Type)
		names = append(names, quoted(x.Column))
		elements = append(elements, s.column(x.Column).assign(w, fmt.Sprintf("u.c%d", i)))
		params = append(params, fmt.Sprintf("$%d::%s", i+1, w.parameter()))
		args = append(args, w.pack(x.values))
	}
	var aliases []string
	for i := range targets {
		aliases = append(aliases, fmt.Sprintf("c%d", i))
	}
	_, err := c.Exec(ctx, fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM unnest(%s) AS u(%s)", s.sql(),
		strings.Join(names, ", "), strings.Join(elements, ", "), strings.Join(params, ", "), strings.Join(aliases, ", ")), args...)
	return err
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// read returns the columns of every row.
func read[K comparable, V any](ctx context.Context, c *pgx.Conn, s *shape, m *mapping.Mapping[K, V]) (map[K]V, error) {
	var columns []string
	var into []any
	var cells []cell
	for _, f := range append(append([]mapping.Field{}, m.Key...), m.Value...) {
		w := wire(f.Type)
		columns = append(columns, s.column(f.Column).read(w, "t."+quoted(f.Column)))
		x := w.cell()
		cells, into = append(cells, x), append(into, x.into)
	}
	rows, err := c.Query(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM "+s.sql()+" t")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[K]V{}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		row := make([]driver.Value, len(cells))
		for i, x := range cells {
			row[i] = x.value()
		}
		k, err := m.ScanKey(row[:len(m.Key)])
		if err != nil {
			return nil, err
		}
		r, err := m.Row(k, row[len(m.Key):])
		if err != nil {
			return nil, err
		}
		out[k] = r.Value
	}
	return out, rows.Err()
}

// decimal converts itself.
type decimal struct{ text string }

func (d decimal) Value() (driver.Value, error) { return d.text, nil }
func (d *decimal) Scan(src any) error          { d.text = src.(string); return nil }

// document converts itself as types for JSON do.
type document map[string]any

func (d document) Value() (driver.Value, error) { return json.Marshal(map[string]any(d)) }
func (d *document) Scan(src any) error          { return json.Unmarshal(src.([]byte), d) }

// moment converts itself by a time.
type moment struct{ at time.Time }

func (m moment) Value() (driver.Value, error) { return m.at, nil }
func (m *moment) Scan(src any) error          { m.at = src.(time.Time); return nil }

// list converts itself as lib/pq's arrays do.
type list []string

func (l list) Value() (driver.Value, error) { return "{" + strings.Join(l, ",") + "}", nil }
func (l *list) Scan(src any) error {
	*l = strings.Split(strings.Trim(src.(string), "{}"), ",")
	return nil
}

type everything struct {
	I2      int8                `db:"i2"`
	I4      uint16              `db:"i4"`
	I8      int                 `db:"i8"`
	F4      float32             `db:"f4"`
	F8      float64             `db:"f8"`
	Yes     bool                `db:"yes"`
	Text    string              `db:"words"`
	Short   string              `db:"short"`
	Padded  string              `db:"padded"`
	Bytes   []byte              `db:"bytes"`
	Four    [4]byte             `db:"four"`
	Zoned   time.Time           `db:"zoned"`
	Local   time.Time           `db:"local"`
	Millis  time.Time           `db:"millis"`
	Day     time.Time           `db:"day"`
	Unix    time.Time           `db:"unix,unixmilli"`
	Price   decimal             `db:"price"`
	Digits  string              `db:"digits"`
	Rate    float64             `db:"rate"`
	Count   int64               `db:"count"`
	UUID    [16]byte            `db:"uuid"`
	UUIDs   string              `db:"uuids"`
	Doc     map[string]int      `db:"doc,json"`
	Raw     json.RawMessage     `db:"raw"`
	RawText string              `db:"rawtext"`
	Own     document            `db:"own"`
	Mood    string              `db:"mood"`
	Email   string              `db:"email"`
	Moment  moment              `db:"moment"`
	Strings []string            `db:"strings"`
	Ints    []int32             `db:"ints"`
	Floats  []float64           `db:"floats"`
	Bools   []bool              `db:"bools"`
	Times   []time.Time         `db:"times"`
	Days    []time.Time         `db:"days"`
	IDs     [][16]byte          `db:"ids"`
	Moods   []string            `db:"moods"`
	Sums    []string            `db:"sums"`
	Maybe   []*string           `db:"maybe"`
	List    list                `db:"list"`
	Ptr     *string             `db:"ptr"`
	Null    sql.Null[int64]     `db:"nullint"`
	NullT   sql.NullTime        `db:"nulltime"`
	NullAt  sql.Null[time.Time] `db:"nullat"`
	Ignored string
}

var everythingSchema = []string{
	`CREATE TYPE "Mood" AS ENUM ('sad', 'it''s ok', 'happy')`,
	`CREATE DOMAIN email AS varchar(40) CHECK (VALUE LIKE '%@%')`,
	`CREATE DOMAIN address AS email NOT NULL`,
	`CREATE TABLE t (id text PRIMARY KEY, i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision, yes boolean, words text,
		short varchar(3), padded char(5), bytes bytea, four bytea, zoned timestamptz, local timestamp, millis timestamp(3), day date,
		unix bigint, price numeric, digits numeric(40,20), rate numeric(6,3), count numeric(18), uuid uuid, uuids uuid, doc jsonb, raw jsonb, rawtext json,
		own jsonb, mood "Mood", email address, moment timestamptz, strings text[], ints int[], floats float8[], bools bool[],
		times timestamptz[], days date[], ids uuid[], moods "Mood"[], sums numeric(10,2)[], maybe varchar(9)[], list text[], ptr text, nullint int, nulltime timestamp, nullat timestamptz)`,
}

func TestEveryKindOfColumn(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) { everyKindOfColumn(t, mode) })
	}
}

func everyKindOfColumn(t *testing.T, mode pgx.QueryExecMode) {
	// Nothing depends on how a session shows things, where the driver does not go by
	// what it is shown.
	odd := []string{`SET TimeZone = 'Asia/Kolkata'`, `SET extra_float_digits = -10`, `SET IntervalStyle = 'iso_8601'`}
	if mode == pgx.QueryExecModeCacheStatement {
		odd = append(odd, `SET DateStyle = 'SQL, DMY'`, `SET bytea_output = 'escape'`)
	} else {
		odd = odd[:1]
	}
	url := dbtest.Postgres(t)
	connectTo(t, url, everythingSchema...)
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = mode
	c, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	for _, query := range odd {
		if _, err := c.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Date(2026, 11, 22, 1, 2, 3, 456789123, time.FixedZone("", 7200))
	micros := at.Truncate(time.Microsecond).UTC()
	words := "here"
	full := everything{
		I2: -128, I4: math.MaxUint16, I8: math.MinInt64, F4: 0.1, F8: math.Inf(-1), Yes: true, Text: "a\n☃ \\ ' \" {} ", Short: "äöü",
		Padded: "ab  ", Bytes: []byte{0, 1}, Four: [4]byte{1, 2, 3, 4}, Zoned: at, Local: at, Millis: at, Day: at, Unix: at,
		Price: decimal{"123456789012345678901234567890.10"}, Digits: "1.5", Rate: -12.125, Count: 999999999999999999,
		UUID: [16]byte{0xab, 15: 1}, UUIDs: "ABCDEF01-2345-6789-abcd-ef0123456789", Doc: map[string]int{"a": 1}, Raw: json.RawMessage(`{"b":2}`),
		RawText: `{"b":  2}`, Own: document{"x": "y"}, Mood: "it's ok", Email: "a@b", Moment: moment{at},
		Strings: []string{`a"b`, `\`, "", "NULL", "{x, y}", "☃"}, Ints: []int32{-1, 2}, Floats: []float64{0.1, math.Inf(1), 1e300},
		Bools: []bool{true, false}, Times: []time.Time{at}, Days: []time.Time{at}, IDs: [][16]byte{{1}}, Moods: []string{"sad"},
		Sums: []string{"1.50"}, Maybe: []*string{nil, &words}, List: list{"x", "y"},
		Ptr: &words, Null: sql.Null[int64]{V: 5, Valid: true}, NullT: sql.NullTime{Time: at, Valid: true},
		NullAt: sql.Null[time.Time]{V: at, Valid: true}, Ignored: "not stored",
	}
	want := full
	want.Zoned, want.Local, want.Moment.at, want.NullT.Time, want.NullAt.V, want.Times = micros, micros, micros, micros, micros, []time.Time{micros}
	want.Millis = time.Date(2026, 11, 21, 23, 2, 3, 457e6, time.UTC) // rounded
	want.Unix = at.Truncate(time.Millisecond).UTC()
	want.Day = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC) // the day where at is
	want.Days = []time.Time{want.Day}
	want.Padded, want.UUIDs, want.Ignored = "ab", strings.ToLower(full.UUIDs), ""
	least := everything{Price: decimal{"0"}, Digits: "0", UUIDs: "00000000-0000-0000-0000-000000000000", Raw: json.RawMessage("null"),
		RawText: "null", Own: document{}, Mood: "sad", Email: "@", List: list{""}}
	s, m := fitted[string, everything](t, c, "t")
	if err := write(t.Context(), c, s, m, map[string]everything{"full": full, "least": least}); err != nil {
		t.Fatal(err)
	}
	got, err := read(t.Context(), c, s, m)
	if err != nil {
		t.Fatal(err)
	}
	for k, in := range map[string]everything{"full": full, "least": least} {
		change, _, err := m.Prepare(lockstep.Change[string, everything]{Key: k, Value: in})
		if err != nil {
			t.Fatal(err)
		}
		expected := want
		if k == "least" {
			expected = least
		}
		if !reflect.DeepEqual(change.Value, expected) {
			t.Errorf("%s prepared:\n%+v, want\n%+v", k, change.Value, expected)
		}
		// Only the database knows these forms.
		expected.Digits, expected.Raw = "1.50000000000000000000", json.RawMessage(`{"b": 2}`)
		if k == "least" {
			expected.Digits, expected.Raw = "0.00000000000000000000", json.RawMessage("null")
		}
		if !reflect.DeepEqual(got[k], expected) {
			t.Errorf("%s read:\n%+v, want\n%+v", k, got[k], expected)
		}
		clone, err := m.Clone(got[k])
		if err != nil || !reflect.DeepEqual(clone, expected) {
			t.Errorf("%s cloned:\n%+v, %v", k, clone, err)
		}
	}
}

func TestColumnValuesThatAreRefused(t *testing.T) {
	c := connect(t, everythingSchema...)
	_, m := fitted[string, everything](t, c, "t")
	bad := func(column string, spoil func(v *everything)) {
		t.Helper()
		v := everything{Price: decimal{"0"}, Digits: "0", UUIDs: "00000000-0000-0000-0000-000000000000", Raw: json.RawMessage("null"), RawText: "null"}
		if _, err := m.BindValue(v); err != nil {
			t.Fatal(err)
		}
		spoil(&v)
		_, err := m.BindValue(v)
		wantError(t, err, lockstep.ErrInvalid, "column "+column)
	}
	bad("words", func(v *everything) { v.Text = "a\x00" })
	bad("words", func(v *everything) { v.Text = "\xff" })
	bad("short", func(v *everything) { v.Short = "four" })
	bad("padded", func(v *everything) { v.Padded = "sixsix" })
	bad("zoned", func(v *everything) { v.Zoned = time.Date(-5000, 1, 1, 0, 0, 0, 0, time.UTC) })
	bad("local", func(v *everything) { v.Local = time.Date(300000, 1, 1, 0, 0, 0, 0, time.UTC) })
	bad("digits", func(v *everything) { v.Digits = "1,5" })
	bad("digits", func(v *everything) { v.Digits = "0x10" })
	bad("digits", func(v *everything) { v.Digits = "-infinity" })
	bad("rate", func(v *everything) { v.Rate = math.Inf(1) })
	bad("uuids", func(v *everything) { v.UUIDs = "abc" })
	bad("raw", func(v *everything) { v.Raw = json.RawMessage("{") })
	bad("rawtext", func(v *everything) { v.RawText = "" })
	bad("strings", func(v *everything) { v.Strings = []string{"ok", "a\x00"} })
	bad("maybe", func(v *everything) { s := "longer than nine"; v.Maybe = []*string{&s} })
	bad("times", func(v *everything) { v.Times = []time.Time{time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)} })
	type narrow struct {
		I2    int    `db:"i2"`
		I4    uint64 `db:"i4"`
		Email string `db:"email"`
	}
	_, n := fitted[string, narrow](t, c, "t")
	for column, v := range map[string]narrow{"i2": {I2: 40000}, "i4": {I4: 1 << 31}} {
		_, err := n.BindValue(v)
		wantError(t, err, lockstep.ErrInvalid, "column "+column)
	}
}

// What other programs have written, and no field can hold, is an error that names
// the row and the column.
func TestColumnsThatCannotBeRead(t *testing.T) {
	c := connect(t, `CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT 'epoch', day date DEFAULT 'epoch', n int DEFAULT 0, a int[] DEFAULT '{}',
		words text DEFAULT '', f numeric(4) DEFAULT 0)`)
	type V struct {
		At    time.Time `db:"at"`
		Day   time.Time `db:"day"`
		N     uint8     `db:"n"`
		A     []int     `db:"a"`
		Words string    `db:"words"`
		F     int8      `db:"f"`
	}
	s, m := fitted[int, V](t, c, "t")
	for column, value := range map[string]string{"at": "'infinity'", "day": "'-infinity'", "n": "256", "a": "'{{1,2},{3,4}}'", "words": "NULL", "f": "200"} {
		if _, err := c.Exec(t.Context(), "DELETE FROM t"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), "INSERT INTO t (id, "+column+") VALUES (7, "+value+")"); err != nil {
			t.Fatal(err)
		}
		_, err := read(t.Context(), c, s, m)
		wantError(t, err, keytext.ErrDecode, "key 7", "column "+column)
	}
	if _, err := c.Exec(t.Context(), "DELETE FROM t; INSERT INTO t (id, at, day) VALUES (1, '4713-01-01 BC', '4713-01-01 BC')"); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t.Context(), c, s, m); err != nil || got[1].At.Year() != -4712 || got[1].Day.Year() != -4712 {
		t.Errorf("%v, %v", got, err)
	}
}

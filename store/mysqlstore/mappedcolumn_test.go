package mysqlstore_test

import (
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

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// decimal converts itself.
type decimal struct{ text string }

func (d decimal) Value() (driver.Value, error) { return d.text, nil }
func (d *decimal) Scan(src any) error          { d.text = string(src.([]byte)); return nil }

// document converts itself as types for JSON do.
type document map[string]any

func (d document) Value() (driver.Value, error) { return json.Marshal(map[string]any(d)) }
func (d *document) Scan(src any) error          { return json.Unmarshal(src.([]byte), d) }

// moment converts itself by a time.
type moment struct{ at time.Time }

func (m moment) Value() (driver.Value, error) { return m.at, nil }
func (m *moment) Scan(src any) error          { m.at = src.(time.Time); return nil }

type everything struct {
	I1      int8                `db:"i1"`
	U1      uint8               `db:"u1"`
	I2      int16               `db:"i2"`
	U2      uint16              `db:"u2"`
	I3      int32               `db:"i3"`
	U3      uint32              `db:"u3"`
	I4      int32               `db:"i4"`
	U4      uint32              `db:"u4"`
	I8      int64               `db:"i8"`
	U8      uint64              `db:"u8"`
	Signed  int64               `db:"signed"`
	Filled  uint                `db:"filled"`
	F4      float32             `db:"f4"`
	F8      float64             `db:"f8"`
	Yes     bool                `db:"yes"`
	Short   string              `db:"short"`
	Padded  string              `db:"padded"`
	Words   string              `db:"words"`
	Long    []byte              `db:"longer"`
	Latin   string              `db:"latin"`
	Fixed   []byte              `db:"fixed"`
	Four    [4]byte             `db:"four"`
	Bytes   []byte              `db:"bytes"`
	Blob    []byte              `db:"blobs"`
	Day     time.Time           `db:"day"`
	Second  time.Time           `db:"second"`
	Millis  time.Time           `db:"millis"`
	Micros  time.Time           `db:"micros"`
	Stamp   time.Time           `db:"stamp"`
	Stamp0  time.Time           `db:"stamp0"`
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
	InText  []string            `db:"intext,json"`
	Mood    string              `db:"mood"`
	Flags   string              `db:"flags"`
	Moment  moment              `db:"moment"`
	Ptr     *string             `db:"ptr"`
	PtrB    *bool               `db:"ptrb"`
	Null    sql.Null[int64]     `db:"nullint"`
	NullU   *uint64             `db:"nulluint"`
	NullT   sql.NullTime        `db:"nulltime"`
	NullAt  sql.Null[time.Time] `db:"nullat"`
	NullF   sql.NullFloat64     `db:"nullf"`
	NullB   []byte              `db:"nullb"`
	Ignored string
}

// everythingSchema has a type that only one of the servers has.
func everythingSchema(t testing.TB) string {
	return `CREATE TABLE t (id VARBINARY(40) PRIMARY KEY,
	i1 TINYINT, u1 TINYINT UNSIGNED, i2 SMALLINT, u2 SMALLINT UNSIGNED, i3 MEDIUMINT, u3 MEDIUMINT UNSIGNED, i4 INT, u4 INT UNSIGNED,
	i8 BIGINT, u8 BIGINT UNSIGNED, signed BIGINT UNSIGNED, filled INT(6) ZEROFILL, f4 FLOAT, f8 DOUBLE, yes BOOLEAN,
	short VARCHAR(3) COLLATE utf8mb4_general_ci, padded CHAR(5), words TEXT, longer LONGTEXT, latin VARCHAR(9) CHARACTER SET latin1, fixed BINARY(4), four BINARY(4), bytes VARBINARY(20), blobs LONGBLOB,
	day DATE, second DATETIME, millis DATETIME(3), micros DATETIME(6), stamp TIMESTAMP(6) NULL, stamp0 TIMESTAMP NULL, unix BIGINT UNSIGNED,
	price DECIMAL(65,20), digits DECIMAL(40,20), rate DECIMAL(6,3), count DECIMAL(18), ` + mysqlstore.Of(t, "uuid UUID, uuids UUID", "uuid BINARY(16), uuids VARCHAR(36)") + `,
	doc JSON, raw JSON, rawtext JSON, own JSON, intext TEXT, mood ENUM('sad', 'it''s ok', 'a,b', 'happy'), flags SET('a', 'b', 'c'), moment DATETIME(6),
	ptr TEXT, ptrb BOOLEAN, nullint INT, nulluint BIGINT UNSIGNED, nulltime DATETIME, nullat TIMESTAMP(6) NULL, nullf DOUBLE, nullb BLOB)`
}

// mapTable makes a schema, and maps its table t.
func mapTable[K comparable, V any](t testing.TB, dsn string, opts mysqlstore.TableOptions, schema ...string) *mysqlstore.Table[K, V] {
	t.Helper()
	pool := connect(t, dsn)
	plain := pool
	if dsn, params, ok := strings.Cut(dsn, "?"); ok && params != "" {
		plain = connect(t, dsn)
	}
	for _, s := range schema {
		execute(t, plain, s)
	}
	table, err := mysqlstore.NewTable[K, V](t.Context(), pool, "t", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

// change1 is what becomes of a set of one change, alone.
func change1[K comparable, V any](t testing.TB, s *mysqlstore.Table[K, V], c lockstep.Change[K, V]) lockstep.Outcome[V] {
	t.Helper()
	out, err := s.Commit(t.Context(), []lockstep.ChangeSet[K, V]{{Changes: []lockstep.Change[K, V]{c}}})
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// store1 writes a row, which has to be accepted and to read as the commit said.
func store1[K comparable, V any](t testing.TB, s *mysqlstore.Table[K, V], k K, v V) lockstep.Row[V] {
	t.Helper()
	o := change1(t, s, lockstep.Change[K, V]{Key: k, Value: v})
	if o.Err != nil {
		t.Fatal(o.Err)
	}
	if r := load1(t, s, k); !reflect.DeepEqual(r, o.Rows[0]) {
		t.Errorf("the commit of %v returned %+v, and Load %+v", k, o.Rows[0], r)
	}
	return o.Rows[0]
}

func load1[K comparable, V any](t testing.TB, s *mysqlstore.Table[K, V], k K) lockstep.Row[V] {
	t.Helper()
	rows, err := s.Load(t.Context(), []K{k})
	if err != nil {
		t.Fatal(err)
	}
	return rows[k]
}

// wantParts checks that an error is one of ours and names what is wrong.
func wantParts(t testing.TB, err, is error, parts ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("the error is %v, want one that is %v", err, is)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
}

func TestEveryKindOfColumn(t *testing.T) {
	for _, params := range []string{"", hostileTo(t)} {
		t.Run(fmt.Sprint("hostile=", params != ""), func(t *testing.T) {
			s := mapTable[string, everything](t, dbtest.MariaDB(t)+params, mysqlstore.TableOptions{}, everythingSchema(t))
			everyKindOfColumn(t, s)
		})
	}
}

func everyKindOfColumn(t *testing.T, s *mysqlstore.Table[string, everything]) {
	at := time.Date(2026, 11, 22, 1, 2, 3, 456789123, time.FixedZone("", 7200))
	micros, seconds := at.Truncate(time.Microsecond).UTC(), at.Truncate(time.Second).UTC()
	words, yes, most := "here", true, uint64(math.MaxUint64)
	full := everything{
		I1: -128, U1: 255, I2: math.MinInt16, U2: math.MaxUint16, I3: -1 << 23, U3: 1<<24 - 1, I4: math.MinInt32, U4: math.MaxUint32,
		I8: math.MinInt64, U8: math.MaxUint64, Signed: math.MaxInt64, Filled: 7, F4: 0.1, F8: -math.MaxFloat64, Yes: true,
		Short: "äö☃", Padded: "ab  ", Words: "a\n☃ \\ ' \" \x00 😀 ", Long: []byte("long"), Latin: "äöü", Fixed: []byte{1, 2}, Four: [4]byte{1, 2, 3, 0},
		Bytes: []byte{0xff, 0, 0xfe, '\'', '\\'}, Blob: []byte{0xff, 0xc0, 0x80, 0}, Day: at, Second: at, Millis: at, Micros: at, Stamp: at, Stamp0: at, Unix: at,
		Price: decimal{"123456789012345678901234567890.10000000000000000000"}, Digits: "1.5", Rate: -12.125, Count: 999999999999999999,
		UUID: [16]byte{0xab, 15: 1}, UUIDs: "ABCDEF01-2345-6789-abcd-ef0123456789", Doc: map[string]int{"a": 1}, Raw: json.RawMessage(`{"b":2}`),
		RawText: `{"b":  2}`, Own: document{"x": "y"}, InText: []string{"x"}, Mood: "it's ok", Flags: "c,a", Moment: moment{at},
		Ptr: &words, PtrB: &yes, Null: sql.Null[int64]{V: -5, Valid: true}, NullU: &most, NullT: sql.NullTime{Time: at, Valid: true},
		NullAt: sql.Null[time.Time]{V: at, Valid: true}, NullF: sql.NullFloat64{Float64: 1e-300, Valid: true}, NullB: []byte{}, Ignored: "not stored",
	}
	want := full
	want.Micros, want.Stamp, want.Moment.at, want.NullAt.V = micros, micros, micros, micros
	want.Second, want.Stamp0, want.NullT.Time = seconds, seconds, seconds
	want.Millis, want.Unix = at.Truncate(time.Millisecond).UTC(), at.Truncate(time.Millisecond).UTC()
	want.Day = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC) // the day where at is
	want.Digits = "1.50000000000000000000"
	if mysqlstore.OnMySQL(t) { // which has no type for them
		full.UUIDs, want.UUIDs = strings.ToLower(full.UUIDs), strings.ToLower(full.UUIDs)
		// JSON has a form of its own there, which is known when it is read back.
		full.Raw, full.RawText = json.RawMessage(`{"b": 2}`), `{"b": 2}`
		want.Raw, want.RawText = full.Raw, full.RawText
	}
	want.Padded, want.UUIDs, want.Fixed, want.Flags, want.Ignored = "ab", strings.ToLower(full.UUIDs), []byte{1, 2, 0, 0}, "a,c", ""
	first := time.Date(1970, 1, 1, 0, 0, 1, 0, time.UTC)
	least := everything{Price: decimal{"+00"}, Digits: "-0.", UUIDs: "00000000-0000-0000-0000-000000000000", Raw: json.RawMessage("null"),
		RawText: "null", Own: document{}, Mood: "sad", Flags: "", I1: 127, I2: math.MaxInt16, I3: 1<<23 - 1, I4: math.MaxInt32, I8: math.MaxInt64,
		F4: math.MaxFloat32, F8: math.SmallestNonzeroFloat64, Fixed: make([]byte, 4), Bytes: []byte{}, Blob: []byte{}, Long: []byte{},
		Stamp: first, Stamp0: first, Unix: time.Unix(0, 0).UTC(), Second: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
	type set = lockstep.ChangeSet[string, everything]
	one := func(k string, v everything) set {
		return set{Changes: []lockstep.Change[string, everything]{{Key: k, Value: v}}}
	}
	check := func(what string, sets []set) {
		t.Helper()
		out, err := s.Commit(t.Context(), sets)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var keys []string
		for _, set := range sets {
			keys = append(keys, set.Changes[0].Key)
		}
		rows, err := s.Load(t.Context(), keys)
		if err != nil {
			t.Fatal(err)
		}
		for i, set := range sets {
			c := set.Changes[0]
			expected := want
			if reflect.DeepEqual(c.Value, least) {
				expected = least
				expected.Digits, expected.Price.text = "0.00000000000000000000", "0.00000000000000000000"
			}
			prepared, _, err := s.Capabilities().Prepare(c)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(prepared.Value, expected) {
				t.Errorf("%s: %s prepared:\n%+v, want\n%+v", what, c.Key, prepared.Value, expected)
			}
			if out[i].Err != nil {
				t.Fatalf("%s: %s: %v", what, c.Key, out[i].Err)
			}
			if !reflect.DeepEqual(out[i].Rows[0].Value, expected) {
				t.Errorf("%s: %s committed:\n%+v, want\n%+v", what, c.Key, out[i].Rows[0].Value, expected)
			}
			if !reflect.DeepEqual(rows[c.Key], out[i].Rows[0]) {
				t.Errorf("%s: %s read:\n%+v, want\n%+v", what, c.Key, rows[c.Key], out[i].Rows[0])
			}
			if clone, err := s.Capabilities().Clone(rows[c.Key].Value); err != nil || !reflect.DeepEqual(clone, expected) {
				t.Errorf("%s: %s cloned:\n%+v, %v", what, c.Key, clone, err)
			}
		}
	}
	check("inserted", []set{one("a", full), one("b", least)})
	check("replaced", []set{one("a", least), one("b", full), one("c", full)})
	check("replaced together", []set{one("a", full), one("b", least), one("c", least)})
	check("replaced alone", []set{one("a", least)})
	check("replaced again", []set{one("a", full)})
}

// What a column would change, or refuse, is refused before it can stop the statement
// that writes it with others.
func TestColumnValuesThatAreRefused(t *testing.T) {
	s := mapTable[string, everything](t, dbtest.MariaDB(t), mysqlstore.TableOptions{}, everythingSchema(t))
	good := everything{Price: decimal{"0"}, Digits: "0", UUIDs: "00000000-0000-0000-0000-000000000000", Raw: json.RawMessage("null"), RawText: "null",
		Mood: "sad", Stamp: time.Unix(1, 0), Stamp0: time.Unix(1, 0), Unix: time.Unix(0, 0)}
	prepare := func(v everything) error {
		_, _, err := s.Capabilities().Prepare(lockstep.Change[string, everything]{Key: "k", Value: v})
		return err
	}
	if err := prepare(good); err != nil {
		t.Fatal(err)
	}
	bad := func(column string, spoil func(v *everything)) {
		t.Helper()
		v := good
		spoil(&v)
		wantParts(t, prepare(v), lockstep.ErrInvalid, "column "+column)
	}
	bad("signed", func(v *everything) { v.Signed = -1 })
	bad("i3", func(v *everything) { v.I3 = 1 << 23 })
	bad("u3", func(v *everything) { v.U3 = 1 << 24 })
	bad("f8", func(v *everything) { v.F8 = math.NaN() })
	bad("f4", func(v *everything) { v.F4 = float32(math.Inf(1)) })
	bad("short", func(v *everything) { v.Short = "four" })
	bad("padded", func(v *everything) { v.Padded = "sixsix" })
	bad("words", func(v *everything) { v.Words = "\xff" })
	bad("words", func(v *everything) { v.Words = strings.Repeat("x", 1<<16) })
	bad("bytes", func(v *everything) { v.Bytes = make([]byte, 21) })
	bad("fixed", func(v *everything) { v.Fixed = make([]byte, 5) })
	bad("day", func(v *everything) { v.Day = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) })
	bad("micros", func(v *everything) { v.Micros = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) })
	bad("stamp", func(v *everything) { v.Stamp = time.Unix(0, 5e8) })
	bad("unix", func(v *everything) { v.Unix = time.Unix(-1, 0) })
	bad("digits", func(v *everything) { v.Digits = "1,5" })
	bad("digits", func(v *everything) { v.Digits = "nan" })
	bad("price", func(v *everything) { v.Price.text = "0x10" })
	bad("rate", func(v *everything) { v.Rate = math.Inf(1) })
	bad("rate", func(v *everything) { v.Rate = math.NaN() })
	bad("uuids", func(v *everything) { v.UUIDs = strings.Repeat("abc", 13) })
	bad("raw", func(v *everything) { v.Raw = json.RawMessage("{") })
	bad("mood", func(v *everything) { v.Mood = "Sad" })
	bad("mood", func(v *everything) { v.Mood = "" })
	bad("flags", func(v *everything) { v.Flags = "a,d" })

	// What only the server knows is refused by it, and that set alone; nothing is cut.
	for column, spoil := range map[string]func(v *everything){
		"latin": func(v *everything) { v.Latin = "☃" }, "rate": func(v *everything) { v.Rate = 1000 },
		"digits": func(v *everything) { v.Digits = "123456789012345678901" }, "count": func(v *everything) { v.Count = 1e18 },
		"stamp": func(v *everything) { v.Stamp = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		v := good
		spoil(&v)
		type set = lockstep.ChangeSet[string, everything]
		for _, there := range []bool{false, true} {
			if there {
				store1(t, s, column, good)
				store1(t, s, "another", good)
			}
			out, err := s.Commit(t.Context(), []set{
				{Changes: []lockstep.Change[string, everything]{{Key: column, Value: v}}},
				{Changes: []lockstep.Change[string, everything]{{Key: "another", Value: good}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if wantParts(t, out[0].Err, lockstep.ErrInvalid, column); out[0].Err == nil {
				t.Errorf("%s, there=%t: %+v", column, there, out[0].Rows[0].Value)
			}
			if out[1].Err != nil || load1(t, s, column).Exists != there {
				t.Errorf("%s: %v, %+v", column, out[1].Err, load1(t, s, column))
			}
		}
	}
}

// What other programs have written, and no field can hold, is an error that names
// the row and the column.
func TestColumnsThatCannotBeRead(t *testing.T) {
	type V struct {
		Day   time.Time `db:"day"`
		At    time.Time `db:"at"`
		Own   moment    `db:"own"`
		N     uint8     `db:"n"`
		Big   int64     `db:"big"`
		Words string    `db:"words"`
		Yes   bool      `db:"yes"`
		F     int8      `db:"f"`
		Four  [4]byte   `db:"four"`
	}
	dsn := dbtest.MariaDB(t)
	s := mapTable[int, V](t, dsn, mysqlstore.TableOptions{}, `CREATE TABLE t (id INT PRIMARY KEY, day DATE DEFAULT '2000-01-01', at DATETIME DEFAULT '2000-01-01',
		own DATETIME DEFAULT '2000-01-01', n INT DEFAULT 0, big BIGINT UNSIGNED DEFAULT 0, words TEXT DEFAULT (''), yes BOOLEAN DEFAULT 0, f DECIMAL(4) DEFAULT 0, four VARBINARY(9) DEFAULT 'four')`)
	pool := connect(t, dsn+"?sql_mode=%27ALLOW_INVALID_DATES%27")
	for column, value := range map[string]string{"day": "'0000-00-00'", "at": "'2021-02-31'", "own": "'0000-00-00 00:00:00'", "n": "256", "big": "9223372036854775808", "words": "NULL",
		"yes": "2", "f": "200", "four": "'three'"} {
		execute(t, pool, "DELETE FROM t")
		execute(t, pool, "INSERT INTO t (id, "+column+") VALUES (7, "+value+")")
		_, err := s.Load(t.Context(), []int{7})
		wantParts(t, err, lockstep.ErrInvalid, "t: key 7", "column "+column)
		if o := change1(t, s, lockstep.Change[int, V]{Key: 7, Delete: true}); o.Err != nil || !o.Existed[0] {
			t.Errorf("%s: it is deleted: %+v", column, o)
		}
	}
}

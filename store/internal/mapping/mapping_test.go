package mapping

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
)

// kind is a column of a database that knows four types, and cuts texts at eight
// bytes when it is asked for what it would hold.
type kind string

func (k kind) Key(t reflect.Type) (Converter, error) {
	c, err := k.Value(t, dbtag.Tag{})
	if err == nil && t.Kind() == reflect.Float64 {
		c = FloatKey(t, c)
	}
	return c, err
}

func (k kind) Value(t reflect.Type, tag dbtag.Tag) (Converter, error) {
	switch inner := Nullable(t); {
	case tag.JSON && k == "text":
		return JSON("text", t)
	case inner != nil:
		c, err := k.Value(inner, tag)
		if err != nil {
			return c, err
		}
		return Null(t, c)
	case ConvertsItself(t):
		return SelfConverting("", func(x driver.Value) (any, error) { return x, nil }), nil
	case t.Kind() == reflect.String && k == "text":
		c := Text("text")
		bind := c.Bind
		c.Bind = func(v reflect.Value) (any, error) {
			x, err := bind(v)
			s, _ := x.(string)
			return s[:min(len(s), 8)], err
		}
		return c, nil
	case t.Kind() == reflect.Slice && k == "blob":
		return Bytes("blob", false), nil
	case (t.Kind() == reflect.Int64 || t.Kind() == reflect.Int) && k == "small":
		return Int("small", "a small column", 16), nil
	case (t.Kind() == reflect.Int64 || t.Kind() == reflect.Int) && k == "int":
		return Int("int", "an int column", 64), nil
	case t.Kind() == reflect.Uint8 && k == "small":
		return Uint("small", "a small column", 8), nil
	case t.Kind() == reflect.Float64 && k == "real":
		return Float("real"), nil
	}
	return Converter{}, fmt.Errorf("its %s column is not for a %v", string(k), t)
}

func (k kind) Version() error {
	if k != "int" {
		return fmt.Errorf("a version needs an int column")
	}
	return nil
}

func (k kind) Text() (TextForm, error) {
	switch k {
	case "text":
		return TextString("text"), nil
	case "int", "small":
		return TextInt(), nil
	}
	return TextForm{}, fmt.Errorf("its %s column has no text", string(k))
}

func newDialect() *Dialect {
	return &Dialect{Name: "fake", MaxKeyBytes: 10, MaxColumnBytes: 20}
}

func column(name string, k kind, place int) Column {
	return Column{Name: name, Type: k, KeyPlace: place}
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

func fitted[K comparable, V any](t *testing.T, table Table, opts Options) *Mapping[K, V] {
	t.Helper()
	d := newDialect()
	m, mistakes := New[K, V](d, table, opts)
	if err := d.Misfit(table.Name, mistakes); err != nil {
		t.Fatal(err)
	}
	return m
}

func misfit[K comparable, V any](table Table, opts Options) error {
	d := newDialect()
	_, mistakes := New[K, V](d, table, opts)
	return d.Misfit(table.Name, mistakes)
}

type pair struct {
	Tenant string `db:"tenant"`
	ID     int    `db:"id"`
}

type row struct {
	ID      int     `db:"id"`
	Name    string  `db:"name"`
	Note    *string `db:"note"`
	Made    int     `db:"made,readonly"`
	Total   int     `db:"total"`
	Version int64   `db:"version,version"`
}

// The key's columns are not in the table's order, and total is generated.
var table = Table{Name: "rows", Columns: []Column{
	column("id", "small", 2), column("name", "text", 0), column("tenant", "text", 1), column("note", "text", 0),
	{Name: "made", Type: kind("int"), NotNull: true, HasDefault: true},
	{Name: "total", Type: kind("int"), NotNull: true, Generated: true},
	{Name: "version", Type: kind("int"), NotNull: true},
	{Name: "other", Type: kind("money"), NotNull: true, HasDefault: true},
}}

func TestARowIsBoundAndScanned(t *testing.T) {
	m := fitted[pair, row](t, table, Options{})
	key, err := m.BindKey(pair{"a", 7})
	if err != nil || !reflect.DeepEqual(key, []any{"a", int64(7)}) {
		t.Errorf("the key is %v, %v", key, err)
	}
	if k, err := m.ScanKey([]driver.Value{"a", int64(7)}); k != (pair{"a", 7}) || err != nil {
		t.Errorf("the key is %v, %v", k, err)
	}
	var columns, written []string
	for i, f := range m.Value {
		columns = append(columns, f.Column)
		if f.Written {
			written = append(written, f.Column)
		}
		if i == m.Version && f.Column != "version" {
			t.Errorf("the version is %s", f.Column)
		}
	}
	if got := fmt.Sprint(columns, written); got != "[id name note made total version] [name note]" {
		t.Error(got)
	}
	r, err := m.Row(pair{"a", 7}, []driver.Value{int64(7), "n", nil, int64(1), int64(2), int64(9)})
	if err != nil || r.Value != (row{ID: 7, Name: "n", Made: 1, Total: 2, Version: 9}) || r.Version != 9 || !r.Exists {
		t.Errorf("%+v, %v", r, err)
	}
	note := "x"
	v := row{ID: 7, Name: "n", Note: &note, Version: 9}
	clone, err := m.Clone(v)
	if err != nil || clone.Note == v.Note || !reflect.DeepEqual(clone, v) {
		t.Errorf("%+v, %v", clone, err)
	}
}

// The version of a row from before the column was there is 0; one that is no number
// makes the row unreadable.
func TestTheVersionOfARow(t *testing.T) {
	m := fitted[pair, row](t, table, Options{})
	columns := []driver.Value{int64(7), "n", nil, int64(1), int64(2), nil}
	if r, err := m.Row(pair{}, columns); err != nil || r.Version != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	type bare struct {
		Name string `db:"name"`
	}
	fieldless := fitted[pair, bare](t, table, Options{VersionColumn: "version"})
	if r, err := fieldless.Row(pair{}, []driver.Value{"n", int64(4)}); err != nil || r.Version != 4 {
		t.Errorf("%+v, %v", r, err)
	}
	if bound, err := fieldless.BindValue(bare{"n"}); err != nil || !reflect.DeepEqual(bound, []any{"n", nil}) {
		t.Errorf("%v, %v", bound, err)
	}
	_, err := fieldless.Row(pair{"a", 1}, []driver.Value{"n", "four"})
	wantError(t, err, keytext.ErrDecode, "table rows", "key {a 1}", "column version", "four")
	if none := fitted[pair, bare](t, table, Options{ReadOnly: true}); none.Versioned() || none.VersionOf([]driver.Value{"n"}) != 0 {
		t.Error("there is a version")
	}
}

func TestEverythingThatDoesNotFitIsNamedAtOnce(t *testing.T) {
	type wrong struct {
		Name  int64   `db:"name"`
		Note  string  `db:"note,nonsense"`
		Lost  string  `db:"lost"`
		Other string  `db:"other"`
		V     int     `db:"made,version"`
		Total float64 `db:"total"`
		PP    **int   `db:"total"`
	}
	err := misfit[string, wrong](table, Options{VersionColumn: "version"})
	wantError(t, err, lockstep.ErrInvalid, "fake: table rows does not fit", "2 columns", "wrong.Name: column name: its text column",
		"nonsense", "wrong.Lost: there is no column lost", "its money column", "wrong.Total: column total", "both mapped to column total",
		"pointer to a pointer", "TableOptions.VersionColumn is version", "column version is NOT NULL without a default, and no field")

	type half struct {
		Tenant string `db:"tenant"`
		Extra  string `db:"name"`
		Plain  int
	}
	wantError(t, misfit[half, row](table, Options{}), lockstep.ErrInvalid,
		"half.Plain is part of the key and not mapped", "key column id has no field", "half.Extra: column name is not in the primary key")
	type optioned struct {
		Tenant string `db:"tenant,json"`
		ID     string `db:"id"`
	}
	wantError(t, misfit[optioned, row](table, Options{}), lockstep.ErrInvalid, "optioned.Tenant: a key takes no options", "key column id: its small column")
	wantError(t, misfit[time.Time, row](Table{Columns: []Column{column("id", "int", 1)}}, Options{}), lockstep.ErrInvalid, "key column id", "time.Time")
	wantError(t, misfit[string, row](Table{Name: "x"}, Options{}), lockstep.ErrInvalid, "no primary key")

	generated := Table{Columns: []Column{{Name: "id", Type: kind("int"), KeyPlace: 1, Generated: true}}}
	wantError(t, misfit[int, struct {
		ID int `db:"id"`
	}](generated, Options{}), lockstep.ErrInvalid, "key column id", "generated")

	if err := misfit[pair, struct{ Name string }](table, Options{}); err == nil || !strings.HasSuffix(err.Error(), "no field of struct has a db tag") {
		t.Errorf("what follows from there being no tag is told, too: %v", err)
	}

	type versions struct {
		V int32 `db:"version,version"`
	}
	wantError(t, misfit[pair, versions](table, Options{}), lockstep.ErrInvalid, "version")
	wantError(t, misfit[pair, struct {
		V int `db:"id,version"`
	}](table, Options{}), lockstep.ErrInvalid, "column id is in the primary key")
	wantError(t, misfit[pair, struct {
		V int `db:"total,version"`
	}](table, Options{}), lockstep.ErrInvalid, "a version cannot be a generated column")
	wantError(t, misfit[pair, row](table, Options{VersionColumn: "none"}), lockstep.ErrInvalid, "no column none")
	type readOnly struct {
		V int `db:"version,readonly"`
	}
	wantError(t, misfit[pair, readOnly](table, Options{}), lockstep.ErrInvalid, "column version is NOT NULL without a default, and readOnly.V is read only")
	if err := misfit[pair, readOnly](table, Options{ReadOnly: true}); err != nil {
		t.Errorf("a table that is only read: %v", err)
	}
	wantError(t, misfit[pair, struct {
		N string `db:"name"`
	}](table, Options{VersionColumn: "name"}), lockstep.ErrInvalid, "mapped to a field already")
}

// Whether two names are one column is the database's to say.
func TestNamesAreFoldedAsTheDatabaseDoes(t *testing.T) {
	type V struct {
		Small string `db:"name"`
		Large string `db:"NAME"`
	}
	table := Table{Name: "t", Columns: []Column{column("ID", "int", 1), column("NAME", "text", 0), column("name", "text", 0)}}
	m := fitted[int, V](t, table, Options{})
	if m.Value[0].Column != "name" || m.Value[1].Column != "NAME" {
		t.Errorf("%+v", m.Value)
	}
	type K struct {
		ID int `db:"id"`
	}
	wantError(t, misfit[K, V](table, Options{}), lockstep.ErrInvalid, "key column ID has no field", "column id is not in the primary key")
	d := newDialect()
	d.Fold = strings.ToLower
	_, mistakes := New[K, V](d, table, Options{})
	wantError(t, d.Misfit("t", mistakes), lockstep.ErrInvalid, "V.Small and V.Large are both mapped")
	if len(mistakes) != 1 {
		t.Errorf("%v", mistakes)
	}
}

func TestPrepareShowsWhatLoadWouldReturn(t *testing.T) {
	m := fitted[pair, row](t, table, Options{})
	c, size, err := m.Prepare(lockstep.Change[pair, row]{Key: pair{"a", 7}, Value: row{Name: "longer than eight", Made: 1, Total: 2, Version: 3}})
	if err != nil || c.Value != (row{ID: 7, Name: "longer t"}) || size != 5*8+8 {
		t.Errorf("%+v, %d, %v", c.Value, size, err)
	}
	p := c.Prepared.(*Prepared)
	if !reflect.DeepEqual(p.Key, []any{"a", int64(7)}) || p.Columns[0] != int64(7) || p.Columns[1] != "longer t" {
		t.Errorf("%+v", p)
	}
	if c, _, err := m.Prepare(lockstep.Change[pair, row]{Key: pair{"a", 7}, Delete: true, Value: row{Name: "x"}}); err != nil || c.Value != (row{}) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, _, err := m.Prepare(lockstep.Change[pair, row]{Key: pair{"a", 7}, Value: row{ID: 7}}); err != nil {
		t.Error(err)
	}
	refuse := func(c lockstep.Change[pair, row], is error, parts ...string) {
		t.Helper()
		_, _, err := m.Prepare(c)
		wantError(t, err, is, append(parts, "fake")...)
	}
	refuse(lockstep.Change[pair, row]{Key: pair{"a", 7}, Value: row{ID: 8}}, lockstep.ErrInvalid, "key {a 7}", "row.ID is 8")
	type small struct {
		N int `db:"n"`
	}
	_, _, err = fitted[int, small](t, Table{Name: "t", Columns: []Column{column("id", "int", 1), column("n", "small", 0)}}, Options{}).
		Prepare(lockstep.Change[int, small]{Key: 7, Value: small{40000}})
	if err == nil || !strings.HasPrefix(err.Error(), "lockstep: invalid: fake: key 7: small.N: column n: ") {
		t.Errorf("%v", err)
	}
	refuse(lockstep.Change[pair, row]{Key: pair{"a", 40000}}, lockstep.ErrInvalid, "key {a 40000}", "column id", "a small column")
	refuse(lockstep.Change[pair, row]{Key: pair{"a\n", -40000}}, lockstep.ErrInvalid, `"{a\n -40000}"`, "less than")
	refuse(lockstep.Change[pair, row]{Lifetime: 1}, lockstep.ErrUnsupported, "lifetime")
	bare := fitted[pair, struct {
		Name string `db:"name"`
	}](t, table, Options{ReadOnly: true})
	_, _, err = bare.Prepare(lockstep.Change[pair, struct {
		Name string `db:"name"`
	}]{})
	wantError(t, err, lockstep.ErrUnsupported, "ReadOnly")
}

// A value that somebody makes for an insertion has zeros where the database is to have the
// word, and a column may not be able to hold a zero.
func TestAFieldThatIsOnlyReadMayBeWhatItsColumnCannotHold(t *testing.T) {
	type V struct {
		Name  string `db:"name"`
		Made  int    `db:"made,readonly"`
		Total int    `db:"total"`
	}
	m := fitted[int, V](t, Table{Name: "t", Columns: []Column{column("id", "int", 1), column("name", "text", 0), column("made", "small", 0),
		{Name: "total", Type: kind("small"), Generated: true}}}, Options{})
	c, _, err := m.Prepare(lockstep.Change[int, V]{Value: V{Name: "a", Made: 40000, Total: 40000}})
	if err != nil || c.Value != (V{Name: "a"}) {
		t.Errorf("%+v, %v", c.Value, err)
	}
}

func TestLimits(t *testing.T) {
	type V struct {
		B []byte `db:"b"`
	}
	m := fitted[int, V](t, Table{Name: "t", Columns: []Column{column("id", "int", 1), column("b", "blob", 0)}}, Options{})
	_, _, err := m.Prepare(lockstep.Change[int, V]{Value: V{make([]byte, 21)}})
	wantError(t, err, lockstep.ErrTooLarge, "V.B", "21 bytes")
	_, _, err = m.Prepare(lockstep.Change[int, V]{Expect: lockstep.Expect{Kind: lockstep.ExpectAbsent}})
	wantError(t, err, lockstep.ErrUnsupported, "no version column")
	m.d.MaxKeyBytes = 7
	_, err = m.BindKey(1)
	wantError(t, err, lockstep.ErrTooLarge, "column id", "limit is 7")
}

// touchy converts itself, and panics.
type touchy struct{ s string }

func (x touchy) Value() (driver.Value, error) {
	if x.s == "" {
		panic("empty")
	}
	return x.s, nil
}
func (x *touchy) Scan(src any) error { x.s = src.(string); return nil }

func TestAPanicOfAFieldIsAnErrorOfItsRow(t *testing.T) {
	type V struct {
		T touchy `db:"t"`
	}
	m := fitted[int, V](t, Table{Name: "t", Columns: []Column{column("id", "int", 1), column("t", "text", 0)}}, Options{})
	_, err := m.BindValue(V{})
	wantError(t, err, lockstep.ErrInvalid, "V.T: column t: makes its type panic: empty")
	_, err = m.Row(1, []driver.Value{nil})
	wantError(t, err, keytext.ErrDecode, "key 1", "column t makes its type panic")
	if r, err := m.Row(1, []driver.Value{"x"}); err != nil || r.Value.T.s != "x" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestARowIsComparedByWhatItsFieldsHold(t *testing.T) {
	type V struct {
		F float64        `db:"f"`
		J map[string]int `db:"j,json"`
	}
	m := fitted[int, V](t, Table{Name: "t", Columns: []Column{column("id", "int", 1), column("f", "real", 0), column("j", "text", 0)}}, Options{})
	check := lockstep.Check[int]{Key: 1, Value: V{math.NaN(), map[string]int{"a": 1, "b": 2}}}
	if key, err := m.TakeCheck(check); err != nil || !reflect.DeepEqual(key, []any{int64(1)}) {
		t.Errorf("%v, %v", key, err)
	}
	for want, columns := range map[bool][]driver.Value{
		true:  {math.NaN(), `{"b": 2, "a":1}`},
		false: {math.NaN(), `{"b": 2}`},
	} {
		if same, err := m.Unchanged(check, columns); same != want || err != nil {
			t.Errorf("%v: %t, %v", columns, same, err)
		}
	}
	if same, err := m.Unchanged(check, []driver.Value{"no number", nil}); same || err != nil {
		t.Errorf("an unreadable row is unchanged: %v", err)
	}
	_, err := m.TakeCheck(lockstep.Check[int]{Key: 1, Value: "another type"})
	wantError(t, err, lockstep.ErrInvalid, "key 1", "string")
	if _, err := m.TakeCheck(lockstep.Check[int]{Key: 1, Absent: true}); err != nil {
		t.Error(err)
	}
	versioned := fitted[pair, row](t, table, Options{})
	columns := []driver.Value{int64(7), "n", nil, int64(1), int64(2), int64(9)}
	for version, want := range map[lockstep.Version]bool{9: true, 8: false} {
		if same, err := versioned.Unchanged(lockstep.Check[pair]{Version: version}, columns); same != want || err != nil {
			t.Errorf("version %d: %t, %v", version, same, err)
		}
	}
}

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		a, b any
		want bool
	}{
		{nil, nil, true}, {nil, []byte{}, false}, {[]byte("a"), []byte("a"), true}, {[]byte("a"), "a", false},
		{int64(1), float64(1), false}, {math.NaN(), math.NaN(), true}, {math.NaN(), 1.0, false}, {"a", "a", true},
	} {
		if got := Equal(c.a, c.b); got != c.want {
			t.Errorf("%#v and %#v: %t", c.a, c.b, got)
		}
	}
	if EqualRows(nil, []driver.Value{}) || !EqualRows(nil, nil) || !EqualRows([]driver.Value{nil, "a"}, []driver.Value{nil, "a"}) {
		t.Error("no row is equal to a row, or not to itself")
	}
	seen := map[string][]any{}
	for _, key := range [][]any{{"a,b"}, {"a", "b"}, {"a,", "b"}, {int64(1)}, {[]byte("1")}, {int64(1), "a"}, {int64(1), `a",`}} {
		if other, ok := seen[KeyText(key)]; ok {
			t.Errorf("%#v and %#v have one text", key, other)
		}
		seen[KeyText(key)] = key
	}
}

func TestKeysOfFloatingPoint(t *testing.T) {
	type V struct {
		S string `db:"s"`
	}
	m := fitted[float64, V](t, Table{Name: "t", Columns: []Column{column("id", "real", 1), column("s", "text", 0)}}, Options{})
	key, err := m.BindKey(math.Copysign(0, -1))
	if err != nil || math.Signbit(key[0].(float64)) {
		t.Errorf("-0 is %v, %v", key, err)
	}
	_, err = m.BindKey(math.NaN())
	wantError(t, err, lockstep.ErrInvalid, "NaN", "column id")
	c := FloatKey(reflect.TypeFor[float32](), Float("real"))
	var f float32
	if err := c.Scan(0.1, reflect.ValueOf(&f).Elem()); err == nil {
		t.Error("0.1 was rounded to a float32")
	}
}

func TestIntegersThatDoNotFitAreRefused(t *testing.T) {
	for _, n := range []int64{math.MinInt64, -1 << 15, 0, 1<<15 - 1, math.MaxInt64} {
		_, err := Int("", "it", 16).Bind(reflect.ValueOf(n))
		if fits := n == int64(int16(n)); fits != (err == nil) {
			t.Errorf("%d in 16 bits: %v", n, err)
		}
		if _, err := Int("", "it", 64).Bind(reflect.ValueOf(n)); err != nil {
			t.Error(err)
		}
	}
	for n, fits := range map[uint64]bool{0: true, math.MaxInt16: true, math.MaxInt16 + 1: false, math.MaxUint64: false} {
		if _, err := Uint("", "it", 16).Bind(reflect.ValueOf(n)); fits != (err == nil) {
			t.Errorf("%d in 16 bits: %v", n, err)
		}
	}
	var small int8
	var positive uint16
	for _, dst := range []any{&small, &positive} {
		conv := Int("", "it", 64)
		if dst == any(&positive) {
			conv = Uint("", "it", 64)
		}
		for _, src := range []driver.Value{int64(-70000), int64(70000), "1", nil} {
			if err := conv.Scan(src, reflect.ValueOf(dst).Elem()); err == nil {
				t.Errorf("%v fits a %T", src, dst)
			}
		}
	}
}

func TestNullsOfEveryKind(t *testing.T) {
	type V struct {
		P *string          `db:"p"`
		N sql.Null[string] `db:"n"`
		S sql.NullString   `db:"s"`
		B []byte           `db:"b"`
		J []int            `db:"j,json"`
	}
	m := fitted[int, V](t, Table{Name: "t", Columns: []Column{column("id", "int", 1), column("p", "text", 0), column("n", "text", 0),
		column("s", "text", 0), column("b", "blob", 0), column("j", "text", 0)}}, Options{})
	bound, err := m.BindValue(V{})
	if err != nil || !reflect.DeepEqual(bound, []any{nil, nil, nil, nil, nil}) {
		t.Errorf("%v, %v", bound, err)
	}
	x := "x"
	full := V{&x, sql.Null[string]{V: x, Valid: true}, sql.NullString{String: x, Valid: true}, []byte{}, []int{}}
	for _, v := range []V{{}, full} {
		if clone, err := m.Clone(v); err != nil || !reflect.DeepEqual(clone, v) {
			t.Errorf("%+v, %v", clone, err)
		}
	}
	_, err = m.ScanValue([]driver.Value{nil, nil, nil, nil, "{"})
	wantError(t, err, keytext.ErrDecode, "column j")
}

func TestTimesAsIntegersAreRoundedDown(t *testing.T) {
	for unix, want := range map[int64]int64{1: -2, 1e3: -1500, 1e6: -1500000, 1e9: -1499999999} {
		c := UnixTime("", "an integer", 64, unix)
		at := time.Unix(-2, 500000001)
		got, err := c.Bind(reflect.ValueOf(at))
		var back time.Time
		if err == nil {
			err = c.Scan(got, reflect.ValueOf(&back).Elem())
		}
		if got != want || err != nil || !back.Equal(at.Truncate(time.Second/time.Duration(unix))) && unix != 1 {
			t.Errorf("%d to a second: %v is %v again, %v", unix, got, back, err)
		}
	}
	for _, c := range []Converter{UnixTime("", "an integer", 32, 1), UnixTime("", "an integer", 64, 1e9)} {
		if got, err := c.Bind(reflect.ValueOf(time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC))); err == nil {
			t.Errorf("the year 2500 is %v", got)
		}
	}
}

func TestConditionsThatAreDecided(t *testing.T) {
	m := fitted[pair, row](t, table, Options{})
	here, gone := pair{"a", 1}, pair{"b", 2}
	columns := func(k pair) []driver.Value {
		if k == here {
			return []driver.Value{int64(1), "n", nil, int64(1), int64(2), int64(9)}
		}
		return nil
	}
	type change = lockstep.Change[pair, row]
	type check = lockstep.Check[pair]
	absent, version := lockstep.Expect{Kind: lockstep.ExpectAbsent}, lockstep.Expect{Kind: lockstep.ExpectVersion, Version: 9}
	for i, c := range []struct {
		changes []change
		checks  []check
		exists  bool // in the conflict
		holds   bool
	}{
		{[]change{{Key: here}, {Key: gone, Delete: true}}, nil, false, true},
		{[]change{{Key: here, Expect: version}, {Key: gone, Expect: absent}}, []check{{Key: here, Version: 9}, {Key: gone, Absent: true}}, false, true},
		{[]change{{Key: here, Expect: absent}}, nil, true, false},
		{[]change{{Key: here, Expect: lockstep.Expect{Kind: lockstep.ExpectVersion, Version: 8}}}, nil, true, false},
		{[]change{{Key: gone, Expect: version}}, nil, false, false},
		{nil, []check{{Key: here, Absent: true}}, true, false},
		{nil, []check{{Key: here, Version: 8}}, true, false},
		{nil, []check{{Key: gone, Version: 9}}, false, false},
	} {
		err := m.Admits(c.changes, c.checks, columns)
		var conflict *lockstep.ConflictError
		switch {
		case c.holds && err != nil:
			t.Errorf("%d: %v", i, err)
		case !c.holds && (!errors.As(err, &conflict) || conflict.Exists != c.exists || c.exists && conflict.Version != 9):
			t.Errorf("%d: %+v, want a conflict", i, err)
		}
	}
}

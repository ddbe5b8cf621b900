package mapping

import (
	"database/sql/driver"
	"reflect"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/rows"
)

var textTable = Table{Name: "t", Columns: []Column{
	column("id", "int", 2), column("tenant", "text", 1), {Name: "name", Type: kind("text"), NotNull: true}, {Name: "kind", Type: kind("text"), NotNull: true, HasDefault: true, Default: "'plain'"},
	{Name: "total", Type: kind("int"), Generated: true}, {Name: "version", Type: kind("int"), NotNull: true}, column("note", "text", 0),
}}

func TestARowOfTextGoesThroughItsColumns(t *testing.T) {
	m := fitted[rows.Key, rows.Row](t, textTable, Options{})
	key, err := m.BindKey(`a\:b:7`)
	if err != nil || !reflect.DeepEqual(key, []any{"a:b", int64(7)}) {
		t.Errorf("%v, %v", key, err)
	}
	if k, err := m.ScanKey([]driver.Value{"a:b", int64(7)}); err != nil || k != `a\:b:7` {
		t.Errorf("%q, %v", k, err)
	}
	row, err := m.Row("a:7", []driver.Value{int64(7), "a", "Ann", "k", int64(9), int64(5), nil})
	if err != nil || row.Value != "h2:id,1:7,6:tenant,1:a,4:name,3:Ann,4:kind,1:k,5:total,1:9,7:version,1:5," || row.Version != 5 {
		t.Errorf("%+v, %v", row, err)
	}
	// What is read can be written; what is only read has no say in it.
	c, _, err := m.Prepare(lockstep.Change[rows.Key, rows.Row]{Key: "a:7", Value: row.Value})
	if err != nil || !reflect.DeepEqual(c.Prepared.(*Prepared).Columns, []any{int64(7), "a", "Ann", "k", nil, nil, nil}) || c.Value != "h2:id,1:7,6:tenant,1:a,4:name,3:Ann,4:kind,1:k," {
		t.Errorf("%+v, %q, %v", c.Prepared, c.Value, err)
	}
	for _, col := range m.Columns() {
		want := map[string]rows.Column{
			"id": {Name: "id", KeyPlace: 2, Number: rows.Whole, Takes: "a whole number"}, "tenant": {Name: "tenant", KeyPlace: 1, Takes: "text"}, "name": {Name: "name", NotNull: true, Takes: "text"}, "kind": {Name: "kind", Takes: "text"},
			"total": {Name: "total", Fixed: true, Number: rows.Whole, Takes: "a whole number"}, "version": {Name: "version", Fixed: true, Number: rows.Whole, Takes: "a whole number"}, "note": {Name: "note", Takes: "text"},
		}[col.Name]
		if col != want {
			t.Errorf("%+v, want %+v", col, want)
		}
	}
	if fitted[pair, justTwo](t, table, Options{ReadOnly: true}).Columns() != nil {
		t.Error("a struct's columns are told")
	}
}

type justTwo = struct {
	Name  string `db:"name"`
	Total int    `db:"total"`
}

// TestWhichColumnIsTheVersion of a row that is text.
func TestWhichColumnIsTheVersion(t *testing.T) {
	with := func(c Column) Table {
		return Table{Name: "t", Columns: []Column{column("id", "int", 1), c, {Name: "rev", Type: kind("int"), NotNull: true}}}
	}
	good := Column{Name: "version", Type: kind("int"), NotNull: true}
	for _, c := range []struct {
		table  Table
		option string
		want   string
	}{
		{with(good), "", "version"},
		{with(good), "rev", "rev"},
		{with(good), rows.NoVersion, ""},
		{with(Column{Name: "version", Type: kind("int")}), "", ""}, // it may be NULL
		{with(Column{Name: "version", Type: kind("text"), NotNull: true}), "", ""},
		{with(Column{Name: "version", Type: kind("int"), NotNull: true, Generated: true}), "", ""},
		{with(Column{Name: "version2", Type: kind("int"), NotNull: true}), "", ""},
	} {
		m := fitted[rows.Key, rows.Row](t, c.table, Options{VersionColumn: c.option})
		got := ""
		if m.Versioned() {
			got = m.Value[m.Version].Column
		}
		if got != c.want {
			t.Errorf("%+v, %q: %q, want %q", c.table.Columns[1], c.option, got, c.want)
		}
	}
	for option, want := range map[string]string{"nosuch": "no column nosuch", "id": "in the primary key", "name": "a version needs"} {
		table := with(Column{Name: "name", Type: kind("text")})
		if err := misfit[rows.Key, rows.Row](table, Options{VersionColumn: option}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", option, err, want)
		}
	}
}

// TestADefaultDoesNotDisproveAnInsertion: what a lost commit has made of a column that was
// left out, nobody has sent.
func TestADefaultDoesNotDisproveAnInsertion(t *testing.T) {
	m := fitted[rows.Key, rows.Row](t, textTable, Options{VersionColumn: rows.NoVersion, ReadOnly: true})
	c, _, err := fitted[rows.Key, rows.Row](t, textTable, Options{}).Prepare(lockstep.Change[rows.Key, rows.Row]{Key: "a:7", Value: rows.Make(rows.Field{Name: "name", Text: "Ann"})})
	if err != nil {
		t.Fatal(err)
	}
	w := &Write{Key: []any{"a", int64(7)}, Columns: c.Prepared.(*Prepared).Columns}
	w.Columns[5] = int64(3) // which is an ordinary column here
	row := func(name, kind string) []driver.Value {
		return []driver.Value{"a", int64(7), int64(7), "a", name, kind, int64(0), int64(3), nil}
	}
	for _, c := range []struct {
		before, now   []driver.Value
		applied, told bool
	}{
		{nil, row("Ann", "plain"), true, true},
		{nil, row("Bob", "plain"), false, false},
		{nil, nil, false, true},
		{row("Bob", "plain"), row("Ann", "plain"), false, false}, // an update would have made it NULL
	} {
		if applied, told := m.Tells(w, c.before, c.now); applied != c.applied || told != c.told {
			t.Errorf("%v, %v: %t, %t", c.before, c.now, applied, told)
		}
	}
}

// FuzzTextForms: the text of a value that a text is read as is read as the same.
func FuzzTextForms(f *testing.F) {
	forms := []TextForm{TextInt(), TextUint(), TextFloat(64, true), TextFloat(32, false), TextBool(), TextString("text"), TextBytes(), TextTime(), TextDate(), TextDecimal(2, true), TextDecimal(0, true), TextDecimal(0, false)}
	for _, text := range []string{"", "0", "-0", "1", "-1", "007", "1.5", "1e3", "1e400", "NaN", "Infinity", "-Infinity", "true", "F", "18446744073709551615", "2026-01-02", "2026-01-02T15:04:05.123456789+02:00", "9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59", "12.50", ".5", "5.", "\x00"} {
		for i := range forms {
			f.Add(text, i)
		}
	}
	f.Fuzz(func(t *testing.T, text string, i int) {
		if i < 0 || i >= len(forms) {
			return
		}
		form := forms[i]
		v, again := reflect.New(form.Type).Elem(), reflect.New(form.Type).Elem()
		if !form.parse(text, v) {
			return
		}
		told := form.format(v)
		if !form.parse(told, again) || form.format(again) != told {
			t.Fatalf("%s: %q is read as %q, which is read as %q", form.Takes, text, told, form.format(again))
		}
	})
}

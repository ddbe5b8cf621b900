package dbtag

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Tag{
		"name":             {Column: "name"},
		"-":                {Skip: true},
		"Full Name":        {Column: "Full Name"},
		"v,version":        {Column: "v", Version: true},
		"c,readonly,json":  {Column: "c", ReadOnly: true, JSON: true},
		"at,unixmicro":     {Column: "at", Unix: 1e6},
		"at,unix,readonly": {Column: "at", Unix: 1, ReadOnly: true},
		"日付":               {Column: "日付"},
		"at,unixnano":      {Column: "at", Unix: 1e9},
		"at,unixmilli":     {Column: "at", Unix: 1e3},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                 "names no column",
		",json":            "names no column",
		"-,json":           "maps nothing",
		" name":            "spaces",
		"a,":               `unknown option ""`,
		"a,jsno":           `unknown option "jsno"; there are version, readonly, json, unix, unixmilli, unixmicro, unixnano`,
		"a,key":            "the key needs none",
		"a,json,json":      "twice",
		"a,unix,unixmilli": "two units",
		"a,version,json":   "no other option",
		"a,json,unix":      "exclude",
		"a\x00":            "no possible column",
		"\xff":             "no possible column",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want an error with %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "-", "a", "a,version", "a,json,readonly", "a,unix", "a,,", "-,", "a,unixnano,json"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tag, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(tag.String())
		if err != nil || again != tag {
			t.Fatalf("Parse(%q) = %+v, whose text %q parses as %+v, %v", s, tag, tag.String(), again, err)
		}
	})
}

type base struct {
	ID int64 `db:"id"`
}

type user struct {
	base
	Name    string `db:"name"`
	Ignored string
	Dropped string `db:"-"`
	Version int64  `db:"version,version"`
}

func TestFields(t *testing.T) {
	fields, mistakes := Fields(reflect.TypeFor[user](), Fold)
	if len(mistakes) > 0 {
		t.Fatal(errors.Join(mistakes...))
	}
	var got []string
	for _, f := range fields {
		got = append(got, f.Name+"="+f.Column)
	}
	if s := strings.Join(got, " "); s != "user.base.ID=id user.Name=name user.Version=version" {
		t.Fatal(s)
	}
	v := reflect.ValueOf(user{base: base{ID: 7}})
	if id := v.FieldByIndex(fields[0].Index).Int(); id != 7 {
		t.Fatalf("the index leads to %d", id)
	}
}

func TestFieldsFindsEveryMistake(t *testing.T) {
	type wrong struct {
		*base
		A int   `db:"a"`
		B int   `db:"A"`
		C int   `db:"c,nonsense"`
		d int   `db:"d"`
		E int64 `db:"e,version"`
		F int64 `db:"f,version"`
	}
	_ = wrong{}.d // it is there for its tag
	_, mistakes := Fields(reflect.TypeFor[wrong](), Fold)
	all := errors.Join(mistakes...).Error()
	for _, want := range []string{
		"wrong.base: an embedded pointer", "wrong.A and wrong.B are both mapped to column A",
		`wrong.C: the tag "c,nonsense": unknown option "nonsense"`, "wrong.d has a db tag and is not exported",
		"wrong.E and wrong.F are both the version",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the mistakes do not name %q:\n%s", want, all)
		}
	}
	for _, bad := range []reflect.Type{reflect.TypeFor[int](), reflect.TypeFor[struct{ A int }]()} {
		if _, mistakes := Fields(bad, Fold); len(mistakes) == 0 {
			t.Errorf("%v was accepted", bad)
		}
	}
}

type town struct {
	Name string `db:"town"`
}

type address struct {
	Street string `db:"street"`
	Town   town
	Seen   time.Time // a struct without tags
}

func TestATagInANestedStructIsNotOverlooked(t *testing.T) {
	type person struct {
		Home    address
		Friend  *address // not embedded
		Ignored address  `db:"-"`
	}
	fields, mistakes := Fields(reflect.TypeFor[person](), Fold)
	if len(mistakes) > 0 {
		t.Fatal(errors.Join(mistakes...))
	}
	v := reflect.ValueOf(&person{}).Elem()
	var got []string
	for _, f := range fields {
		v.FieldByIndex(f.Index).SetString(f.Column)
		got = append(got, f.Name)
	}
	if s := strings.Join(got, " "); s != "person.Home.Street person.Home.Town.Name" {
		t.Error(s)
	}
	if p := v.Interface().(person); p.Home.Street != "street" || p.Home.Town.Name != "town" {
		t.Errorf("the indexes lead elsewhere: %+v", p)
	}
}

// Loop is exported, or staticcheck would call the embedded field unused.
type Loop struct {
	*Loop
	Town town
}

func TestATagThatCannotBeReachedIsAMistake(t *testing.T) {
	type middle struct{ town }
	for want, bad := range map[string]reflect.Type{
		"an embedded pointer":                 reflect.TypeFor[struct{ *middle }](),
		"Loop: an embedded pointer":           reflect.TypeFor[Loop](),
		"home has fields with db tags and is": reflect.TypeFor[struct{ home address }](),
	} {
		_, mistakes := Fields(bad, Fold)
		if err := errors.Join(mistakes...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", bad, err, want)
		}
	}
}

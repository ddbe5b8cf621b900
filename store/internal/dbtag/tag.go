// Package dbtag reads how a struct is mapped to a table: by `db` tags on its
// fields. What the SQL stores share is here; what a column of one database can
// hold is each store's own.
package dbtag

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Tag is what one field's `db:"…"` says:
//
//	db:"name"              the column
//	db:"name,option,…"     the column, and how
//	db:"-"                 the field is not mapped; nor is one without a tag
//
// The options:
//
//	version                the row's version, kept by the store
//	readonly               read, and never written: a default, a trigger's work
//	json                   any type, as JSON text
//	unix, unixmilli,       a time.Time as an integer: seconds, ms, µs or ns
//	unixmicro, unixnano    since 1970
type Tag struct {
	Column   string
	Skip     bool
	Version  bool
	ReadOnly bool
	JSON     bool
	// Unix is how many units of an integer time make a second; 0 for text.
	Unix int64
}

var units = []struct {
	option string
	unix   int64
}{{"unix", 1}, {"unixmilli", 1e3}, {"unixmicro", 1e6}, {"unixnano", 1e9}}

// Parse reads the content of a `db` tag. Its error says what is wrong with it,
// and not on which field.
func Parse(s string) (Tag, error) {
	name, rest, more := strings.Cut(s, ",")
	if name == "-" {
		if more {
			return Tag{}, fmt.Errorf("the tag %q maps nothing, and has options", s)
		}
		return Tag{Skip: true}, nil
	}
	switch {
	case name == "":
		return Tag{}, fmt.Errorf("the tag %q names no column", s)
	case name != strings.TrimSpace(name):
		return Tag{}, fmt.Errorf("the tag %q has spaces around the column's name", s)
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return Tag{}, fmt.Errorf("the tag %q names no possible column", s)
	}
	t := Tag{Column: name}
	if !more {
		return t, nil
	}
	var seen []string
	for option := range strings.SplitSeq(rest, ",") {
		if slices.Contains(seen, option) {
			return Tag{}, fmt.Errorf("the tag %q has the option %q twice", s, option)
		}
		seen = append(seen, option)
		if err := t.set(option); err != nil {
			return Tag{}, fmt.Errorf("the tag %q: %w", s, err)
		}
	}
	return t, t.contradiction(s)
}

func (t *Tag) set(option string) error {
	switch option {
	case "version":
		t.Version = true
		return nil
	case "readonly":
		t.ReadOnly = true
		return nil
	case "json":
		t.JSON = true
		return nil
	}
	for _, u := range units {
		if u.option == option {
			if t.Unix != 0 {
				return fmt.Errorf("two units of time")
			}
			t.Unix = u.unix
			return nil
		}
	}
	known := "there are version, readonly, json"
	for _, u := range units {
		known += ", " + u.option
	}
	if option == "key" || option == "primarykey" || option == "pk" {
		known += "; the key needs none: it is the table's primary key"
	}
	return fmt.Errorf("unknown option %q; %s", option, known)
}

func (t *Tag) contradiction(s string) error {
	switch {
	case t.Version && (t.ReadOnly || t.JSON || t.Unix != 0):
		return fmt.Errorf("the tag %q: version goes with no other option", s)
	case t.JSON && t.Unix != 0:
		return fmt.Errorf("the tag %q: json and a unit of time exclude each other", s)
	}
	return nil
}

// String returns the tag as Parse takes it.
func (t Tag) String() string {
	if t.Skip {
		return "-"
	}
	s := t.Column
	for _, o := range []struct {
		on   bool
		name string
	}{{t.Version, "version"}, {t.ReadOnly, "readonly"}, {t.JSON, "json"}} {
		if o.on {
			s += "," + o.name
		}
	}
	for _, u := range units {
		if u.unix == t.Unix {
			s += "," + u.option
		}
	}
	return s
}

package sqlitestore

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
	"github.com/lockstep-cache/lockstep/store/rows"
)

// Columns tells of the columns of a table of rows.Row, in their order; nil for others.
func (t *Table[K, V]) Columns() []rows.Column { return t.m.Columns() }

// Text implements mapping.Type. SQLite has five kinds of values, and lets any column hold
// any of them, unless the table is STRICT; what a column is declared as says what it is to
// hold, and a row that holds something else is unreadable.
func (c *column) Text() (mapping.TextForm, error) {
	declared := strings.ToUpper(c.declared)
	has := func(word string) bool { return strings.Contains(declared, word) }
	switch {
	case c.affinity == integer:
		return mapping.TextInt(), nil
	case c.affinity == realNum:
		return mapping.TextFloat(64, false), nil
	case c.affinity == text:
		return mapping.TextString("text"), nil
	case c.affinity == blob && has("BLOB"):
		return mapping.TextBytes(), nil
	case c.affinity == blob && declared == "":
		return mapping.TextForm{}, fmt.Errorf("it is declared without a type, and may hold anything")
	case has("BOOL"):
		return mapping.TextBool(), nil
	case has("DATETIME"), has("TIMESTAMP"):
		return mapping.TextTime(), nil
	case declared == "DATE":
		return mapping.TextOf[day](rows.NoNumber, "a date such as 2026-01-02"), nil
	case declared == "JSON":
		return mapping.TextOf[document](rows.NoNumber, "JSON"), nil
	case has("NUMERIC"), has("DECIMAL"), has("NUMBER"):
		return mapping.TextOf[number](rows.Real, "a number"), nil
	}
	return mapping.TextForm{}, fmt.Errorf("its type %s has no text of its own; there are INTEGER, REAL, TEXT, BLOB and their like, NUMERIC, DECIMAL, BOOLEAN, DATE, DATETIME, TIMESTAMP and JSON", c.declared)
}

// number is what a column of numbers holds: an integer, or a floating-point number.
type number struct{ held any }

func (n number) Value() (driver.Value, error) { return n.held, nil }

func (n *number) Scan(src any) error {
	switch src.(type) {
	case int64, float64:
		n.held = src
		return nil
	}
	return mapping.Mismatch(src, "number")
}

func (n number) MarshalText() ([]byte, error) {
	switch x := n.held.(type) {
	case int64:
		return strconv.AppendInt(nil, x, 10), nil
	case float64:
		return []byte(mapping.FormatFloat(x, 64)), nil
	}
	return nil, fmt.Errorf("%v is no number", n.held)
}

// UnmarshalText makes of a number what the column would.
func (n *number) UnmarshalText(b []byte) error {
	f, ok := mapping.ParseFloat(string(b), 64)
	if !ok {
		return fmt.Errorf("no number")
	}
	if i, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		n.held = i
		return nil
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		n.held = int64(f)
		return nil
	}
	n.held = f
	return nil
}

// day is what a column of dates holds: the text 2026-01-02, or what else is a time, of which
// it is the day.
type day struct{ text string }

func (d day) Value() (driver.Value, error) { return d.text, nil }

func (d *day) Scan(src any) error {
	s, _ := src.(string)
	t, ok := parseTime(s)
	if !ok {
		return mapping.Mismatch(src, "date")
	}
	d.text = t.Format(time.DateOnly)
	return nil
}

func (d day) MarshalText() ([]byte, error) { return []byte(d.text), nil }

func (d *day) UnmarshalText(b []byte) error {
	_, err := time.Parse(time.DateOnly, string(b))
	d.text = string(b)
	return err
}

// document is what a column of JSON holds: text, of which a NUMERIC column, as it is one for
// SQLite, makes a number where it is one.
type document struct{ text string }

func (d document) Value() (driver.Value, error) { return d.text, nil }

func (d *document) Scan(src any) error {
	if s, ok := src.(string); ok {
		d.text = s
		return nil
	}
	var n number
	if err := n.Scan(src); err != nil {
		return mapping.Mismatch(src, "JSON")
	}
	b, err := n.MarshalText()
	d.text = string(b)
	return err
}

func (d document) MarshalText() ([]byte, error) { return []byte(d.text), nil }

func (d *document) UnmarshalText(b []byte) error {
	if !json.Valid(b) {
		return fmt.Errorf("no JSON")
	}
	d.text = string(b)
	return nil
}

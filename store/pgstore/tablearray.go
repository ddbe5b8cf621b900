package pgstore

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// arrayConverter is for slices in an array column of one dimension. Nil is NULL, and
// an empty slice is an empty array. It binds JSON, and scans JSON.
func arrayConverter(t reflect.Type, elem *columnType) (mapping.Converter, error) {
	switch elem.family {
	case binary, jsons, padded:
		return mapping.Converter{}, fmt.Errorf("an array of %s cannot be mapped", elem.declared)
	}
	each, err := elem.value(t.Elem(), dbtag.Tag{})
	if err != nil {
		return each, fmt.Errorf("an element: %w", err)
	}
	w := wire(each.Type)
	return mapping.Converter{
		Type: string(wireArray),
		Bind: func(v reflect.Value) (any, error) {
			if v.IsNil() {
				return nil, nil
			}
			elements := make([]any, v.Len())
			for i := range elements {
				x, err := each.Bind(v.Index(i))
				if err == nil {
					elements[i], err = w.inJSON(x)
				}
				if err != nil {
					return nil, fmt.Errorf("element %d: %w", i, err)
				}
			}
			b, err := json.Marshal(elements)
			return string(b), err
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			if src == nil {
				dst.SetZero()
				return nil
			}
			elements, err := splitArray(src)
			if err != nil {
				return err
			}
			out := reflect.MakeSlice(t, len(elements), len(elements))
			for i, e := range elements {
				x, err := w.ofJSON(e)
				if err == nil {
					err = each.Scan(x, out.Index(i))
				}
				if err != nil {
					return fmt.Errorf("in element %d %w", i, err)
				}
			}
			dst.Set(out)
			return nil
		},
	}, nil
}

func splitArray(src driver.Value) (elements []any, err error) {
	s, ok := src.(string)
	if !ok {
		return nil, mapping.Mismatch(src, "array")
	}
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	if d.Decode(&elements) != nil {
		return nil, mapping.Mismatch(src, "array")
	}
	return elements, nil
}

// inJSON is an element as PostgreSQL's JSON has it.
func (w wire) inJSON(x any) (any, error) {
	switch x := x.(type) {
	case int64:
		if w == wireInt {
			return x, nil
		}
		t := time.UnixMicro(x).UTC()
		if y := t.Year(); y < 1 || y > 9999 {
			return nil, fmt.Errorf("the year %d has no text of four digits", y)
		}
		return t.Format("2006-01-02T15:04:05.999999Z07:00"), nil
	case float64:
		switch {
		case math.IsNaN(x):
			return "NaN", nil
		case math.IsInf(x, 1):
			return "Infinity", nil
		case math.IsInf(x, -1):
			return "-Infinity", nil
		}
	}
	return x, nil
}

// jsonTimes are the forms of timestamps with and without time zone, and of dates.
// Before there were time zones, local times were seconds apart.
var jsonTimes = []string{"2006-01-02T15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02",
	"2006-01-02T15:04:05.999999999Z07:00:00"}

// ofJSON makes of an element what its converter scans. An array of several
// dimensions has arrays for elements.
func (w wire) ofJSON(x any) (v driver.Value, err error) {
	if n, ok := x.(json.Number); ok {
		x = n.String()
	}
	s, ok := x.(string)
	switch {
	case x == nil || ok && w == wireText:
		return x, nil
	case ok && w == wireInt:
		v, err = strconv.ParseInt(s, 10, 64)
	case ok && w == wireFloat:
		v, err = strconv.ParseFloat(s, 64)
	case ok && w != wireBool:
		for _, form := range jsonTimes {
			var t time.Time
			if t, err = time.Parse(form, s); err == nil {
				return t.UnixMicro(), nil
			}
		}
	default:
		if _, is := x.(bool); is && w == wireBool {
			return x, nil
		}
		err = strconv.ErrSyntax
	}
	if err != nil {
		return nil, mapping.Mismatch(fmt.Sprint(x), string(w))
	}
	return v, nil
}

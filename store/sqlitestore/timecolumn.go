package sqlitestore

import (
	"database/sql/driver"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// Times are kept in UTC, as text of the form that SQLite's CURRENT_TIMESTAMP has,
// with as many decimals as it takes: the texts sort as the times do. What other
// programs have written is understood in every form of SQLite's date functions.
const timeForm = "2006-01-02 15:04:05.999999999"

var timeForms = []string{
	timeForm,
	"2006-01-02 15:04:05.999999999Z07:00",
	"2006-01-02 15:04",
	"2006-01-02 15:04Z07:00",
	"2006-01-02",
}

func formatTime(t time.Time) (any, error) {
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("the year %d has no text of four digits", y)
	}
	return t.Format(timeForm), nil
}

func parseTime(s string) (time.Time, bool) {
	// The T of ISO 8601 instead of the space is the only other difference.
	if len(s) > 10 && s[10] == 'T' {
		s = s[:10] + " " + s[11:]
	}
	for _, form := range timeForms {
		if t, err := time.Parse(form, strings.TrimSpace(s)); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

func timeConverter(unix int64, a affinity) (mapping.Converter, error) {
	if unix == 0 {
		return mapping.Converter{
			Type: string(text),
			Bind: func(v reflect.Value) (any, error) { return formatTime(v.Interface().(time.Time)) },
			Scan: func(src driver.Value, dst reflect.Value) error {
				s, ok := src.(string)
				if !ok {
					return mapping.Mismatch(src, "time")
				}
				t, ok := parseTime(s)
				if !ok {
					return mapping.Mismatch(src, "time")
				}
				dst.Set(reflect.ValueOf(t))
				return nil
			},
		}, wantsTimeText(a)
	}
	return mapping.UnixTime(string(integer), "an integer", 64, unix), wants(a, integer, numeric, blob)
}

func wantsTimeText(a affinity) error {
	if a == integer || a == realNum {
		return fmt.Errorf("its %s column is not for times as text; the options unix, unixmilli, unixmicro and unixnano are", a)
	}
	return nil // NUMERIC, as in DATETIME, leaves text alone that is not a number
}

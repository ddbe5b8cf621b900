package mysqlstore

import (
	"database/sql/driver"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// time is for a time.Time: in UTC when it is read. A datetime holds the time in UTC,
// and so does a timestamp, for the session's time zone is UTC; both are rounded down
// to what the column keeps, here, because the two servers round differently. A date
// holds the day that the time has in its own location.
func (c *tableColumn) time(unix int64) (mapping.Converter, error) {
	conv := mapping.Converter{Type: string(wireText), Scan: c.scanTime}
	switch c.family {
	case integers:
		if unix == 0 {
			return conv, fmt.Errorf("its %s column is for times with the option unix, unixmilli, unixmicro or unixnano", c.declared)
		}
		bits := c.bits
		if c.unsigned && bits < 64 {
			bits++
		}
		conv = mapping.UnixTime(string(wireInt), c.named(), bits, unix)
		if c.unsigned {
			conv = notNegative(conv, c.named())
		}
		return conv, nil
	case dates, datetimes, timestamps:
		if unix != 0 {
			return conv, fmt.Errorf("its %s column is for times without a unit", c.declared)
		}
		conv.Bind = func(v reflect.Value) (any, error) { return c.timeText(v.Interface().(time.Time)) }
		return conv, nil
	}
	return conv, c.wants(mapping.TimeType)
}

func notNegative(conv mapping.Converter, column string) mapping.Converter {
	bind := conv.Bind
	conv.Bind = func(v reflect.Value) (any, error) {
		x, err := bind(v)
		if n, ok := x.(int64); ok && n < 0 && err == nil {
			return nil, fmt.Errorf("%d is less than %s can hold", n, column)
		}
		return x, err
	}
	return conv
}

const (
	dateLayout     = "2006-01-02"
	datetimeLayout = "2006-01-02 15:04:05"
)

// timeText is what the column holds of a time, as the server writes it.
func (c *tableColumn) timeText(t time.Time) (any, error) {
	if c.family != dates {
		t = t.UTC()
	}
	if y := t.Year(); y < 1 || y > 9999 {
		return nil, fmt.Errorf("the year %d is out of the reach of %s", y, c.named())
	}
	if c.family == dates {
		return t.Format(dateLayout), nil
	}
	// The server takes the first second of 1970 for no time.
	if c.family == timestamps && (t.Unix() < 1 || t.Year() > 2106) {
		return nil, fmt.Errorf("%s is out of the reach of %s", t.Format(datetimeLayout), c.named())
	}
	layout := datetimeLayout
	if c.decimals > 0 {
		layout += "." + strings.Repeat("0", c.decimals)
	}
	return t.Format(layout), nil
}

// scanTime refuses what is no day of any calendar, such as 0000-00-00 or February 31,
// which other sessions may let in.
func (c *tableColumn) scanTime(src driver.Value, dst reflect.Value) error {
	s, _ := src.(string)
	t, ok := c.parseTime(s)
	if !ok {
		return mapping.Mismatch(src, "time")
	}
	dst.Set(reflect.ValueOf(t))
	return nil
}

func (c *tableColumn) parseTime(s string) (time.Time, bool) {
	layout := datetimeLayout
	if c.family == dates {
		layout = dateLayout
	}
	t, err := time.Parse(layout, s) // takes a fraction that the layout does not have
	return t, err == nil
}

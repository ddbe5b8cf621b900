package pgstore

import (
	"database/sql/driver"
	"fmt"
	"reflect"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// time is for a time.Time: in UTC when it is read, in microseconds or what the
// column keeps of them. A timestamp without time zone holds the time in UTC, so that
// the moment is kept, and not the local clock's reading, which pgx alone would store.
// A date holds the day that the time has in its own location.
func (c *columnType) time(unix int64) (mapping.Converter, error) {
	conv := mapping.Converter{Type: string(c.wire()), Scan: scanMicros}
	switch c.family {
	case integers:
		if unix == 0 {
			return conv, fmt.Errorf("its %s column is for times with the option unix, unixmilli, unixmicro or unixnano", c.declared)
		}
		return mapping.UnixTime(string(wireInt), c.named(), c.bits, unix), nil
	case zoned, local, dates:
		if unix != 0 {
			return conv, fmt.Errorf("its %s column is for times without a unit", c.declared)
		}
		conv.Bind = func(v reflect.Value) (any, error) { return c.micros(v.Interface().(time.Time)) }
		return conv, nil
	}
	return conv, c.wants(mapping.TimeType)
}

func (c *columnType) micros(t time.Time) (any, error) {
	if y := t.Year(); y < firstYear || y >= lastYear {
		return nil, fmt.Errorf("the year %d is out of the reach of %s", y, c.named())
	}
	if c.family == dates {
		y, m, d := t.Date()
		return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).UnixMicro(), nil
	}
	return round(t.UnixMicro(), c.decimals()), nil
}

// epoch is where PostgreSQL's times begin, in µs: it rounds away from there.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// round is what timestamp(decimals) makes of a time.
func round(us int64, decimals int) int64 {
	unit := int64(1)
	for range 6 - decimals {
		unit *= 10
	}
	us -= epoch
	if us < 0 {
		us = -((-us + unit/2) / unit * unit)
	} else {
		us = (us + unit/2) / unit * unit
	}
	return us + epoch
}

func scanMicros(src driver.Value, dst reflect.Value) error {
	us, ok := src.(int64)
	if !ok {
		return mapping.Mismatch(src, "time")
	}
	dst.Set(reflect.ValueOf(time.UnixMicro(us).UTC()))
	return nil
}

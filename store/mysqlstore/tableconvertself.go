package mysqlstore

import (
	"database/sql/driver"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// selfConverting is for types with methods Value and Scan. They get what the driver
// would give them with parseTime: times, and texts as bytes.
func (c *tableColumn) selfConverting() mapping.Converter {
	conv := mapping.SelfConverting(string(c.wire()), c.plain)
	scan := conv.Scan
	conv.Scan = func(src driver.Value, dst reflect.Value) error {
		if s, ok := src.(string); ok {
			src = []byte(s)
			switch c.family {
			case dates, datetimes, timestamps:
				t, ok := c.parseTime(s)
				if !ok {
					return mapping.Mismatch(src, "time")
				}
				src = t
			}
		}
		return scan(src, dst)
	}
	return conv
}

// plain makes what the column's wire carries of what such a type stores.
func (c *tableColumn) plain(x driver.Value) (any, error) {
	if x == nil {
		return nil, nil
	}
	if b, ok := x.(bool); ok {
		x = int64(0)
		if b {
			x = int64(1)
		}
	}
	switch c.wire() {
	case wireInt:
		if n, ok := x.(int64); ok {
			return c.signed().Bind(reflect.ValueOf(n))
		}
	case wireFloat:
		switch n := x.(type) {
		case float64:
			return c.float().Bind(reflect.ValueOf(n))
		case int64:
			return float64(n), nil
		}
	case wireBytes:
		switch b := x.(type) {
		case []byte:
			return c.bytes(mapping.Bytes("", false)).Bind(reflect.ValueOf(b))
		case string:
			return c.bytes(mapping.Bytes("", false)).Bind(reflect.ValueOf([]byte(b)))
		}
	default:
		return c.plainText(x)
	}
	return nil, c.foreign(x)
}

func (c *tableColumn) foreign(x any) error {
	return fmt.Errorf("its type stores a %T, which %s does not take", x, c.named())
}

func (c *tableColumn) plainText(x driver.Value) (any, error) {
	t, isTime := x.(time.Time)
	switch c.family {
	case dates, datetimes, timestamps:
		if !isTime {
			return nil, c.foreign(x)
		}
		return c.timeText(t)
	}
	switch x := x.(type) {
	case string:
		return c.text(x)
	case []byte:
		return c.text(string(x))
	case int64:
		return c.text(strconv.FormatInt(x, 10))
	case float64:
		return c.text(strconv.FormatFloat(x, 'g', -1, 64))
	}
	return nil, c.foreign(x)
}

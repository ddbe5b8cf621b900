package pgstore

import (
	"database/sql/driver"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// selfConverting is for types with methods Value and Scan. They get what database/sql
// and pgx's driver for it would give them: times, and JSON as bytes. An array they
// get in PostgreSQL's own text, which lib/pq's arrays read.
func (c *columnType) selfConverting() mapping.Converter {
	w := c.wire()
	if w == wireArray {
		w = wireText
	}
	conv := mapping.SelfConverting(string(w), c.plain)
	scan := conv.Scan
	conv.Scan = func(src driver.Value, dst reflect.Value) error {
		switch x := src.(type) {
		case int64:
			if w != wireInt {
				src = time.UnixMicro(x).UTC()
			}
		case string:
			if c.family == jsons {
				src = []byte(x)
			}
		}
		return scan(src, dst)
	}
	return conv
}

// plain makes what the column's wire carries of what such a type stores.
func (c *columnType) plain(x driver.Value) (any, error) {
	if x == nil {
		return nil, nil
	}
	w := c.wire()
	switch w {
	case wireInt:
		if n, ok := x.(int64); ok {
			return mapping.Int("", c.named(), c.bits).Bind(reflect.ValueOf(n))
		}
	case wireFloat:
		switch n := x.(type) {
		case float64:
			return n, nil
		case int64:
			return float64(n), nil
		}
	case wireBool:
		if b, ok := x.(bool); ok {
			return b, nil
		}
	case wireBytes:
		switch b := x.(type) {
		case []byte:
			return append([]byte{}, b...), nil
		case string:
			return []byte(b), nil
		}
	case wireZoned, wireLocal, wireDate:
		if t, ok := x.(time.Time); ok {
			return c.micros(t)
		}
	default:
		s, err := plainText(x)
		if err != nil {
			return nil, err
		}
		return s, checkText(s)
	}
	return nil, fmt.Errorf("its type stores a %T, which %s does not take", x, c.named())
}

func plainText(x driver.Value) (string, error) {
	switch x := x.(type) {
	case string:
		return x, nil
	case []byte:
		return string(x), nil
	case int64:
		return strconv.FormatInt(x, 10), nil
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64), nil
	case bool:
		return strconv.FormatBool(x), nil
	}
	return "", fmt.Errorf("its type stores a %T, which has no text of its own", x)
}

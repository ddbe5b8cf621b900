package pgstore

import (
	"fmt"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
	"github.com/lockstep-cache/lockstep/store/rows"
)

// Columns tells of the columns of a table of rows.Row, in their order; nil for others.
func (t *Table[K, V]) Columns() []rows.Column { return t.m.Columns() }

// Text implements mapping.Type.
func (c *tableColumn) Text() (mapping.TextForm, error) {
	switch c.family {
	case integers:
		return mapping.TextInt(), nil
	case floats:
		return mapping.TextFloat(c.bits, true), nil
	case booleans:
		return mapping.TextBool(), nil
	case texts, folded, padded:
		return mapping.TextString("text"), nil
	case enums:
		return mapping.TextString("one of the labels of " + c.declared), nil
	case binary:
		return mapping.TextBytes(), nil
	case zoned, local:
		return mapping.TextTime(), nil
	case dates:
		return mapping.TextDate(), nil
	case numerics:
		_, scale, limited := c.precision()
		return mapping.TextDecimal(scale, limited), nil
	case uuids:
		return mapping.TextString("a UUID"), nil
	case jsons:
		return mapping.TextString("JSON"), nil
	}
	return mapping.TextForm{}, fmt.Errorf("its type %s has no text of its own; there are whole numbers, floats, numeric, boolean, text and its like, enumerations, bytea, timestamp, date, uuid and JSON", c.declared)
}

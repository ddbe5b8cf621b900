package mysqlstore

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
	"github.com/lockstep-cache/lockstep/store/rows"
)

// Columns tells of the columns of a table of rows.Row, in their order; nil for others.
func (t *Table[K, V]) Columns() []rows.Column { return t.m.Columns() }

// Text implements mapping.Type. A BOOLEAN is a TINYINT(1) here, which holds any small number.
func (c *tableColumn) Text() (mapping.TextForm, error) {
	switch c.family {
	case integers:
		if c.unsigned {
			return mapping.TextUint(), nil
		}
		return mapping.TextInt(), nil
	case floats:
		return mapping.TextFloat(c.bits, false), nil
	case texts, padded:
		return mapping.TextString("text"), nil
	case enums, sets:
		return mapping.TextString(c.declared), nil
	case binary, zeroed:
		return mapping.TextBytes(), nil
	case datetimes, timestamps:
		return mapping.TextTime(), nil
	case dates:
		return mapping.TextDate(), nil
	case decimals:
		return mapping.TextDecimal(c.scale, true), nil
	case uuids:
		return mapping.TextString("a UUID"), nil
	case jsons:
		return mapping.TextString("JSON"), nil
	}
	return mapping.TextForm{}, fmt.Errorf("its type %s has no text of its own; there are whole numbers, floats, DECIMAL, text, ENUM, SET, BINARY and BLOB, DATETIME, TIMESTAMP, DATE, UUID and JSON", c.declared)
}

var currentTimestamp = regexp.MustCompile(`(?i)^current_timestamp(\(\d?\))?$`)

// defaultSQL is the column's default as it can stand in an INSERT. MariaDB's catalogue has it
// in SQL; MySQL's has a constant's bare text, and expressions in a form that cannot be used:
// such a column has to be given where its row is text.
func (sv *server) defaultSQL(held string, extra string) string {
	switch {
	case strings.EqualFold(held, "NULL") && sv.mariadb():
		return ""
	case sv.mariadb(), currentTimestamp.MatchString(held):
		return held
	case strings.Contains(extra, "default_generated"), strings.Contains(held, `\`): // which a session may take for itself
		return ""
	}
	return "'" + strings.ReplaceAll(held, "'", "''") + "'"
}

package mysqlstore

import "testing"

// TestDefaultsInAnInsert, as the catalogues of both servers have them.
func TestDefaultsInAnInsert(t *testing.T) {
	for _, c := range []struct {
		mariadb           bool
		held, extra, want string
	}{
		{true, "NULL", "", ""},
		{true, "'NULL'", "", "'NULL'"},
		{true, "'it''s'", "", "'it''s'"},
		{true, "current_timestamp()", "", "current_timestamp()"},
		{true, "uuid()", "", "uuid()"},
		{true, "5", "", "5"},
		{false, "it's", "", "'it''s'"},
		{false, "NULL", "", "'NULL'"}, // the text: no default is no text at all
		{false, "5", "", "'5'"},
		{false, "CURRENT_TIMESTAMP", "default_generated", "CURRENT_TIMESTAMP"},
		{false, "CURRENT_TIMESTAMP(6)", "default_generated on update current_timestamp(6)", "CURRENT_TIMESTAMP(6)"},
		{false, "uuid()", "default_generated", ""},
		{false, `a\b`, "", ""},
	} {
		sv := &server{dialect: "mysql"}
		if c.mariadb {
			sv.dialect = "mariadb"
		}
		if got := sv.defaultSQL(c.held, c.extra); got != c.want {
			t.Errorf("%q, %q, MariaDB %t: %q, want %q", c.held, c.extra, c.mariadb, got, c.want)
		}
	}
}

package crash

import (
	"database/sql"
	"strings"
	"testing"
)

// Rows are what a query returns of keys and values. A table that is not there has none:
// the program may be dead before it has made it.
func Rows(t testing.TB, db *sql.DB, query string) map[string]string {
	t.Helper()
	found := map[string]string{}
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		for _, absent := range []string{"no such table", "does not exist", "doesn't exist"} {
			if strings.Contains(err.Error(), absent) {
				return found
			}
		}
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil {
			t.Fatal(err)
		}
		found[key] = value
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

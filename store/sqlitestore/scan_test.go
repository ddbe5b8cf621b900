package sqlitestore

import (
	"database/sql/driver"
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// SQLite lets a primary key be NULL, of which Go has no key.
func TestARowWithANullKeyDoesNotEndEveryScan(t *testing.T) {
	single := openTable[string, justName](t, TableOptions{}, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT)",
		"INSERT INTO t VALUES ('a', 'x'), (NULL, 'nameless'), ('b', 'x'), (NULL, 'another')")
	type pair struct {
		A string `db:"a"`
		B int    `db:"b"`
	}
	double := openTable[pair, justName](t, TableOptions{}, "CREATE TABLE t (a TEXT, b INTEGER, name TEXT, PRIMARY KEY (a, b))",
		"INSERT INTO t VALUES ('a', 1, 'x'), (NULL, 1, ''), ('a', NULL, ''), ('b', NULL, ''), ('b', 2, 'x'), (NULL, NULL, ''), ('c', 0, 'x')")
	for _, limit := range []int{1, 2, 100} {
		if got := scanKeys(t, single, limit); got != "[a b]" {
			t.Errorf("by %d: %s", limit, got)
		}
		if got := scanKeys(t, double, limit); got != "[{a 1} {b 2} {c 0}]" {
			t.Errorf("by %d: %s", limit, got)
		}
	}
	// A page is found by its start, and not by reading what comes before it.
	for _, plan := range []struct {
		db    *Database
		query string
		args  []any
	}{{single.db, single.sql.scanNext, []any{"a", int64(9)}}, {double.db, double.sql.scanNext, []any{"a", int64(1), int64(9)}}} {
		err := plan.db.read(t.Context(), func(c *conn) error {
			return c.query("EXPLAIN QUERY PLAN "+plan.query, plan.args, func(row []driver.Value) error {
				if how := fmt.Sprint(row[3]); !strings.HasPrefix(how, "SEARCH") || !strings.Contains(how, ">") {
					t.Errorf("%s: %s", plan.query, how)
				}
				return nil
			})
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func scanKeys[K comparable, V any](t *testing.T, s *Table[K, V], limit int) string {
	t.Helper()
	var keys []K
	for cursor := any(nil); ; {
		page, err := s.scan(t.Context(), cursor, limit)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, page.Keys...)
		if cursor = page.Next; cursor == nil {
			return fmt.Sprint(keys)
		}
	}
}

func TestACursorOfAnotherStoreIsNamed(t *testing.T) {
	kv, table := both(t)
	for _, k := range []string{"a", "b"} {
		put(t, kv, k, k)
		put(t, table, k, justName{k})
	}
	ours, err := kv.scan(t.Context(), nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := table.scan(t.Context(), nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, cursor := range []any{theirs.Next, struct{}{}, "a", 7} {
		_, err := kv.scan(t.Context(), cursor, 1)
		wantError(t, err, lockstep.ErrInvalid, "cursor", "table lockstep")
	}
	for _, cursor := range []any{ours.Next, struct{}{}, "a"} {
		_, err := table.scan(t.Context(), cursor, 1)
		wantError(t, err, lockstep.ErrInvalid, "cursor", "table t")
	}
	if page, err := kv.scan(t.Context(), ours.Next, 1); err != nil || page.Keys[0] != "b" {
		t.Errorf("%v, %v", page, err)
	}
}

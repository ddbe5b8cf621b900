package sqlitestore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strings"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// A statement may change rows beside those that it names: by a trigger, or by a
// foreign key's action. Where a cache holds such a row and nobody tells it, memory
// goes on answering with what the row was. So a set that would do that is refused,
// unless the same transaction changes those rows by name.
//
// SQLite tells of every row that it changes, and whether a statement has named it.
// Reading the schema instead would not do: which rows a trigger changes is known
// when it runs, and most triggers change the row that has fired them, which is
// read back in any case.

// cacheable counts a table among those whose rows some cache may hold, with the
// places of its key's columns; without them its rows are not told apart. It waits
// for the commit under way, which has not looked at the table.
func (db *Database) cacheable(ctx context.Context, table string, key []int) error {
	c, err := db.acquire(ctx)
	if err != nil {
		return err
	}
	db.cached[dbtag.Fold(table)] = key
	db.release(c, true)
	return nil
}

// actsQuery tells whether anything in the schema changes rows by itself.
const actsQuery = `SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger') OR EXISTS (
SELECT 1 FROM sqlite_schema AS s, pragma_foreign_key_list(s.name) AS f WHERE s.type = 'table' AND ` + actions + `)`

const actions = `(f.on_delete NOT IN ('NO ACTION', 'RESTRICT') OR f.on_update NOT IN ('NO ACTION', 'RESTRICT'))`

// rowName is a row of a table that a cache may hold.
type rowName struct{ table, key string }

// unnamed is the key of a row that cannot be told from others of its table. No set
// names it: a key of one text has no NUL.
const unnamed = "\x00"

// watch calls heard, until it is called with nil, for each such row that is
// changed and that no statement has named. What is it, for people.
func (c *conn) watch(cached map[string][]int, heard func(r rowName, what string)) {
	if !c.watched {
		c.raw.(sqlite.HookRegisterer).RegisterPreUpdateHook(func(d sqlite.SQLitePreUpdateData) {
			if c.heard != nil && d.Depth() > 0 && d.DatabaseName == "main" {
				tell(&d, cached, c.heard)
			}
		})
		c.watched = true
	}
	c.heard = heard
}

func tell(d *sqlite.SQLitePreUpdateData, cached map[string][]int, heard func(rowName, string)) {
	table := dbtag.Fold(d.TableName)
	places, ok := cached[table]
	if !ok {
		return
	}
	one := func(read func(dest ...any) error) {
		key := make([]any, len(places))
		columns := make([]any, d.Count())
		if len(places) == 0 || read(columns...) != nil {
			heard(rowName{table, unnamed}, "a row")
			return
		}
		for i, at := range places {
			key[i] = columns[at]
		}
		heard(rowName{table, mapping.KeyText(key)}, "key "+strings.Trim(fmt.Sprint(key), "[]"))
	}
	if d.Op != lib.SQLITE_INSERT {
		one(d.Old)
	}
	if d.Op != lib.SQLITE_DELETE {
		one(d.New) // a trigger may change a key
	}
}

// touched is what a transaction of several sets has changed so far.
type touched struct {
	named   map[rowName]bool
	pending map[rowName]error // not named yet, and what to say if they are not
}

func (t *touched) err() error {
	for _, err := range t.pending {
		return err
	}
	return nil
}

// witnessed calls f, which makes the set's changes, and refuses what they have
// changed in passing. In a transaction of several sets, a later one may name it.
// An earlier one may not have: what its outcome told would no longer be true.
func (t *Table[K, V]) witnessed(c *conn, set *tableSet[K, V], so *touched, f func() error) error {
	if !t.acts {
		return f()
	}
	n := len(t.m.Key)
	table := dbtag.Fold(t.m.Table)
	others := map[rowName]string{}
	c.watch(t.db.cached, func(r rowName, what string) {
		if !(set.deleteAll && r.table == table) {
			others[r] = what
		}
	})
	defer c.watch(nil, nil)
	if err := f(); err != nil {
		return err
	}
	// Only now does an insertion name its row.
	named := make(map[rowName]bool, set.written)
	for i := range set.written {
		named[rowName{table, mapping.KeyText(set.bound[i*n : (i+1)*n])}] = true
	}
	for r, what := range others {
		if named[r] {
			continue
		}
		err := t.behind(c, r.table, what)
		if so == nil || so.named[r] {
			return err
		}
		so.pending[r] = err
	}
	if so != nil {
		for r := range named {
			so.named[r] = true
			delete(so.pending, r)
		}
	}
	return nil
}

// behind is the error of a change that would change a row that it does not name.
func (t *Table[K, V]) behind(c *conn, table, what string) error {
	var causes []string
	err := c.query(`SELECT 'foreign key ' || group_concat(f."from", ', ') || ' REFERENCES ' || f."table" ||
	iif(f.on_delete IN ('NO ACTION', 'RESTRICT'), '', ' ON DELETE ' || f.on_delete) ||
	iif(f.on_update IN ('NO ACTION', 'RESTRICT'), '', ' ON UPDATE ' || f.on_update)
FROM pragma_foreign_key_list(?1) AS f WHERE `+actions+` GROUP BY f.id
UNION ALL SELECT 'trigger ' || name FROM sqlite_schema WHERE type = 'trigger' AND instr(lower(sql), lower(?1))`, []any{table},
		func(row []driver.Value) error {
			causes = append(causes, fmt.Sprint(row[0]))
			return nil
		})
	if err != nil {
		return err
	}
	return invalid("table %s: this would also change %s of table %s, behind the back of its cache (%s); name it in the same transaction",
		t.m.Table, what, table, strings.Join(causes, "; "))
}

package mysqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// Rows that a commit changes beside those that it names, by a trigger or by a foreign
// key's action, could be in the memory of a cache, which nobody would tell. The server
// tells nobody which they were either. So it is asked, before a row is deleted or
// changed, for rows that depend on it, where that would lead to a mapped table; and a
// trigger is held to what its text says that it writes.

// actions are what changes rows beside those that are written.
type actions struct {
	chains   []chain
	triggers []trigger
}

// chain is one foreign key after the other, each with an action: the first refers to the
// table, the next one to the first one's, and so on.
type chain []foreignKey

// foreignKey is one with an action.
type foreignKey struct {
	name, child         string // child as in a statement
	columns, referenced []string
	onDelete, onUpdate  bool
}

func (c chain) last() string { return c[len(c)-1].child }

// trigger is one of the table.
type trigger struct {
	name, event string
	reach       []string // the tables that it may change; unknownTable: perhaps any
}

// unknownTable stands for what cannot be looked into.
const unknownTable = "?"

// actionsOf looks for them, and for what they lead to.
func (db *Database) actionsOf(ctx context.Context, conn *session, s *shape) (actions, error) {
	l := &looker{db: db, ctx: ctx, conn: conn}
	var a actions
	var err error
	if a.chains, err = l.chains(s.schema, s.name, nil, map[string]bool{db.fold(s.sql()): true}); err != nil {
		return a, err
	}
	if a.triggers, err = l.triggers(s.schema, s.name); err != nil {
		return a, err
	}
	for i := range a.triggers {
		t := &a.triggers[i]
		written := t.reach
		t.reach = nil
		seen := map[string]bool{db.fold(s.sql()): true}
		for _, table := range written {
			if err := l.follow(table, seen, &t.reach); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

// looker reads the schema.
type looker struct {
	db   *Database
	ctx  context.Context
	conn *session
}

func (l *looker) foreignKeys(schema, table string) (keys []foreignKey, err error) {
	err = l.conn.query(l.ctx, `SELECT k.CONSTRAINT_NAME, k.TABLE_SCHEMA, k.TABLE_NAME, k.COLUMN_NAME, k.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE
FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r
	ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME
WHERE k.REFERENCED_TABLE_SCHEMA = ? AND k.REFERENCED_TABLE_NAME = ? ORDER BY 2, 3, 1, k.ORDINAL_POSITION`,
		[]any{schema, table}, func(row []driver.Value) error {
			acts := func(v driver.Value) bool { return text(v) != "RESTRICT" && text(v) != "NO ACTION" }
			k := foreignKey{name: text(row[0]), child: quote(text(row[1])) + "." + quote(text(row[2])), onDelete: acts(row[5]), onUpdate: acts(row[6])}
			if !k.onDelete && !k.onUpdate {
				return nil
			}
			if n := len(keys); n == 0 || keys[n-1].name != k.name || keys[n-1].child != k.child {
				keys = append(keys, k)
			}
			last := &keys[len(keys)-1]
			last.columns, last.referenced = append(last.columns, text(row[3])), append(last.referenced, text(row[4]))
			return nil
		})
	return keys, err
}

// chains are those that begin at a table, after some that have led to it.
func (l *looker) chains(schema, table string, before chain, seen map[string]bool) (all []chain, err error) {
	keys, err := l.foreignKeys(schema, table)
	for _, k := range keys {
		c := append(slices.Clip(before), k)
		all = append(all, c)
		if folded := l.db.fold(k.child); !seen[folded] {
			parts, err := tableName(k.child)
			if err != nil {
				return nil, err
			}
			seen[folded] = true
			more, err := l.chains(parts[0], parts[1], c, seen)
			if err != nil {
				return nil, err
			}
			delete(seen, folded)
			all = append(all, more...)
		}
	}
	return all, err
}

// cascade follows foreign keys' actions, which fire no triggers.
func (l *looker) cascade(table string, seen map[string]bool, reach *[]string) error {
	*reach = append(*reach, table)
	if seen[l.db.fold(table)] {
		return nil
	}
	seen[l.db.fold(table)] = true
	parts, err := tableName(table)
	if err != nil {
		return err
	}
	keys, err := l.foreignKeys(parts[0], parts[1])
	for _, k := range keys {
		if err := l.cascade(k.child, seen, reach); err != nil {
			return err
		}
	}
	return err
}

// follow follows what a trigger writes: actions of foreign keys, and other triggers.
func (l *looker) follow(table string, seen map[string]bool, reach *[]string) error {
	if table == unknownTable || seen[l.db.fold(table)] {
		*reach = append(*reach, table)
		return nil
	}
	if err := l.cascade(table, seen, reach); err != nil {
		return err
	}
	parts, err := tableName(table)
	if err != nil {
		return err
	}
	triggers, err := l.triggers(parts[0], parts[1])
	for _, t := range triggers {
		for _, written := range t.reach {
			if err := l.follow(written, seen, reach); err != nil {
				return err
			}
		}
	}
	return err
}

// triggers returns a table's, with what each writes by itself.
func (l *looker) triggers(schema, table string) (triggers []trigger, err error) {
	var bodies []string
	err = l.conn.query(l.ctx, "SELECT TRIGGER_NAME, EVENT_MANIPULATION, ACTION_STATEMENT FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = ? AND EVENT_OBJECT_TABLE = ?",
		[]any{schema, table}, func(row []driver.Value) error {
			if strings.HasPrefix(text(row[0]), watchPrefix) {
				return nil // ours, which write to no table that is mapped
			}
			triggers = append(triggers, trigger{name: text(row[0]), event: text(row[1])})
			bodies = append(bodies, text(row[2]))
			return nil
		})
	for i, body := range bodies {
		if err == nil {
			triggers[i].reach, err = l.writtenBy(body, schema, map[string]bool{})
		}
	}
	return triggers, err
}

// writtenBy are the tables that a body may write, those of the procedures that it calls
// included.
func (l *looker) writtenBy(body, schema string, called map[string]bool) (tables []string, err error) {
	names, calls := written(body)
	for _, name := range names {
		tables = append(tables, name.in(schema))
	}
	for _, name := range calls {
		procedure := name.in(schema)
		if called[procedure] {
			continue
		}
		called[procedure] = true
		home := schema
		if name.schema != "" {
			home = name.schema
		}
		var inner string
		if err := l.conn.query(l.ctx, "SELECT ROUTINE_DEFINITION FROM information_schema.ROUTINES WHERE ROUTINE_TYPE = 'PROCEDURE' AND ROUTINE_SCHEMA = ? AND ROUTINE_NAME = ?",
			[]any{home, name.name}, func(row []driver.Value) error { inner = text(row[0]); return nil }); err != nil {
			return nil, err
		}
		if inner == "" {
			tables = append(tables, unknownTable)
			continue
		}
		more, err := l.writtenBy(inner, home, called)
		if err != nil {
			return nil, err
		}
		tables = append(tables, more...)
	}
	return tables, nil
}

// concern returns the first of some tables that is mapped, other than own.
func (t *Table[K, V]) concern(reach []string) (name string, ok bool) {
	own := t.db.fold(t.shape.sql())
	for _, table := range reach {
		switch folded := t.db.fold(table); {
		case table == unknownTable:
			t.db.tables.Range(func(key, value any) bool {
				if ok = key != own; ok {
					name = value.(string)
				}
				return !ok
			})
		case folded != own:
			var mapped any
			if mapped, ok = t.db.tables.Load(folded); ok {
				name = mapped.(string)
			}
		}
		if ok {
			return name, true
		}
	}
	return "", false
}

// unseen refuses a wave that would change other rows than its own that a cache may
// hold.
func (w *tableWork[K, V]) unseen(ctx context.Context) error {
	events := map[string]bool{"INSERT": len(w.Wave.Inserts)+len(w.Wave.Giving) > 0, "UPDATE": len(w.Wave.Updates) > 0, "DELETE": len(w.Wave.Deletes) > 0}
	if err := w.unseenByTriggers(events); err != nil {
		return err
	}
	for _, c := range w.t.acts.chains {
		if c[0].onDelete {
			if err := w.dependents(ctx, c, w.Wave.Deletes); err != nil {
				return err
			}
		}
		if c[0].onUpdate {
			if err := w.dependents(ctx, c, w.rereferenced(c[0])); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *tableWork[K, V]) unseenByTriggers(events map[string]bool) error {
	for _, g := range w.t.acts.triggers {
		if !events[g.event] {
			continue
		}
		if name, ok := w.t.concern(g.reach); ok {
			return invalid("table %s: its trigger %s may change rows of %s, which a cache may hold", w.t.shape, g.name, name)
		}
	}
	return nil
}

// rereferenced are the updates that change what a foreign key refers to.
func (w *tableWork[K, V]) rereferenced(k foreignKey) (updates []*mapping.Write) {
	for _, r := range w.Wave.Updates {
		row := w.Rows[r.Text]
		for i, f := range w.M.Value {
			if f.Written && slices.ContainsFunc(k.referenced, func(c string) bool { return strings.EqualFold(c, f.Column) }) &&
				!mapping.Equal(r.Columns[i], row[w.t.sql.keys+i]) {
				updates = append(updates, r)
				break
			}
		}
	}
	return updates
}

// dependents refuses to delete, or change, rows that others depend on, in however many
// steps. The rows are locked, and so no other can come to depend on them; those that do
// are read under a lock, since at REPEATABLE READ another reading would be an old one.
func (w *tableWork[K, V]) dependents(ctx context.Context, c chain, rows []*mapping.Write) error {
	name, own, ok := w.t.mapped(c.last())
	if len(rows) == 0 || !ok {
		return nil
	}
	deleted := map[string]bool{}
	for _, r := range w.Wave.Deletes {
		deleted[r.Text] = true
	}
	there := false
	err := newListText(keySizes, func(n int) string { return w.t.dependentSQL(c, own, n) }).byKeys(keysIn(rows), func(query string, args []any) error {
		return w.a.s.query(ctx, query, args, func(cols []driver.Value) error {
			there = there || !own || !deleted[w.keyText(cols)]
			return nil
		})
	})
	if err == nil && there {
		err = w.dependent(c, name)
	}
	return err
}

// mapped tells whether a table, as in a statement, is mapped in the Database, and
// whether it is this one.
func (t *Table[K, V]) mapped(table string) (name string, own, ok bool) {
	folded := t.db.fold(table)
	mapped, ok := t.db.tables.Load(folded)
	if ok {
		name = mapped.(string)
	}
	return name, folded == t.db.fold(t.shape.sql()), ok
}

func (w *tableWork[K, V]) dependent(c chain, name string) error {
	return invalid("table %s: by the action of foreign key %s, the change would change other rows of %s, which a cache may hold; "+
		"write those before it, or in one set with it (DeleteMany, Transact)", w.t.shape, c[len(c)-1].name, name)
}

// dependentSQL selects the rows that depend on n rows, or on any, by their keys where
// they are of the same table.
func (t *Table[K, V]) dependentSQL(c chain, own bool, n int) string {
	last := len(c)
	keys, parent := make([]string, len(t.m.Key)), make([]string, len(t.m.Key))
	for i, f := range t.m.Key {
		keys[i], parent[i] = fmt.Sprintf("t%d.%s", last, quote(f.Column)), "t0."+quote(f.Column)+" = ?"
	}
	list, where, limit := strings.Join(keys, ", "), "", ""
	if !own {
		list, limit = "1", " LIMIT 1"
	}
	if n > 0 {
		one := "(" + strings.Join(parent, " AND ") + ")"
		where = " WHERE " + one + strings.Repeat(" OR "+one, n-1)
	}
	from := t.shape.sql() + " AS t0"
	for i, k := range c {
		same := make([]string, len(k.columns))
		for j := range k.columns {
			same[j] = fmt.Sprintf("t%d.%s = t%d.%s", i+1, quote(k.columns[j]), i, quote(k.referenced[j]))
		}
		from += fmt.Sprintf(" STRAIGHT_JOIN %s AS t%d ON %s", k.child, i+1, strings.Join(same, " AND "))
	}
	return "SELECT " + list + " FROM " + from + where + limit + " LOCK IN SHARE MODE"
}

// unseenOfAll is unseen for a DeleteAll.
func (w *tableWork[K, V]) unseenOfAll(ctx context.Context) error {
	if err := w.unseenByTriggers(map[string]bool{"DELETE": true}); err != nil {
		return err
	}
	for _, c := range w.t.acts.chains {
		name, own, ok := w.t.mapped(c.last())
		if !ok || own || !c[0].onDelete {
			continue
		}
		there := false
		if err := w.a.s.query(ctx, w.t.dependentSQL(c, false, 0), nil, func([]driver.Value) error { there = true; return nil }); err != nil {
			return err
		}
		if there {
			return w.dependent(c, name)
		}
	}
	return nil
}

package mysqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// foundLog is what the database says of a table's watch.
type foundLog struct {
	// triggers are those of the table whose names are ours.
	triggers []foundTrigger
	// others are the schema's own.
	others []string
	// listed says that the table is among those that are watched.
	listed bool
	// alone: no other table of the schema is watched.
	alone bool
	// definer is whose the procedure is that the triggers call; "": it is not there, or not
	// to be seen.
	definer string
	// lacking are the privileges, or tables, that a watcher needs.
	lacking []string
}

type foundTrigger struct {
	logTrigger
	timing, each string
}

func (f *foundLog) names() (triggers []logTrigger) {
	for _, t := range f.triggers {
		triggers = append(triggers, t.logTrigger)
	}
	return triggers
}

// there tells whether there is a watch, whole or not.
func (f *foundLog) there() bool { return len(f.triggers) > 0 || f.listed }

func (l *changeLog) find(ctx context.Context, s *session, db *Database) (*foundLog, error) {
	f := &foundLog{alone: true}
	err := s.query(ctx, "SELECT TRIGGER_NAME, EVENT_MANIPULATION, ACTION_STATEMENT, ACTION_TIMING, ACTION_ORIENTATION, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS "+
		"WHERE EVENT_OBJECT_SCHEMA = ? AND EVENT_OBJECT_TABLE = ?", []any{l.schema, l.table}, func(row []driver.Value) error {
		if db.fold(text(row[5])) != db.fold(l.table) {
			return nil
		}
		t := foundTrigger{logTrigger{text(row[0]), text(row[1]), text(row[2])}, text(row[3]), text(row[4])}
		if strings.HasPrefix(t.name, watchPrefix) {
			f.triggers = append(f.triggers, t)
		} else {
			f.others = append(f.others, t.name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = s.query(ctx, "SELECT DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_TYPE = 'PROCEDURE' AND ROUTINE_SCHEMA = ? AND ROUTINE_NAME = ?",
		[]any{l.schema, procedureName}, func(row []driver.Value) error { f.definer = text(row[0]); return nil })
	if err != nil {
		return nil, err
	}
	err = s.query(ctx, "SELECT `tbl` FROM "+l.watched(), nil, func(row []driver.Value) error {
		if text(row[0]) == l.table {
			f.listed = true
		} else {
			f.alone = false
		}
		return nil
	})
	switch number(err) {
	case 0:
	case errNoTable, 1142, 1143, errNoDatabase, errDeniedDB:
		f.alone = number(err) == errNoTable
		err = nil
	}
	if err != nil || !f.there() {
		return f, err
	}
	for _, need := range []struct{ what, query string }{
		{"SELECT on " + logName, "SELECT `id`, `tbl`, `key`, `version`, `conn`, `writer` FROM " + l.log()},
		{"INSERT on " + logName, "INSERT INTO " + l.log() + " (`id`) VALUES (?)"},
		{"DELETE on " + logName, "DELETE FROM " + l.log() + " WHERE `id` < ?"},
		{"SELECT on " + horizonName, "SELECT `settled`, `purged`, `mark`, `marked_at` FROM " + l.horizon()},
		{"UPDATE on " + horizonName, "UPDATE " + l.horizon() + " SET `settled` = ?"},
		{"SELECT on " + watchedName, "SELECT `tbl` FROM " + l.watched()},
	} {
		switch err := s.tryPrepare(ctx, need.query); number(err) {
		case 1142, 1143, errDeniedDB:
			f.lacking = append(f.lacking, "the user lacks "+need.what)
		case errNoTable, 1054:
			f.lacking = append(f.lacking, fmt.Sprintf("what %s takes is not there: %v", need.what, err))
		default:
			if err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

// check says what is wrong with a watch that is there.
func (f *foundLog) check(l *changeLog) error {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	want := l.triggers()
	for _, w := range want {
		i := slices.IndexFunc(f.triggers, func(t foundTrigger) bool { return t.name == w.name })
		switch {
		case i < 0 && len(f.triggers) == 0:
			fault("the trigger %s is missing, or the user lacks TRIGGER on the table, without which it is not shown", w.name)
		case i < 0:
			fault("the trigger %s is missing", w.name)
		case f.triggers[i] != foundTrigger{w, "AFTER", "ROW"}:
			fault("the trigger %s is not the one that this version of lockstep installs", w.name)
		}
	}
	if len(f.triggers) > len(want) {
		fault("it has other triggers whose names begin with %s", watchPrefix)
	}
	if !f.listed && len(f.lacking) == 0 {
		fault("%s does not have it", watchedName)
	}
	faults = append(faults, f.lacking...)
	if len(faults) > 0 {
		return errors.New("its watch is not whole, and changes by others would not be told: " + strings.Join(faults, "; ") +
			" (lockstep watch install mends it, and lockstep watch remove does without)")
	}
	return nil
}

// action is a foreign key of the table itself by which the server changes its rows, or
// deletes them, and runs no trigger.
type action struct {
	name, parent string
	columns      []string
	rule         string
	deletes      bool
}

func (a action) String() string {
	return fmt.Sprintf("by the foreign key %s, %s of a row of %s changes rows of it, and the server runs no trigger for that", a.name, a.rule, a.parent)
}

func actionsOn(ctx context.Context, s *session, schema, table string) (all []action, err error) {
	err = s.query(ctx, `SELECT k.CONSTRAINT_NAME, k.REFERENCED_TABLE_NAME, k.COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE
FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r
	ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME
WHERE k.TABLE_SCHEMA = ? AND k.TABLE_NAME = ? AND k.REFERENCED_TABLE_NAME IS NOT NULL ORDER BY 1, k.ORDINAL_POSITION`,
		[]any{schema, table}, func(row []driver.Value) error {
			var rules []string
			for i, event := range []string{"DELETE", "UPDATE"} {
				if rule := text(row[3+i]); rule != "RESTRICT" && rule != "NO ACTION" {
					rules = append(rules, "ON "+event+" "+rule)
				}
			}
			if len(rules) == 0 {
				return nil
			}
			name := text(row[0])
			if n := len(all); n == 0 || all[n-1].name != name {
				all = append(all, action{name: name, parent: text(row[1]), rule: strings.Join(rules, " and "), deletes: text(row[3]) == "CASCADE"})
			}
			last := &all[len(all)-1]
			last.columns = append(last.columns, text(row[2]))
			return nil
		})
	return all, err
}

// unseen returns the first action that changes what is told by key, or one of some
// columns.
func unseen(all []action, s *shape, columns []string) (a action, ok bool) {
	for _, a := range all {
		if a.deletes || slices.ContainsFunc(a.columns, func(name string) bool {
			c := s.column(name)
			return c != nil && c.keyPlace > 0 || slices.ContainsFunc(columns, func(m string) bool { return strings.EqualFold(m, name) })
		}) {
			return a, true
		}
	}
	return a, false
}

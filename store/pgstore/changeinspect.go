package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// foundLog is what the catalog says of a table's watch.
type foundLog struct {
	// triggers are those whose names are ours.
	triggers []foundTrigger
	// others are the schema's own.
	others []string
	// lacking are the privileges of the role that a watcher needs.
	lacking []string
	// alone: no other table of the schema is watched.
	alone bool
}

type foundTrigger struct {
	logTrigger
	plain                    bool // for any column, without a condition
	schema, function, source string
	definer                  bool
	settings                 string
}

// ours is an SQL condition on the pg_trigger g.
const ours = `g.tgname LIKE 'lockstep\_watch\_%'`

func (l *changeLog) find(ctx context.Context, q querier, oid uint32) (*foundLog, error) {
	f := &foundLog{}
	rows, err := q.Query(ctx, `SELECT g.tgname::text, g.tgtype, coalesce(g.tgoldtable::text, ''), coalesce(g.tgnewtable::text, ''), g.tgenabled::text,
	g.tgattr::text = '' AND g.tgqual IS NULL, n.nspname::text, p.proname::text, p.prosrc, p.prosecdef, coalesce(array_to_string(p.proconfig, ', '), ''), `+ours+`
FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE g.tgrelid = $1::int8::oid AND NOT g.tgisinternal ORDER BY g.tgname`, int64(oid))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var t foundTrigger
		var our bool
		if err := rows.Scan(&t.name, &t.kind, &t.old, &t.new, &t.enabled, &t.plain, &t.schema, &t.function, &t.source, &t.definer, &t.settings, &our); err != nil {
			return nil, err
		}
		if our {
			f.triggers = append(f.triggers, t)
		} else {
			f.others = append(f.others, t.name)
		}
	}
	if err := rows.Err(); err != nil || len(f.triggers) == 0 {
		return f, err
	}
	rows, err = q.Query(ctx, `SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
		WHERE `+ours+` AND c.relnamespace = n.oid AND c.oid <> $1::int8::oid),
	ARRAY(SELECT w.privilege || ' on ' || w.name FROM (VALUES ($2::text, 'SELECT'), ($2::text, 'DELETE'), ($3::text, 'SELECT'), ($3::text, 'UPDATE')) AS w(name, privilege)
		WHERE NOT coalesce(has_table_privilege(to_regclass(w.name), w.privilege), false))
FROM pg_catalog.pg_namespace n WHERE n.nspname = $4::text`, int64(oid), l.log(), l.horizon(), l.schema)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&f.alone, &f.lacking); err != nil {
			return nil, err
		}
	}
	return f, rows.Err()
}

// functionSettings is what the function's SET clauses look like in pg_proc.
const functionSettings = `search_path=pg_catalog, pg_temp, extra_float_digits=3, bytea_output=hex`

// check says what is wrong with a watch that is there.
func (f *foundLog) check(l *changeLog) error {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for _, want := range logTriggers {
		i := slices.IndexFunc(f.triggers, func(t foundTrigger) bool { return t.name == want.name })
		if i < 0 {
			fault("the trigger %s is missing", want.name)
			continue
		}
		t := f.triggers[i]
		switch {
		case t.enabled != want.enabled:
			fault("the trigger %s is disabled, or enabled in another way", t.name)
		case t.kind != want.kind || t.old != want.old || t.new != want.new || !t.plain || t.schema != l.schema || t.function != l.function():
			fault("the trigger %s is not the one that was installed", t.name)
		case t.source != l.source() || !t.definer || t.settings != functionSettings:
			fault("the function of the trigger %s is not the one that this version of lockstep installs", t.name)
		}
	}
	if len(f.triggers) > len(logTriggers) {
		fault("it has other triggers whose names begin with %s", watchPrefix)
	}
	if len(faults) == 0 && len(f.lacking) > 0 {
		fault("the role lacks %s", strings.Join(f.lacking, ", "))
	}
	if len(faults) > 0 {
		return errors.New("its watch is not whole, and changes by others would not be told: " + strings.Join(slices.Compact(faults), "; ") +
			" (lockstep watch install mends it, and lockstep watch remove does without)")
	}
	return nil
}

package pgstore

import (
	"fmt"
	"strings"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// tableSQL are the texts of what is run on one mapped table. Parameters are arrays,
// one a column: the key's first, then the written ones and the version.
type tableSQL struct {
	read, lock, lockHard   string // the rows of keys; lockHard keeps them from being referred to, too
	locked                 string // the places of the keys whose rows somebody else holds
	scanFirst, scanNext    string
	give                   string // inserts a row without its key, and returns that
	insert, update, remove string // update is empty where nothing is written
	lockAll, removeAll     string
	kept                   string // fails if some of the keys have no row, or one with a version that is too low
	highest                string
	set                    []int // the places in Value of the columns that are written
}

func newTableSQL(s *shape, keys, values []mapping.Field, version int) tableSQL {
	var q tableSQL
	var names, params, columns, key, same, into, elements, assigns, keyParams []string
	add := func(f mapping.Field, alias string) (name, element string) {
		names = append(names, alias)
		params = append(params, fmt.Sprintf("$%d::%s", len(names), wire(f.Type).parameter()))
		name = quote(f.Column)
		element = s.column(f.Column).assign(wire(f.Type), "u."+alias)
		into, elements = append(into, name), append(elements, element)
		return name, element
	}
	always := ""
	for i, f := range keys {
		name, element := add(f, fmt.Sprint("k", i))
		c := s.column(f.Column)
		key = append(key, "t."+name)
		same = append(same, "t."+name+" = "+element)
		columns = append(columns, c.read(wire(f.Type), "t."+name))
		keyParams = append(keyParams, c.assign(wire(f.Type), fmt.Sprintf("$%d::pg_catalog.%s", i+2, f.Type)))
		if c.identity == "a" {
			always = "OVERRIDING SYSTEM VALUE "
		}
	}
	keyRows := unnest(params, names)
	var ownParams []string
	for i, f := range values {
		columns = append(columns, s.column(f.Column).read(wire(f.Type), "t."+quote(f.Column)))
		if f.Written || i == version {
			name, element := add(f, fmt.Sprint("v", i))
			assigns = append(assigns, name+" = "+element)
			if f.Default != "" {
				elements[len(elements)-1] = "COALESCE(" + element + ", " + f.Default + ")"
			}
			if i == version {
				// See guard: this clock is read under the lock of the absent row.
				elements[len(elements)-1] = s.column(f.Column).assign(wire(f.Type), "greatest(u."+fmt.Sprint("v", i)+", "+clockSQL+")")
			}
			ownParams = append(ownParams, fmt.Sprintf("$%d::%s", len(ownParams)+1, wire(f.Type).parameter()))
			q.set = append(q.set, i)
		}
	}
	allRows := unnest(params, names)
	table, on, order := s.sql()+" AS t", strings.Join(same, " AND "), strings.Join(key, ", ")
	list := "SELECT " + strings.Join(columns, ", ") + " FROM "
	q.read = list + keyRows + " JOIN " + table + " ON " + on
	q.lock = q.read + " ORDER BY " + order + " FOR NO KEY UPDATE OF t"
	q.lockHard = q.read + " ORDER BY " + order + " FOR UPDATE OF t"
	numbered := strings.Replace(keyRows, ") AS u(", ") WITH ORDINALITY AS u(", 1)
	numbered = numbered[:len(numbered)-1] + ", place)"
	q.locked = fmt.Sprintf(`WITH free AS MATERIALIZED (SELECT u.place FROM %[1]s JOIN %[2]s ON %[3]s FOR UPDATE OF t SKIP LOCKED)
SELECT u.place FROM %[1]s JOIN %[2]s ON %[3]s WHERE u.place NOT IN (SELECT place FROM free)`, numbered, table, on)
	q.scanFirst = list + table + " ORDER BY " + order + " LIMIT $1::pg_catalog.int8"
	q.scanNext = list + table + " WHERE (" + order + ") > (" + strings.Join(keyParams, ", ") + ") ORDER BY " + order + " LIMIT $1::pg_catalog.int8"

	q.insert = counted(fmt.Sprintf("INSERT INTO %s (%s) %sSELECT %s FROM %s", table, strings.Join(into, ", "), always,
		strings.Join(elements, ", "), allRows), len(names))
	q.give = fmt.Sprintf("INSERT INTO %s DEFAULT VALUES RETURNING %s", table, columns[0])
	if own := len(keys); len(into) > own {
		q.give = fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s RETURNING %s", table, strings.Join(into[own:], ", "),
			strings.Join(elements[own:], ", "), unnest(ownParams, names[own:]), columns[0])
	}
	if len(assigns) > 0 {
		q.update = counted(fmt.Sprintf("UPDATE %s SET %s FROM %s WHERE %s", table, strings.Join(assigns, ", "), allRows, on), len(names))
	}
	q.remove = counted(fmt.Sprintf("DELETE FROM %s USING %s WHERE %s", table, keyRows, on), len(keys))
	q.kept = newKept(s, params[:len(keys)], names[:len(keys)], table, on, values, version)
	q.lockAll = "LOCK TABLE " + s.sql() + " IN SHARE ROW EXCLUSIVE MODE"
	q.removeAll = "WITH gone AS (DELETE FROM " + table + " RETURNING 1) SELECT count(*) FROM gone"
	if version >= 0 {
		q.highest = fmt.Sprintf("SELECT coalesce(max(t.%s), 0) FROM %s", quote(values[version].Column), table)
	}
	return q
}

// newKept is the text of kept: the key's parameters, with versions the least that each
// row must have, and the number of the rows. It fails by itself, as counted does.
func newKept(s *shape, params, names []string, table, on string, values []mapping.Field, version int) string {
	n := len(params)
	grown := ""
	if version >= 0 {
		n++
		params, names = append(params[:n-1:n-1], fmt.Sprintf("$%d::%s", n, wireInt.parameter())), append(names[:n-1:n-1], "least")
		column := values[version].Column
		low := fmt.Sprintf("FILTER (WHERE (t.%s >= u.least) IS NOT TRUE)", quote(column))
		grown = fmt.Sprintf(` WHEN count(*) %[1]s > 0 THEN
	('key ' || min(concat_ws(', ', %[2]s)) %[1]s || ': a trigger keeps its version from growing (column %[3]s), or lowers that of a new row')::int`,
			low, "u."+strings.Join(names[:n-1], ", u."), strings.ReplaceAll(column, "'", "''"))
	}
	return fmt.Sprintf(`SELECT CASE WHEN count(*) <> $%[1]d::int8 THEN
	(($%[1]d::int8 - count(*)) || ' rows are not there under their keys: a trigger has changed or deleted them')::int%[5]s END FROM %[2]s JOIN %[3]s ON %[4]s`,
		n+1, unnest(params, names), table, on, grown)
}

// unnest has no schema's name before it: of several arrays it is a part of the
// grammar, and no function.
func unnest(params, names []string) string {
	return "unnest(" + strings.Join(params, ", ") + ") AS u(" + strings.Join(names, ", ") + ")"
}

// counted makes a statement fail that changes another number of rows than the
// parameter after the n-th says, as a BEFORE trigger that returns NULL brings about.
// It has to fail by itself, for COMMIT is on its way already. The message is in the
// text that is no integer.
func counted(statement string, n int) string {
	return fmt.Sprintf(`WITH changed AS (%s RETURNING 1)
SELECT CASE WHEN count(*) <> $%[2]d::int8 THEN (count(*) || ' of ' || $%[2]d::int8 || ' rows changed: a trigger has ignored the rest')::int END FROM changed`, statement, n+1)
}

// guardSQL takes the advisory locks of some stripes of a table, in the order given.
const guardSQL = `SELECT g.stripe FROM unnest($2::int4[], $3::bool[]) AS g(stripe, alone)
WHERE CASE WHEN g.alone THEN pg_advisory_xact_lock($1::int4, g.stripe) IS NOT NULL
	ELSE pg_advisory_xact_lock_shared($1::int4, g.stripe) IS NOT NULL END`

// waitSQL bounds how long each statement of the transaction waits for a lock.
const waitSQL = `SELECT set_config('lock_timeout', $1::text, true)`

package pgstore

import (
	"fmt"
	"strings"
)

// statements are the texts of everything that is run often on one table.
type statements struct {
	load, loadOne       string
	scanFirst, scanNext string

	// set, setOne, change and changeLate are the batches of changes that expect nothing,
	// in autocommit mode; see blind.go.
	set, setOne, change, changeLate string
	// propose is one value for a row that is there; see lone.go.
	propose string

	lock, states, write string
	removeAll, lockAll  string
	wait                string
	locked              string

	end, purge string
	found      string
	older      string
}

// newStatements: key is the type of the key column in SQL, value the value
// column's.
//
// Where the table is watched, a statement that writes also says who does.
func newStatements(t tableInfo, o *outside) statements {
	key := sqlType(t.keyColumn)
	value := "bytea"
	if t.text {
		value = "text"
	}
	order := "u.k"
	if key == "text" {
		order += ` COLLATE "C"`
	}
	f := func(text string) string {
		return strings.NewReplacer("{table}", t.qualified(), "{meta}", t.meta(), "{keys}", "$1::"+key+"[]", "{key}", key,
			"{value}", value, "{order}", order, "{clock}", clockSQL).Replace(text)
	}
	const (
		columns = `key, value, version, expires_at, deleted_at, {clock}`
		// patience sets how long the statement's transaction waits for each lock. It is
		// a subquery without a reference to the row, which is evaluated before the first
		// row is, and so before the first lock is asked for.
		patience = `(SELECT set_config('lock_timeout', coalesce(%s::text, current_setting('lock_timeout')), true)) IS NOT NULL`
	)
	waits := func(param string) string {
		if o == nil {
			return fmt.Sprintf(patience, param)
		}
		return fmt.Sprintf(patience+` AND (SELECT `+markSQL+`) IS NOT NULL`, param, o.writer)
	}

	// once is waits("$5") for a statement of one row, which needs no subquery to be
	// evaluated once, and before the row is locked.
	once := `set_config('lock_timeout', $5::text, true) IS NOT NULL`
	// now is for a statement that waits for nobody.
	now := `set_config('lock_timeout', '1ms', true) IS NOT NULL`
	if o != nil {
		mark := ` AND (SELECT ` + fmt.Sprintf(markSQL, o.writer) + `) IS NOT NULL`
		once, now = once+mark, now+mark
	}
	set := func(rows string) string {
		return `INSERT INTO {table} AS r (key, value, version)
` + rows + `
ON CONFLICT (key) DO UPDATE SET value = excluded.value,
	version = greatest(r.version + $4::bigint, greatest({clock}, $3::bigint) + $4::bigint - 1), expires_at = NULL, deleted_at = NULL
RETURNING key, version, expires_at, {clock}`
	}

	// $1 keys, $2 values, $3 the least version, $4 the stride, $5 lock_timeout; $6
	// expires_at, $7 lifetimes, $8 whether an absent row is to be locked.
	change := func(first, and string) string {
		return first + `
INSERT INTO {table} AS r (key, value, version, expires_at, deleted_at)
SELECT u.k, u.v, CASE WHEN u.v IS NULL THEN 0 ELSE greatest({clock}, $3::bigint) + $4::bigint - 1 END,
	coalesce(u.at, {clock} + u.life), CASE WHEN u.v IS NULL THEN {clock} END
FROM unnest({keys}, $2::{value}[], $6::bigint[], $7::bigint[], $8::boolean[]) AS u(k, v, at, life, sure)
WHERE ` + waits("$5") + and + `
	AND (u.v IS NOT NULL OR u.sure OR EXISTS (SELECT FROM {table} x WHERE x.key = u.k))
ORDER BY {order}
ON CONFLICT (key) DO UPDATE SET value = excluded.value,
	version = CASE WHEN excluded.deleted_at IS NOT NULL AND r.deleted_at IS NOT NULL THEN r.version
		ELSE greatest(r.version + $4::bigint, greatest({clock}, $3::bigint) + $4::bigint - 1) END,
	expires_at = CASE WHEN excluded.deleted_at IS NULL THEN excluded.expires_at
		WHEN r.deleted_at IS NULL AND (r.expires_at IS NULL OR r.expires_at > {clock}) THEN {clock} END,
	deleted_at = CASE WHEN excluded.deleted_at IS NOT NULL THEN coalesce(r.deleted_at, {clock}) END
RETURNING key, version, expires_at, {clock}`
	}
	return statements{
		load:      f(`SELECT ` + columns + ` FROM {table} WHERE key = ANY({keys})`),
		loadOne:   f(`SELECT ` + columns + ` FROM {table} WHERE key = $1::{key}`),
		scanFirst: f(`SELECT ` + columns + ` FROM {table} WHERE deleted_at IS NULL ORDER BY key LIMIT $1::bigint`),
		scanNext:  f(`SELECT ` + columns + ` FROM {table} WHERE deleted_at IS NULL AND key > $2::{key} ORDER BY key LIMIT $1::bigint`),

		set: f(set(`SELECT u.k, u.v, greatest({clock}, $3::bigint) + $4::bigint - 1
FROM unnest({keys}, $2::{value}[]) AS u(k, v) WHERE ` + waits("$5") + `
ORDER BY {order}`)),
		// Without the lists, and the subquery, it costs the server less.
		setOne: f(set(`SELECT $1::{key}, $2::{value}, greatest({clock}, $3::bigint) + $4::bigint - 1 WHERE ` + once)),
		propose: f(`UPDATE {table} SET value = $2::{value}, version = $3::bigint, expires_at = NULL
WHERE key = $1::{key} AND version < $3::bigint AND deleted_at IS NULL AND ` + now),
		change: f(change("", "")),
		changeLate: f(change(`WITH held AS MATERIALIZED (SELECT key FROM {table} WHERE key = ANY({keys}) AND `+waits("$5")+` ORDER BY key FOR UPDATE)`,
			` AND (SELECT count(*) FROM held) >= 0`)),

		// The row is locked also where WHERE says that it is not to be changed.
		lock: f(`INSERT INTO {table} AS r (key, version, deleted_at)
SELECT u.k, 0, {clock} FROM unnest({keys}) AS u(k) WHERE ` + waits("$2") + ` ORDER BY {order}
ON CONFLICT (key) DO UPDATE SET version = r.version WHERE false`),
		states: f(`SELECT key, version, expires_at, deleted_at FROM {table} WHERE key = ANY({keys})`),
		write: f(`INSERT INTO {table} (key, value, version, expires_at, deleted_at)
SELECT u.k, u.v, u.version, u.expires, u.deleted
FROM unnest({keys}, $2::{value}[], $3::bigint[], $4::bigint[], $5::bigint[]) AS u(k, v, version, expires, deleted)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version,
	expires_at = excluded.expires_at, deleted_at = excluded.deleted_at`),
		wait:    `SELECT ` + waits("$1"),
		lockAll: f(`LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE`),
		removeAll: f(`UPDATE {table} SET value = NULL, version = greatest(version + 1, {clock}, $1::bigint), expires_at = NULL, deleted_at = {clock}
WHERE deleted_at IS NULL`),
		locked: f(`WITH free AS MATERIALIZED (SELECT key FROM {table} WHERE key = ANY({keys}) FOR UPDATE SKIP LOCKED)
SELECT key FROM {table} WHERE key = ANY({keys}) AND key NOT IN (SELECT key FROM free)`),

		end: f(`WITH ended AS (UPDATE {table} SET value = NULL, expires_at = NULL, deleted_at = {clock} WHERE key IN
	(SELECT key FROM {table} WHERE expires_at <= {clock} AND deleted_at IS NULL ORDER BY key LIMIT $1::bigint FOR UPDATE SKIP LOCKED)
RETURNING 1) SELECT count(*) FROM ended`),
		purge: f(`WITH purged AS (DELETE FROM {table} WHERE key IN
	(SELECT key FROM {table} WHERE deleted_at < {clock} - $1::bigint ORDER BY key LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
RETURNING version), raised AS (UPDATE {meta} SET floor = greatest(floor, (SELECT max(version) FROM purged))
	WHERE name = $3::text AND EXISTS (SELECT FROM purged))
SELECT count(*), coalesce(max(version), 0) FROM purged`),

		older: f(`SELECT EXISTS (SELECT FROM {table} WHERE deleted_at IS NULL AND version < $1::bigint)`),
		found: f(`SELECT key, version, value, expires_at, deleted_at FROM {table} WHERE key = ANY({keys})`),
	}
}

// sqlType is a key column's type without its collation.
func sqlType(declared string) string {
	key, _, _ := strings.Cut(declared, " COLLATE")
	return key
}

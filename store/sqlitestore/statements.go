package sqlitestore

import "fmt"

// statements are the texts of everything that is run often on one table. Each
// connection prepares them once.
type statements struct {
	load  [len(chunks)]string // key, value, version, expires_at, deleted
	state [len(chunks)]string // key, version, expires_at, deleted, rowid

	scanFirst, scanNext string

	insert, update string // a state, as it is after a decision

	set, setAbsent, setVersion string // the lone ones, in autocommit mode
	remove, removeVersion      string
	removeAll                  string

	overdue, end, stale, purge, floor string
	found                             string
}

func newStatements(table string) statements {
	t := inMain(table)
	f := func(format string) string { return fmt.Sprintf(format, t) }
	const (
		// Of the parameters of a lone statement, ?5 is now and ?6 the version.
		alive  = `deleted = 0 AND (expires_at IS NULL OR expires_at > ?5)`
		upsert = `INSERT INTO %[1]s (key, value, version, expires_at, deleted) VALUES (?1, ?2, ?3, ?4, 0)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = max(version + 1, excluded.version),
	expires_at = excluded.expires_at, deleted = 0`
		bury = `UPDATE %[1]s SET value = NULL, version = max(version + 1, ?3), expires_at = NULL, deleted = 1
WHERE key = ?1 AND ` + alive
	)
	s := statements{
		load:  selectChunks(f(`SELECT key, value, version, expires_at, deleted FROM %[1]s`), "key"),
		state: selectChunks(f(`SELECT key, version, expires_at, deleted, rowid FROM %[1]s`), "key"),

		scanFirst: f(`SELECT key, value, version, expires_at, deleted FROM %[1]s WHERE deleted = 0 ORDER BY key LIMIT ?`),
		scanNext:  f(`SELECT key, value, version, expires_at, deleted FROM %[1]s WHERE deleted = 0 AND key > ? ORDER BY key LIMIT ?`),

		insert: f(`INSERT INTO %[1]s (key, value, version, expires_at, deleted) VALUES (?, ?, ?, ?, ?)`),
		update: f(`UPDATE %[1]s SET value = ?, version = ?, expires_at = ?, deleted = ? WHERE rowid = ?`),

		set:       f(upsert + ` RETURNING version`),
		setAbsent: f(upsert + ` WHERE NOT (` + alive + `) RETURNING version`),
		setVersion: f(`UPDATE %[1]s SET value = ?2, version = max(version + 1, ?3), expires_at = ?4
WHERE key = ?1 AND version = ?6 AND ` + alive + ` RETURNING version`),
		remove:        f(bury + ` RETURNING version`),
		removeVersion: f(bury + ` AND version = ?6 RETURNING version`),
		removeAll: f(`UPDATE %[1]s SET value = NULL, version = max(version + 1, ?), expires_at = NULL, deleted = 1
WHERE deleted = 0`),

		overdue: f(`SELECT EXISTS (SELECT 1 FROM %[1]s WHERE expires_at IS NOT NULL AND expires_at <= ?)`),
		end: f(`UPDATE %[1]s SET value = NULL, expires_at = NULL, deleted = 1 WHERE rowid IN
(SELECT rowid FROM %[1]s WHERE expires_at IS NOT NULL AND expires_at <= ? LIMIT ?)`),
		stale: f(`SELECT count(*), max(version) FROM
(SELECT version FROM %[1]s WHERE deleted = 1 AND version < ? ORDER BY version LIMIT ?)`),
		purge: f(`DELETE FROM %[1]s WHERE rowid IN
(SELECT rowid FROM %[1]s WHERE deleted = 1 AND version < ? ORDER BY version LIMIT ?)`),
		floor: `UPDATE main.lockstep_tables SET floor = max(floor, ?) WHERE name = ? COLLATE NOCASE`,

		found: f(`SELECT version, value, deleted FROM %[1]s WHERE key = ?`),
	}
	return s
}

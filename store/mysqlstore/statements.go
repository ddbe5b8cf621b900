package mysqlstore

import (
	"fmt"
	"slices"
	"strings"
)

// Every text with a list exists in a few lengths, so that a handful of prepared
// statements serves all of them. A list of keys is padded with its last key, for the
// database finds out about a repeated one for less than another statement would
// cost; a list of rows, see rowSizes.
var keySizes = []int{1, 4, 16, 64, 256}

// rowSizes are the lengths of lists of rows: all up to 32, then every second, and above 64
// each an eighth above the one before. They are closer to each other than keySizes, since a
// row that is there twice is written twice, and no closer, since the server keeps a
// statement of each that a session has used, by the row.
var rowSizes = [...]int{
	1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 34, 36, 38, 40, 42, 44, 46,
	48, 50, 52, 54, 56, 58, 60, 62, 64, 72, 81, 91, 102, 115, 129, 145, 163, 183, 206, 232, 261, 294, 331, 372, 419, 471, maxRows,
}

// maxRows is the most rows in a statement.
const maxRows = 512

// statements are the texts of everything that is run often on one table. Each
// session prepares them once.
//
// What locks rows by their keys forces the primary index: in a small table the
// optimizer would rather read all of it, and lock, or wait for, rows that nobody has
// named.
type statements struct {
	load, state, stateSkip, peek, found [5]string // by the index in keySizes

	scanFirst, scanNext string

	set, setAbsent, setVersion string // the lone ones, in autocommit mode
	remove, removeVersion      string
	removeAll, stamped         string

	blind, blindMortal [len(rowSizes)]string // by the index in rowSizes
	upsert, insert     [len(rowSizes)]string
	insertNow          [len(rowSizes)]string // which does not wait
	unplace            [5]string

	over         string
	purge, bury  [5]string
	probe, clock string
}

const columns = "(`key`, `value`, `version`, `expires_at`, `deleted`, `stamp`)"

func newStatements(t string, mariadb bool) *statements {
	now := ""
	if mariadb {
		now = "SET STATEMENT innodb_lock_wait_timeout=0 FOR "
	}
	f := func(format string, args ...any) string {
		return strings.NewReplacer("TABLE", t, "CLOCK", clockSQL).Replace(fmt.Sprintf(format, args...))
	}
	byKeys := func(before, after string) (out [5]string) {
		for i, n := range keySizes {
			out[i] = f("%s `key` IN (?%s)%s", before, strings.Repeat(",?", n-1), after)
		}
		return out
	}
	byRows := func(before, row, after string) (out [len(rowSizes)]string) {
		for i, n := range rowSizes {
			out[i] = f("%sINSERT INTO TABLE "+columns+" VALUES %s%s%s", before, row, strings.Repeat(","+row, n-1), after)
		}
		return out
	}
	const (
		alive = " AND `deleted` = 0 AND (`expires_at` IS NULL OR `expires_at` > CLOCK)"
		// A tombstone's lifetime ends when it may be purged.
		bury    = "UPDATE TABLE FORCE INDEX (PRIMARY) SET `value` = NULL, `version` = LAST_INSERT_ID(GREATEST(`version` + 1, CLOCK, ?)), `expires_at` = CLOCK + %d, `deleted` = 1, `stamp` = ? WHERE `key` = ?" + alive
		replace = " ON DUPLICATE KEY UPDATE `value` = VALUES(`value`), `version` = %s, `expires_at` = VALUES(`expires_at`), `deleted` = VALUES(`deleted`), `stamp` = VALUES(`stamp`)"
		lock    = "SELECT `key`, `version`, `expires_at`, `deleted`, CLOCK FROM TABLE FORCE INDEX (PRIMARY) WHERE"
	)
	keep := keepTombstones.Microseconds()
	return &statements{
		load:      byKeys("SELECT `key`, `value`, `version`, `expires_at`, `deleted`, CLOCK FROM TABLE FORCE INDEX (PRIMARY) WHERE", ""),
		state:     byKeys(lock, " ORDER BY `key` FOR UPDATE"),
		stateSkip: byKeys(lock, " ORDER BY `key` FOR UPDATE SKIP LOCKED"),
		peek:      byKeys("SELECT `key` FROM TABLE FORCE INDEX (PRIMARY) WHERE", ""),
		found:     byKeys("SELECT `key`, `version`, `expires_at`, `deleted`, CLOCK, `stamp` FROM TABLE FORCE INDEX (PRIMARY) WHERE", ""),

		scanFirst: f("SELECT `key`, `value`, `version`, `expires_at`, `deleted`, CLOCK FROM TABLE FORCE INDEX (PRIMARY) WHERE `deleted` = 0 ORDER BY `key` LIMIT ?"),
		scanNext:  f("SELECT `key`, `value`, `version`, `expires_at`, `deleted`, CLOCK FROM TABLE FORCE INDEX (PRIMARY) WHERE `deleted` = 0 AND `key` > ? ORDER BY `key` LIMIT ?"),

		// LAST_INSERT_ID(x) sends x back with the statement's own reply, on both
		// servers, where a result of RETURNING would have a description of its
		// columns.
		set: f("%s", now+"INSERT INTO TABLE "+columns+" VALUES (?, ?, LAST_INSERT_ID(GREATEST(CLOCK, ?)), NULL, 0, ?)"+
			" ON DUPLICATE KEY UPDATE `value` = VALUES(`value`), `version` = LAST_INSERT_ID(GREATEST(`version` + 1, VALUES(`version`))), `expires_at` = NULL, `deleted` = 0, `stamp` = VALUES(`stamp`)"),
		setAbsent: f("%s", now+"INSERT INTO TABLE "+columns+" VALUES (?, ?, LAST_INSERT_ID(GREATEST(CLOCK, ?)), NULL, 0, ?)"),
		setVersion: f("%s", now+"UPDATE TABLE FORCE INDEX (PRIMARY) SET `value` = ?, `version` = LAST_INSERT_ID(GREATEST(`version` + 1, CLOCK, ?)), `expires_at` = NULL, `stamp` = ? WHERE `key` = ?"+
			alive+" AND `version` = ?"),
		remove:        f("%s"+bury, now, keep),
		removeVersion: f("%s"+bury, now, keep) + " AND `version` = ?",
		removeAll:     f("UPDATE TABLE SET `value` = NULL, `version` = GREATEST(`version` + 1, ?), `expires_at` = ?, `deleted` = 1, `stamp` = ? WHERE `deleted` = 0"),
		stamped:       f("SELECT EXISTS (SELECT 1 FROM TABLE WHERE `stamp` = ?)"),

		blind:       byRows(now, "(?, ?, GREATEST(CLOCK, ?), NULL, 0, ?)", fmt.Sprintf(replace, "GREATEST(`version` + ?, VALUES(`version`))")+" RETURNING `key`, `version`"),
		blindMortal: byRows(now, "(?, ?, GREATEST(CLOCK, ?), CLOCK * ? + ?, 0, ?)", fmt.Sprintf(replace, "GREATEST(`version` + ?, VALUES(`version`))")+" RETURNING `key`, `version`, `expires_at`, CLOCK"),
		upsert:      byRows("", "(?, ?, ?, ?, ?, ?)", fmt.Sprintf(replace, "VALUES(`version`)")),
		insert:      byRows("", "(?, ?, ?, ?, ?, ?)", ""),
		insertNow:   byRows(now, "(?, ?, ?, ?, ?, ?)", ""),
		unplace:     byKeys("DELETE TABLE FROM TABLE FORCE INDEX (PRIMARY) WHERE `version` = 0 AND", ""),

		over:  f("SELECT `key` FROM TABLE FORCE INDEX (`ends`) WHERE `expires_at` <= ? ORDER BY `expires_at` LIMIT %d", sweepRows),
		purge: byKeys("DELETE TABLE FROM TABLE FORCE INDEX (PRIMARY) WHERE `deleted` = 1 AND `expires_at` <= ? AND", ""),
		bury:  byKeys("UPDATE TABLE FORCE INDEX (PRIMARY) SET `value` = NULL, `expires_at` = ?, `deleted` = 1 WHERE `deleted` = 0 AND `expires_at` <= ? AND", ""),
		probe: f("SELECT `key` FROM TABLE FORCE INDEX (PRIMARY) WHERE `key` = ? FOR UPDATE NOWAIT"),
		clock: f("SELECT CLOCK"),
	}
}

// inChunks calls f with the keys, chunk by chunk, and the chunk's index in keySizes.
// Before the keys come the arguments in lead.
func inChunks(keys []any, f func(size int, args []any) error, lead ...any) error {
	for len(keys) > 0 {
		i, _ := slices.BinarySearch(keySizes, len(keys))
		i = min(i, len(keySizes)-1)
		n := min(len(keys), keySizes[i])
		args := append(slices.Clip(lead), keys[:n]...)
		for len(args) < len(lead)+keySizes[i] {
			args = append(args, keys[n-1])
		}
		if err := f(i, args); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

package mysqlstore

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"strings"
)

// A watched table has triggers of ours that write down which of its rows are changed,
// whoever changes them: a row a key into the change log of its database.
//
//	id        AUTO_INCREMENT: drawn before the commit, and so committed in any order
//	tbl       the table's name; NULL: the number is nobody's
//	key       the primary key's columns, as keyText has them
//	version   a copy with this version, or a higher one, is as new; NULL: none is
//	conn      the connection, whose rows of one transaction become visible together
//	writer    the store that made the change, and knows of it; NULL: somebody else
//
// A watcher that has come to a number remembers those before it that it has not seen.
// Most belong to transactions that are open. The others were rolled back, and there
// nothing in the server tells the two apart for certain: a transaction draws its
// number a moment before it inserts the row. So the number is taken away from it: a
// row that is nobody's is inserted there. Where an open transaction has the number
// already, that meets its lock, and where it is about to insert it, it is told that
// there is such a row, and draws another one, which is what the loop in the procedure
// is for.
//
// A change that fails to be written down fails with the statement that made it. The
// triggers run with the privileges of who has installed them, and with the sql_mode and
// character set of then, so that whoever may write the table need have no privilege on
// the log, and no setting of a session changes a key's text. A key column that is
// renamed breaks them: the watch is removed before, and installed afterwards.
//
// They call a procedure, all of the schema the same one, which costs a bulk statement
// some microseconds a row: MariaDB 10.11 refuses triggers that write a table each by
// itself, under LOCK TABLES.
type changeLog struct {
	schema, table string
	keys          []tableColumn
	// versionColumn is the version's, "" where the table has none that grows.
	versionColumn string
	// own: a key-value table of ours, with tombstones.
	own bool
}

const (
	logName     = "lockstep_changes"
	horizonName = "lockstep_horizon"
	watchedName = "lockstep_watched"
	watchPrefix = "lockstep_watch_"
	// procedureName stands for what it does, and becomes another one with that: who may not
	// see its body need not.
	procedureName = "lockstep_changed"
)

func (l *changeLog) in(name string) string { return quote(l.schema) + "." + quote(name) }
func (l *changeLog) log() string           { return l.in(logName) }
func (l *changeLog) horizon() string       { return l.in(horizonName) }
func (l *changeLog) watched() string       { return l.in(watchedName) }
func (l *changeLog) procedure() string     { return l.in(procedureName) }
func (l *changeLog) qualified() string     { return l.in(l.table) }

// logTrigger is a trigger as information_schema.TRIGGERS has it.
type logTrigger struct{ name, event, body string }

// triggers are those of the table. Their names are the schema's, and have the table's
// in them; names longer than 64 characters are refused by the server.
func (l *changeLog) triggers() []logTrigger {
	suffix := l.table
	if len(watchPrefix+"insert_"+suffix) > 64 {
		sum := md5.Sum([]byte(suffix))
		suffix = hex.EncodeToString(sum[:])
	}
	var all []logTrigger
	for _, t := range []struct{ event, body string }{
		{"INSERT", l.unless("NEW.`deleted` = 1 AND NEW.`version` = 0", l.call("NEW", "NULL"))},
		{"UPDATE", l.updated()},
		{"DELETE", l.unless("OLD.`deleted` = 1", l.call("OLD", l.next()))},
	} {
		all = append(all, logTrigger{watchPrefix + strings.ToLower(t.event) + "_" + suffix, t.event, t.body})
	}
	return all
}

// createProcedure writes rows until one's number has not been taken away.
func (l *changeLog) createProcedure() string {
	return fmt.Sprintf(`CREATE PROCEDURE %s (t VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, k VARBINARY(%d), v BIGINT)
MODIFIES SQL DATA
BEGIN
	DECLARE taken BOOLEAN DEFAULT TRUE;
	DECLARE CONTINUE HANDLER FOR %d SET taken = TRUE;
	WHILE taken DO
		SET taken = FALSE;
		INSERT INTO %s (`+"`tbl`, `key`, `version`, `conn`, `writer`"+`) VALUES (t, k, v, CONNECTION_ID(), LEFT(@lockstep_writer, %d));
	END WHILE;
END`, l.procedure(), keyTextBytes, errDuplicate, l.log(), writerBytes)
}

// updated writes both keys of a row whose key is changed. A version is told where the
// change raised it: one that somebody left as it was, or set back, or chose for a new
// row, says nothing of who is newer. The version of a deletion is the row's next one.
func (l *changeLog) updated() string {
	var same []string
	for _, k := range l.keys {
		same = append(same, "NEW."+quote(k.name)+" = OLD."+quote(k.name))
	}
	version := "NULL"
	if l.versionColumn != "" {
		version = fmt.Sprintf("IF(NEW.%[1]s > OLD.%[1]s, NEW.%[1]s, NULL)", quote(l.versionColumn))
	}
	change := "IF " + strings.Join(same, " AND ") + " THEN\n\t\t" + l.call("NEW", version) +
		";\n\tELSE\n\t\t" + l.call("OLD", l.next()) + ";\n\t\t" + l.call("NEW", "NULL") + ";\n\tEND IF"
	if l.own {
		return l.unless("NEW.`deleted` = 1 AND OLD.`deleted` = 1 AND NEW.`version` = OLD.`version`", change)
	}
	return "BEGIN\n\t" + change + ";\nEND"
}

// unless leaves out what is no change of a table of ours: tombstones that lock an
// absent row, and those that are purged.
func (l *changeLog) unless(condition, change string) string {
	if !l.own {
		return change
	}
	return "BEGIN\n\tIF NOT (" + condition + ") THEN\n\t\t" + strings.ReplaceAll(change, "\n", "\n\t") + ";\n\tEND IF;\nEND"
}

func (l *changeLog) next() string {
	if l.versionColumn == "" {
		return "NULL"
	}
	return fmt.Sprintf("IF(OLD.%[1]s < 9223372036854775807, OLD.%[1]s + 1, NULL)", quote(l.versionColumn))
}

func (l *changeLog) call(of, version string) string {
	return fmt.Sprintf("CALL %s(%s, %s, %s)", l.procedure(), literal(l.table), l.keyText(of), version)
}

// keyText is each column as its length, a colon, and its bytes.
func (l *changeLog) keyText(of string) string {
	var parts []string
	for _, k := range l.keys {
		text := "CAST(" + of + "." + quote(k.name) + " AS BINARY)"
		if k.family == uuids { // whose bytes would be those of its value
			text = "CAST(CAST(" + of + "." + quote(k.name) + " AS CHAR) AS BINARY)"
		}
		parts = append(parts, "LENGTH("+text+"), ':', "+text)
	}
	return "CONCAT(" + strings.Join(parts, ", ") + ")"
}

// keyTextBytes has room for the longest key that InnoDB allows, with numbers that are
// longer as texts, and the lengths.
const keyTextBytes = 4096

// literal is a text in a statement, whatever NO_BACKSLASH_ESCAPES says, which the server
// shows as it was written: MySQL tells of a trigger's text with quotes that are doubled
// no more.
func literal(s string) string {
	if strings.ContainsAny(s, `\'`) {
		return "CONVERT(x'" + hex.EncodeToString([]byte(s)) + "' USING utf8mb4)"
	}
	return "'" + s + "'"
}

// install are the statements that install the watch, or replace the one that is there.
// DDL commits by itself: a watch that is installed in part is not whole, and nobody
// watches by it.
func (l *changeLog) install(f *foundLog, account string) []string {
	statements := []string{
		// Whoever wants to write the table waits behind those that lock it here.
		"SET SESSION lock_wait_timeout = 10",
		"CREATE TABLE IF NOT EXISTS " + l.log() + " (\n" +
			"	`id` BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,\n" +
			"	`tbl` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL COMMENT 'NULL: the number is nobody''s',\n" +
			fmt.Sprintf("	`key` VARBINARY(%d) NULL COMMENT 'of the row that was changed',\n", keyTextBytes) +
			"	`version` BIGINT NULL COMMENT 'of the row, where it grew',\n" +
			"	`conn` BIGINT UNSIGNED NULL COMMENT 'the connection',\n" +
			fmt.Sprintf("	`writer` VARBINARY(%d) NULL COMMENT 'who knows of it already'\n", writerBytes) +
			") ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
		"CREATE TABLE IF NOT EXISTS " + l.horizon() + " (\n" +
			"	`one` TINYINT NOT NULL PRIMARY KEY,\n" +
			"	`settled` BIGINT NOT NULL DEFAULT 0 COMMENT 'all changes up to it are known',\n" +
			"	`purged` BIGINT NOT NULL DEFAULT 0 COMMENT 'those before it have been removed',\n" +
			"	`mark` BIGINT NOT NULL DEFAULT 0 COMMENT 'what settled was at marked_at',\n" +
			"	`marked_at` BIGINT NOT NULL DEFAULT 0 COMMENT 'µs since 1970'\n" +
			") ENGINE=InnoDB",
		"CREATE TABLE IF NOT EXISTS " + l.watched() + " (\n" +
			"	`tbl` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY\n" +
			") ENGINE=InnoDB",
		"INSERT IGNORE INTO " + l.horizon() + " (`one`) VALUES (1)",
		// The log is never empty: one that is has lost what was in it.
		"INSERT IGNORE INTO " + l.log() + " (`id`) SELECT GREATEST(1, `settled`) FROM " + l.horizon() + " WHERE `one` = 1",
		"INSERT IGNORE INTO " + l.watched() + " VALUES (" + literal(l.table) + ")",
	}
	if f.definer == "" {
		statements = append(statements, l.createProcedure())
	}
	statements = append(statements, l.dropTriggers(f.names())...)
	for _, t := range l.triggers() {
		statements = append(statements, fmt.Sprintf("CREATE TRIGGER %s AFTER %s ON %s FOR EACH ROW %s", l.in(t.name), t.event, l.qualified(), t.body))
	}
	if account != "" {
		statements = append(statements,
			fmt.Sprintf("GRANT TRIGGER ON %s TO %s", l.qualified(), account),
			fmt.Sprintf("GRANT SELECT, INSERT, DELETE ON %s TO %s", l.log(), account),
			fmt.Sprintf("GRANT SELECT, UPDATE ON %s TO %s", l.horizon(), account),
			fmt.Sprintf("GRANT SELECT ON %s TO %s", l.watched(), account))
	}
	return statements
}

func (l *changeLog) dropTriggers(found []logTrigger) (statements []string) {
	for _, t := range found {
		statements = append(statements, "DROP TRIGGER IF EXISTS "+l.in(t.name))
	}
	return statements
}

// remove are the statements that undo install; last says that no other table of the
// schema is watched. What the log has of the table stays until it is old: to remove
// it would leave numbers that watchers of other tables look for.
func (l *changeLog) remove(found []logTrigger, last bool) []string {
	statements := append([]string{"SET SESSION lock_wait_timeout = 10"}, l.dropTriggers(found)...)
	if last {
		return append(statements, "DROP PROCEDURE IF EXISTS "+l.procedure(), "DROP TABLE IF EXISTS "+l.watched(), "DROP TABLE IF EXISTS "+l.log(), "DROP TABLE IF EXISTS "+l.horizon())
	}
	return append(statements, "DELETE FROM "+l.watched()+" WHERE `tbl` = "+literal(l.table))
}

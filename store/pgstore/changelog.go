package pgstore

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"strings"
)

// A watched table has triggers of ours that write down which of its rows are changed,
// whoever changes them: a row a key into the change log of its schema. The log says
// no more than a watcher has to know. It is unlogged, which spares the writers half of
// what it costs them: a crash, or a failover, that empties it has ended every watcher's
// session too, and those begin anew.
//
//	xid       the transaction, by which a watcher tells what it has seen
//	tbl       the table's oid
//	key       the primary key's columns as texts, which decode exactly; NULL: any row
//	version   a copy with this version, or a higher one, is as new; NULL: none is
//	writer    the store that made the change, and knows of it; NULL: somebody else
//
// Statement triggers with transition tables write one INSERT for a statement of any
// size. They do not fire where changes are applied by logical replication, or with
// session_replication_role=replica, which a row trigger does instead: ENABLE REPLICA
// keeps the two from firing together.
//
// A change that fails to be written down fails with the statement that made it. So
// nothing in the function depends on the session: names are qualified, and settings
// that texts depend on are its own. It is SECURITY DEFINER, so that whoever may write
// the table need have no privilege on the log. A key column that is renamed breaks it:
// the watch is removed before, and installed afterwards.
type changeLog struct {
	schema, table string
	keys          []string
	// versionColumn is the version's, "" where the table has none that grows.
	versionColumn string
	// own: a key-value table of ours, with tombstones.
	own bool
}

const (
	logName     = "lockstep_changes"
	horizonName = "lockstep_horizon"
	watchPrefix = "lockstep_watch_"
)

func (l *changeLog) log() string       { return qualify(l.schema, logName) }
func (l *changeLog) horizon() string   { return qualify(l.schema, horizonName) }
func (l *changeLog) qualified() string { return qualify(l.schema, l.table) }

// function is the name of the table's trigger function. Names longer than 63 bytes
// would be cut.
func (l *changeLog) function() string {
	name := watchPrefix + l.table
	if len(name) > 63 {
		sum := md5.Sum([]byte(l.table))
		name = watchPrefix + hex.EncodeToString(sum[:])
	}
	return name
}

// logTrigger is a trigger as pg_trigger has it.
type logTrigger struct {
	name, event string
	kind        int16 // tgtype
	old, new    string
	enabled     string // tgenabled
}

// The bits of tgtype: 1 for each row, 4 INSERT, 8 DELETE, 16 UPDATE, 32 TRUNCATE.
var logTriggers = []logTrigger{
	{watchPrefix + "insert", "INSERT", 4, "", "new_rows", "O"},
	{watchPrefix + "update", "UPDATE", 16, "old_rows", "new_rows", "O"},
	{watchPrefix + "delete", "DELETE", 8, "old_rows", "", "O"},
	{watchPrefix + "truncate", "TRUNCATE", 32, "", "", "A"},
	{watchPrefix + "applied", "INSERT OR UPDATE OR DELETE", 1 | 4 | 8 | 16, "", "", "R"},
}

func (t logTrigger) create(l *changeLog) []string {
	var referencing, each string
	if t.old != "" {
		referencing += " OLD TABLE AS " + t.old
	}
	if t.new != "" {
		referencing += " NEW TABLE AS " + t.new
	}
	if referencing != "" {
		referencing = " REFERENCING" + referencing
	}
	if each = "STATEMENT"; t.kind&1 != 0 {
		each = "ROW"
	}
	statements := []string{fmt.Sprintf("CREATE TRIGGER %s AFTER %s ON %s%s FOR EACH %s EXECUTE FUNCTION %s()",
		t.name, t.event, l.qualified(), referencing, each, qualify(l.schema, l.function()))}
	switch t.enabled {
	case "A":
		statements = append(statements, fmt.Sprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s", l.qualified(), t.name))
	case "R":
		statements = append(statements, fmt.Sprintf("ALTER TABLE %s ENABLE REPLICA TRIGGER %s", l.qualified(), t.name))
	}
	return statements
}

// wakeClass is the high half of the advisory lock that the one who wakes the watchers
// holds until its transaction ends; the low half is the table's oid.
const wakeClass = 0x6c737470 // "lstp"

// source is the body of the table's trigger function. It is compared as a whole: a
// table whose function has another one is not watched by this version of the package.
//
// A version is told where the change raised it: one that somebody left as it was, or
// set back, or chose for a new row, says nothing of who is newer. The version of a
// deletion is the row's next one.
//
// The writer counts where its own statement has changed the row. What triggers and
// foreign keys do in turn is deeper, and nobody's.
//
// NOTIFY takes a lock of the whole cluster until the transaction has ended, its sync
// included: of writers that all notify, each would sync alone. So only one at a time
// does, the one that gets an advisory lock, and nobody waits for it; the watcher looks
// again soon after it was woken, for those who did not. A transaction that has
// notified cannot be prepared for a two-phase commit, and where there may be such
// ones nobody notifies.
func (l *changeLog) source() string {
	row := func(of string) string {
		texts := make([]string, len(l.keys))
		for i, k := range l.keys {
			texts[i] = of + quote(k) + `::text COLLATE "C"`
		}
		return "ARRAY[" + strings.Join(texts, ", ") + "]"
	}
	version, next, dead := "NULL::bigint", "NULL::bigint", "false"
	if l.versionColumn != "" {
		version = quote(l.versionColumn)
		next = fmt.Sprintf("CASE WHEN %[1]s < 9223372036854775807 THEN %[1]s + 1 END", version)
	}
	inserted, deleted := "", ""
	if l.own {
		// Tombstones that lock an absent row, and those that are purged, change nothing.
		dead = "deleted_at IS NOT NULL"
		inserted, deleted = " WHERE deleted_at IS NULL OR version <> 0", " WHERE deleted_at IS NULL"
	}
	return strings.NewReplacer("{log}", l.log(), "{key}", row(""), "{old}", row("OLD."), "{new}", row("NEW."), "{version}", version,
		"{next}", next, "{dead}", dead, "{inserted}", inserted, "{deleted}", deleted, "{class}", fmt.Sprint(wakeClass)).Replace(`
DECLARE
	me text := CASE WHEN pg_trigger_depth() = 1 THEN nullif(current_setting('lockstep.writer', true), '') END;
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		INSERT INTO {log} (tbl) VALUES (TG_RELID);
	ELSIF TG_LEVEL = 'ROW' THEN
		IF TG_OP <> 'INSERT' THEN
			INSERT INTO {log} (tbl, key) VALUES (TG_RELID, {old});
		END IF;
		IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND {new} <> {old} THEN
			INSERT INTO {log} (tbl, key) VALUES (TG_RELID, {new});
		END IF;
		RETURN NULL;
	ELSIF TG_OP = 'INSERT' THEN
		INSERT INTO {log} (tbl, key, writer) SELECT TG_RELID, {key}, me FROM new_rows{inserted};
	ELSIF TG_OP = 'DELETE' THEN
		INSERT INTO {log} (tbl, key, version, writer) SELECT TG_RELID, {key}, {next}, me FROM old_rows{deleted};
	ELSE
		INSERT INTO {log} (tbl, key, version, writer)
		SELECT TG_RELID, k, CASE WHEN n.version > o.version THEN n.version WHEN n.k IS NULL THEN o.next END, me
		FROM (SELECT {key} AS k, {version} AS version, {next} AS next, {dead} AS dead FROM old_rows) AS o
		FULL JOIN (SELECT {key} AS k, {version} AS version, {dead} AS dead FROM new_rows) AS n USING (k)
		WHERE (o.dead AND n.dead AND o.version = n.version) IS NOT TRUE;
	END IF;
	IF FOUND AND current_setting('max_prepared_transactions') = '0'
			AND pg_try_advisory_xact_lock({class}::bigint << 32 | TG_RELID::bigint) THEN
		PERFORM pg_notify('lockstep_' || TG_RELID, '');
	END IF;
	RETURN NULL;
END`)
}

// install are the statements that install the watch, in one transaction; replace says
// that the table has triggers of that name.
func (l *changeLog) install(replace bool, role string) []string {
	statements := []string{
		// Whoever wants to write the table waits behind those that lock it here.
		"SET LOCAL lock_timeout = '10s'",
		fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", int64(ensureLock)),
		fmt.Sprintf(`CREATE UNLOGGED TABLE IF NOT EXISTS %s (
	xid xid8 NOT NULL DEFAULT pg_current_xact_id(), -- the transaction
	tbl oid NOT NULL,
	key text[],     -- of the row that was changed; NULL: any row
	version bigint, -- of the row, where it grew
	writer text     -- who knows of it already
)`, l.log()),
		fmt.Sprintf("CREATE INDEX IF NOT EXISTS %s ON %s (xid)", quote(logName+"_xid"), l.log()),
		fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s (
	one boolean PRIMARY KEY DEFAULT true CHECK (one),
	purged xid8 NOT NULL DEFAULT '0', -- transactions before it have been removed from the log
	mark xid8 NOT NULL DEFAULT '0',   -- those before it were over at marked_at
	marked_at timestamptz NOT NULL DEFAULT now()
)`, l.horizon()),
		fmt.Sprintf("INSERT INTO %s DEFAULT VALUES ON CONFLICT DO NOTHING", l.horizon()),
		fmt.Sprintf(`CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 3 SET bytea_output = 'hex' AS %s`,
			qualify(l.schema, l.function()), quoteBody(l.source())),
		fmt.Sprintf("REVOKE ALL ON FUNCTION %s() FROM PUBLIC", qualify(l.schema, l.function())),
	}
	if replace {
		statements = append(statements, l.dropTriggers()...)
	}
	for _, t := range logTriggers {
		statements = append(statements, t.create(l)...)
	}
	if role != "" {
		statements = append(statements,
			fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", quote(l.schema), quote(role)),
			fmt.Sprintf("GRANT SELECT, DELETE ON %s TO %s", l.log(), quote(role)),
			fmt.Sprintf("GRANT SELECT, UPDATE ON %s TO %s", l.horizon(), quote(role)))
	}
	return statements
}

func (l *changeLog) dropTriggers() (statements []string) {
	for _, t := range logTriggers {
		statements = append(statements, fmt.Sprintf("DROP TRIGGER IF EXISTS %s ON %s", t.name, l.qualified()))
	}
	return statements
}

// remove are the statements that undo install; last says that no other table of the
// schema is watched.
func (l *changeLog) remove(oid uint32, last bool) []string {
	statements := append([]string{
		"SET LOCAL lock_timeout = '10s'",
		fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", int64(ensureLock)),
	}, l.dropTriggers()...)
	statements = append(statements, fmt.Sprintf("DROP FUNCTION IF EXISTS %s()", qualify(l.schema, l.function())))
	if last {
		return append(statements, "DROP TABLE IF EXISTS "+l.log(), "DROP TABLE IF EXISTS "+l.horizon())
	}
	return append(statements, fmt.Sprintf("DELETE FROM %s WHERE tbl = %d", l.log(), oid))
}

// quoteBody puts a function's body between dollars, which a person can read.
func quoteBody(body string) string {
	tag := "$lockstep$"
	for strings.Contains(body, tag) { // in the name of a column
		tag = tag[:len(tag)-1] + "_$"
	}
	return tag + body + tag
}

package mysqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/lockstep-cache/lockstep/store/internal/keytext"
)

// tableInfo is what has to be known of one of our tables.
type tableInfo struct {
	name     string
	key      string // keytext.Codec.Kind
	form     keytext.Form
	keyBytes int
	codec    string
	text     bool
}

// layout is the number of the last migration: the layout that this version of the
// package reads and writes.
var layout = int64(len(migrations))

// migrations[i] brings a table from layout i to layout i+1; layout 0 is no table at
// all. A change of the layout is one more function here, and never a change of an
// earlier one, so that a new table and an old one go the same way. DDL commits by
// itself: each must do no harm when it is run again.
var migrations = []func(db *Database, t tableInfo) string{
	// The key is bytes, which are compared without padding or collation. It is as
	// long as InnoDB allows whatever MaxKeyBytes is, for the width costs nothing.
	//
	// There is no unique index beside the primary key, and there must be none: ON
	// DUPLICATE KEY UPDATE would hit another row through it. The index on expires_at
	// finds what is over, rows and tombstones alike. It costs nothing to replace a
	// row that has no lifetime by another.
	func(db *Database, t tableInfo) string {
		return "CREATE TABLE IF NOT EXISTS " + db.qualified(t.name) + " (\n" +
			"	`key` " + keyColumns[t.form].declared + " NOT NULL,\n" +
			"	`value` " + valueColumn(t.text) + " NULL COMMENT 'NULL in a tombstone',\n" +
			"	`version` BIGINT NOT NULL COMMENT 'grows; as a rule µs since 1970',\n" +
			"	`expires_at` BIGINT NULL COMMENT 'µs since 1970; NULL: stays until deleted; a tombstone: when it is purged',\n" +
			"	`deleted` TINYINT NOT NULL COMMENT '1: a tombstone, which keeps the version',\n" +
			"	`stamp` BIGINT NOT NULL COMMENT 'the commit that wrote the row',\n" +
			"	PRIMARY KEY (`key`),\n" +
			"	KEY `ends` (`expires_at`)\n" +
			") ENGINE=InnoDB ROW_FORMAT=DYNAMIC"
	},
}

var keyColumns = map[keytext.Form]struct{ declared, dataType string }{
	keytext.Text:    {fmt.Sprintf("VARBINARY(%d)", keyBytes), "varbinary"},
	keytext.Bytes:   {fmt.Sprintf("VARBINARY(%d)", keyBytes), "varbinary"},
	keytext.Integer: {"BIGINT", "bigint"},
	keytext.Real:    {"DOUBLE", "double"},
}

func valueColumn(text bool) string {
	if text {
		return "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
	}
	return "LONGBLOB"
}

const metaName = "lockstep_tables"

func (db *Database) metaTable() string {
	return "CREATE TABLE IF NOT EXISTS " + db.qualified(metaName) + " (\n" +
		"	`name` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,\n" +
		"	`layout` BIGINT NOT NULL COMMENT 'how the table is laid out',\n" +
		"	`key_kind` TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'what its keys are',\n" +
		"	`codec` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'how its values are encoded',\n" +
		"	`floor` BIGINT NOT NULL DEFAULT 0 COMMENT 'the highest version that was purged'\n" +
		") ENGINE=InnoDB"
}

// ensureTable makes the table, or brings it to the current layout, and returns its
// floor. Nothing is written when there is nothing to do.
func (db *Database) ensureTable(ctx context.Context, t tableInfo) (floor int64, err error) {
	s, err := db.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer db.release(s)
	at, floor, err := db.lookupTable(ctx, s, t)
	if err == nil && at < layout {
		floor, err = db.migrate(ctx, s, t)
	}
	if err == nil {
		err = db.checkTable(ctx, s, t)
	}
	if err != nil {
		return 0, openError(err)
	}
	return floor, nil
}

// lockDDL takes a lock among all that make tables of this database, for a session.
func (db *Database) lockDDL(ctx context.Context, s *session) (unlock func(), err error) {
	sum := sha256.Sum256([]byte(db.name))
	lock := "'lockstep-ddl-" + hex.EncodeToString(sum[:12]) + "'"
	for {
		row, err := s.row(ctx, "SELECT GET_LOCK("+lock+", 1)")
		if err != nil {
			return nil, err
		}
		if locked, _ := integer(row[0]); locked == 1 {
			break
		}
		if ctx.Err() != nil {
			return nil, gaveUp(ctx, "waiting for another process that makes tables")
		}
	}
	return func() {
		if err := s.run(ctx, "DO RELEASE_LOCK("+lock+")"); err != nil {
			s.broken = true // closing it gives the lock up
		}
	}, nil
}

// migrate runs DDL.
func (db *Database) migrate(ctx context.Context, s *session, t tableInfo) (floor int64, err error) {
	unlock, err := db.lockDDL(ctx, s)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if err := s.run(ctx, db.metaTable()); err != nil {
		return 0, err
	}
	// Another process may have been here since.
	at, floor, err := db.lookupTable(ctx, s, t)
	if err != nil {
		return 0, err
	}
	for ; at < layout; at++ {
		if err := s.run(ctx, migrations[at](db, t)); err != nil {
			return 0, err
		}
	}
	_, _, err = s.exec(ctx, "INSERT INTO "+db.qualified(metaName)+" (`name`, `layout`, `key_kind`, `codec`) VALUES (?, ?, ?, ?) "+
		"ON DUPLICATE KEY UPDATE `layout` = VALUES(`layout`)", db.fold(t.name), layout, t.key, t.codec)
	return floor, err
}

// lookupTable returns the table's layout, 0 for one that is not there. An error says
// that it can never be opened as t.
func (db *Database) lookupTable(ctx context.Context, s *session, t tableInfo) (at, floor int64, err error) {
	known := false
	err = s.query(ctx, "SELECT `layout`, `key_kind`, `codec`, `floor` FROM "+db.qualified(metaName)+" WHERE `name` = ?", []any{db.fold(t.name)},
		func(row []driver.Value) error {
			known = true
			at, _ = integer(row[0])
			floor, _ = integer(row[3])
			key, codec := text(row[1]), text(row[2])
			switch {
			case at > layout:
				return invalid("table %s has layout %d, made by a newer version of lockstep; this one knows layouts up to %d", t.name, at, layout)
			case key != t.key:
				return invalid("table %s has keys of kind %s, and the store's are %s", t.name, key, t.key)
			case codec != t.codec:
				return invalid("table %s has values encoded as %s, and the store's codec is %s", t.name, codec, t.codec)
			}
			return nil
		})
	switch number(err) {
	case errNoTable:
		err = nil
	case 1054:
		return 0, 0, invalid("there is a table %s already, and it is not the list of tables that lockstep keeps under that name", metaName)
	}
	if err != nil {
		return 0, 0, err
	}
	kind, _, err := db.tableKind(ctx, s, t.name)
	switch {
	case err != nil:
		return 0, 0, err
	case known && kind == "":
		// The table was dropped by hand: a new one starts, above the old floor.
		return 0, floor, nil
	case !known && kind != "":
		return 0, 0, invalid("there is a %s %s already, and it is not a key-value table of lockstep", strings.ToLower(kind), t.name)
	}
	return at, floor, nil
}

// tableKind returns what a name stands for, "" for nothing.
func (db *Database) tableKind(ctx context.Context, s *session, name string) (kind, engine string, err error) {
	err = s.query(ctx, "SELECT TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
		[]any{db.name, name}, func(row []driver.Value) error {
			if db.fold(text(row[0])) == db.fold(name) {
				kind, engine = text(row[1]), text(row[2])
			}
			return nil
		})
	return kind, engine, err
}

// checkTable makes sure that nobody has changed the table in a way that would make
// the promises false.
func (db *Database) checkTable(ctx context.Context, s *session, t tableInfo) error {
	kind, engine, err := db.tableKind(ctx, s, t.name)
	if err != nil {
		return err
	}
	if kind != "BASE TABLE" || engine != "InnoDB" {
		return invalid("table %s has the engine %s (%s), and it must be InnoDB", t.name, engine, strings.ToLower(kind))
	}
	want := map[string]string{"key": keyColumns[t.form].dataType, "value": "longblob", "version": "bigint", "expires_at": "bigint", "deleted": "tinyint", "stamp": "bigint"}
	if t.text {
		want["value"] = "longtext utf8mb4_bin"
	}
	err = s.query(ctx, "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLLATION_NAME, CHARACTER_MAXIMUM_LENGTH FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
		[]any{db.name, t.name}, func(row []driver.Value) error {
			name := text(row[1])
			if db.fold(text(row[0])) != db.fold(t.name) || want[name] == "" {
				return nil
			}
			if got := strings.TrimSpace(text(row[2]) + " " + text(row[3])); got != want[name] {
				return invalid("column %s of table %s is %s, and it must be %s", name, t.name, got, want[name])
			}
			if width, _ := integer(row[4]); name == "key" && want[name] == "varbinary" && int(width) < t.keyBytes {
				return invalid("column key of table %s has room for %d bytes, and Options.MaxKeyBytes is %d", t.name, width, t.keyBytes)
			}
			delete(want, name)
			return nil
		})
	if err != nil {
		return err
	}
	for name := range want {
		return invalid("table %s has no column %s", t.name, name)
	}
	primary := ""
	err = s.query(ctx, "SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0",
		[]any{db.name, t.name}, func(row []driver.Value) error {
			switch {
			case db.fold(text(row[0])) != db.fold(t.name):
			case text(row[1]) != "PRIMARY":
				return invalid("table %s has the unique index %s, through which an upsert would hit another row", t.name, text(row[1]))
			default:
				primary += text(row[2])
			}
			return nil
		})
	if err != nil {
		return err
	}
	if primary != "key" {
		return invalid("the primary key of table %s is not its column key alone", t.name)
	}
	// What a trigger makes of a row is not read back, and what it refuses would take
	// a whole batch with it.
	return s.query(ctx, "SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = ? AND EVENT_OBJECT_TABLE = ?",
		[]any{db.name, t.name}, func(row []driver.Value) error {
			if db.fold(text(row[0])) != db.fold(t.name) {
				return nil
			}
			if strings.HasPrefix(text(row[1]), watchPrefix) {
				return nil
			}
			return invalid("table %s has the trigger %s, and a key-value table of lockstep can have none but those of a watch", t.name, text(row[1]))
		})
}

func checkTableName(name string) error {
	switch {
	case name == "" || utf8.RuneCountInString(name) > 64 || !utf8.ValidString(name) || strings.ContainsAny(name, "\x00/\\") ||
		strings.HasSuffix(name, " ") || strings.IndexFunc(name, func(r rune) bool { return r > 0xffff }) >= 0:
		return invalid("not a table's name: %q", name)
	case slices.ContainsFunc([]string{metaName, logName, horizonName, watchedName}, func(n string) bool { return strings.EqualFold(name, n) }):
		return invalid("not a table's name: %q is reserved", name)
	}
	return nil
}

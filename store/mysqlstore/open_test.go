package mysqlstore_test

import (
	"database/sql"
	"errors"
	"net"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// refuses checks that opening fails with want, and that the error names what is
// wrong.
func refuses(t testing.TB, err, want error, names ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("opened with %v, want an error that is %v", err, want)
		return
	}
	for _, name := range names {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not say %q: %v", name, err)
		}
	}
}

func openErr(t testing.TB, pool *sql.DB, opts mysqlstore.DatabaseOptions) error {
	t.Helper()
	db, err := mysqlstore.OpenDatabase(t.Context(), pool, opts)
	if err == nil {
		db.Close()
	}
	return err
}

func TestOpenDatabaseRefuses(t *testing.T) {
	var none mysqlstore.DatabaseOptions
	refuses(t, openErr(t, nil, none), lockstep.ErrInvalid, "nil")
	lite, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer lite.Close()
	refuses(t, openErr(t, lite, none), lockstep.ErrInvalid, "go-sql-driver/mysql", "sqlite")

	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	refuses(t, openErr(t, connect(t, "nobody@tcp("+addr+")/app"), none), lockstep.ErrUnavailable, addr)

	dsn := dbtest.MariaDB(t)
	at, slash := strings.Index(dsn, "@"), strings.LastIndex(dsn, "/")
	refuses(t, openErr(t, connect(t, "lockstep:wrong"+dsn[at:]), none), lockstep.ErrInvalid, "Access denied")
	refuses(t, openErr(t, connect(t, dsn[:slash+1]), none), lockstep.ErrInvalid, "names no database")
	refuses(t, openErr(t, connect(t, dsn+"_missing"), none), lockstep.ErrInvalid, "_missing")
	limited := connect(t, dsn)
	limited.SetMaxOpenConns(2)
	refuses(t, openErr(t, limited, none), lockstep.ErrInvalid, "SetMaxOpenConns")
	limited.SetMaxOpenConns(8)
	refuses(t, openErr(t, limited, mysqlstore.DatabaseOptions{MaxSessions: 7}), lockstep.ErrInvalid, "MaxSessions", "SetMaxOpenConns")
	refuses(t, openErr(t, limited, mysqlstore.DatabaseOptions{MaxSessions: -1}), lockstep.ErrInvalid, "MaxSessions")
	if err := openErr(t, limited, none); err != nil {
		t.Error(err)
	}
	for version, ok := range map[string]bool{
		"10.11.6-MariaDB": true, "10.6.0-MariaDB-log": true, "11.4.2-MariaDB-ubu2404": true, "8.0.36": true, "8.4.0": true, "9.1.0": true,
		"8.0.11-TiDB-v7.5.1": false, "8.0.30-Vitess": false,
		"10.5.23-MariaDB": false, "5.7.44-log": false, "5.5.5-10.4.1-MariaDB": false, "?": false,
	} {
		if err := mysqlstore.ServerIs(version); ok != (err == nil) {
			t.Errorf("version %s: %v", version, err)
		}
	}
}

// TestUnsafeSettingsAreRefused: each by its name, and only those of durability can
// be allowed.
func TestUnsafeSettingsAreRefused(t *testing.T) {
	server := dbtest.StartMariaDB(t, "--log-bin=log", "--server-id=1", "--sync-binlog=1", "--binlog-format=ROW")
	pool := connect(t, server.URL())
	if err := openErr(t, pool, mysqlstore.DatabaseOptions{}); err != nil {
		t.Fatal(err)
	}
	type setting struct {
		set, back, name string
		durability      bool
	}
	settings := []setting{
		{"innodb_flush_log_at_trx_commit=2", "innodb_flush_log_at_trx_commit=1", "innodb_flush_log_at_trx_commit", true},
		{"innodb_flush_log_at_trx_commit=0", "innodb_flush_log_at_trx_commit=1", "innodb_flush_log_at_trx_commit", true},
		{"sync_binlog=0", "sync_binlog=1", "sync_binlog", true},
		{"read_only=1", "read_only=0", "read_only", false},
		{"binlog_format=STATEMENT", "binlog_format=ROW", "binlog_format", false},
	}
	if mysqlstore.OnMySQL(t) {
		settings = append(settings, setting{"super_read_only=1", "read_only=0", "read_only", false})
	}
	for _, c := range settings {
		execute(t, pool, "SET GLOBAL "+c.set)
		refuses(t, openErr(t, pool, mysqlstore.DatabaseOptions{}), lockstep.ErrInvalid, c.name)
		if err := openErr(t, pool, mysqlstore.DatabaseOptions{AllowUnsafeDurability: true}); (err == nil) != c.durability {
			t.Errorf("%s with AllowUnsafeDurability: %v", c.set, err)
		}
		execute(t, pool, "SET GLOBAL "+c.back)
	}

	if mysqlstore.OnMySQL(t) {
		unsafeOnMySQL(t, server.URL())
	}

	server = dbtest.StartMariaDB(t, "--skip-innodb-doublewrite", "--sysdate-is-now")
	pool = connect(t, server.URL())
	refuses(t, openErr(t, pool, mysqlstore.DatabaseOptions{}), lockstep.ErrInvalid, "innodb_doublewrite")
	refuses(t, openErr(t, pool, mysqlstore.DatabaseOptions{AllowUnsafeDurability: true}), lockstep.ErrInvalid, "sysdate-is-now")
}

// unsafeOnMySQL has what no MariaDB has.
func unsafeOnMySQL(t *testing.T, dsn string) {
	pool := connect(t, dsn)
	execute(t, pool, "ALTER INSTANCE DISABLE INNODB REDO_LOG")
	refuses(t, openErr(t, pool, mysqlstore.DatabaseOptions{}), lockstep.ErrInvalid, "redo_log")
	execute(t, pool, "ALTER INSTANCE ENABLE INNODB REDO_LOG")

	execute(t, pool, "INSTALL PLUGIN group_replication SONAME 'group_replication.so'")
	if err := openErr(t, pool, mysqlstore.DatabaseOptions{}); err != nil {
		t.Errorf("a group of one primary: %v", err)
	}
	execute(t, pool, "SET GLOBAL group_replication_single_primary_mode=OFF")
	refuses(t, openErr(t, pool, mysqlstore.DatabaseOptions{AllowUnsafeDurability: true}), lockstep.ErrUnsupported, "group_replication_single_primary_mode")
	execute(t, pool, "UNINSTALL PLUGIN group_replication")

	// Which is the server's state, and no mistake of whoever opens the database.
	execute(t, pool, "CREATE USER clerk IDENTIFIED BY 'x'")
	execute(t, pool, "GRANT ALL ON lockstep.* TO clerk")
	execute(t, pool, "SET GLOBAL offline_mode=ON")
	refuses(t, openErr(t, connect(t, "clerk:x"+dsn[strings.Index(dsn, "@"):]), mysqlstore.DatabaseOptions{}), lockstep.ErrUnavailable, "offline")
}

func TestOpenInRefuses(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	db, err := mysqlstore.OpenDatabase(t.Context(), pool, mysqlstore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	in := func(opts mysqlstore.Options) error {
		_, err := mysqlstore.OpenIn[string, string](t.Context(), db, opts)
		return err
	}
	for _, name := range []string{"lockstep_tables", "LOCKSTEP_TABLES", "a/b", "a\x00", "a ", strings.Repeat("t", 65), "\U0001F600", "\xff"} {
		refuses(t, in(mysqlstore.Options{Table: name}), lockstep.ErrInvalid, "table")
	}
	refuses(t, in(mysqlstore.Options{MaxKeyBytes: 3073}), lockstep.ErrInvalid, "MaxKeyBytes")
	refuses(t, in(mysqlstore.Options{MaxValueBytes: 16 << 20}), lockstep.ErrInvalid, "MaxValueBytes", "max_allowed_packet")
	refuses(t, in(mysqlstore.Options{Codec: codec.JSON[int]()}), lockstep.ErrInvalid, "Codec")
	if _, err := mysqlstore.OpenIn[float64, string](t.Context(), nil, mysqlstore.Options{}); !errors.Is(err, lockstep.ErrInvalid) {
		t.Error(err)
	}
	execute(t, pool, "CREATE TABLE foreigner (id INT PRIMARY KEY)")
	refuses(t, in(mysqlstore.Options{Table: "foreigner"}), lockstep.ErrInvalid, "foreigner", "not a key-value table")
	execute(t, pool, "CREATE VIEW viewed AS SELECT 1")
	refuses(t, in(mysqlstore.Options{Table: "viewed"}), lockstep.ErrInvalid, "view")

	for _, c := range []struct{ change, names string }{
		{"ALTER TABLE %s ADD UNIQUE INDEX other (version)", "unique index other"},
		{"CREATE TRIGGER tr BEFORE INSERT ON %s FOR EACH ROW SET NEW.version = 1", "trigger tr"},
		{"ALTER TABLE %s MODIFY value LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", "column value"},
		{"ALTER TABLE %s MODIFY `key` VARBINARY(100) NOT NULL", "MaxKeyBytes"},
		{"ALTER TABLE %s MODIFY `key` VARCHAR(100) CHARACTER SET latin1 NOT NULL", "column key"},
		{"ALTER TABLE %s DROP COLUMN stamp", "no column stamp"},
		{"ALTER TABLE %s DROP PRIMARY KEY, ADD PRIMARY KEY (version)", "primary key"},
		{"ALTER TABLE %s MODIFY `key` VARBINARY(1000) NOT NULL, ENGINE=MyISAM", "engine MyISAM"},
		{"UPDATE lockstep_tables SET layout = 99 WHERE name = '%s'", "newer version"},
		{"UPDATE lockstep_tables SET codec = 'other' WHERE name = '%s'", "encoded as other"},
		{"UPDATE lockstep_tables SET key_kind = 'other' WHERE name = '%s'", "keys of kind other"},
	} {
		opts := mysqlstore.Options{Table: "changed"}
		if err := in(opts); err != nil {
			t.Fatal(err)
		}
		execute(t, pool, strings.ReplaceAll(c.change, "%s", "changed"))
		refuses(t, in(opts), lockstep.ErrInvalid, "changed", c.names)
		execute(t, pool, "DROP TABLE changed")
		execute(t, pool, "DELETE FROM lockstep_tables")
	}

	if err := in(mysqlstore.Options{Table: "lists"}); err != nil {
		t.Fatal(err)
	}
	execute(t, pool, "ALTER TABLE lockstep_tables DROP COLUMN codec")
	refuses(t, in(mysqlstore.Options{Table: "lists"}), lockstep.ErrInvalid, "lockstep_tables")
}

// TestTableDroppedByHand: a new one starts above all versions of the old one that
// are known.
func TestTableDroppedByHand(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	s := openStore(t, dsn)
	write(t, s, put("k", "1"))
	const floor = 1 << 60
	execute(t, pool, "UPDATE lockstep_tables SET floor = ?", int64(floor))
	execute(t, pool, "DROP TABLE lockstep")
	if _, err := s.Load(t.Context(), []string{"k"}); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("Load without a table: %v, want ErrUnavailable", err)
	}
	if _, err := s.Commit(t.Context(), []changeSet{set(put("a", "1")), set(put("k", "1"))}); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("Commit without a table: %v, want ErrInvalid", err)
	}
	again := openStore(t, dsn)
	if row := load(t, again, "k"); row.Exists {
		t.Errorf("the new table has %+v", row)
	}
	for _, sets := range [][]changeSet{{set(put("k", "1"))}, {set(put("a", "1")), set(put("b", "1"))}, {set(expect(lockstep.ExpectAbsent, 0, put("c", "1")), erase("k"))}} {
		outcomes, err := again.Commit(t.Context(), sets)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range outcomes {
			if o.Err != nil || o.Rows[0].Version <= floor {
				t.Errorf("%v: version %d is not above the floor", o.Err, o.Rows[0].Version)
			}
		}
	}
}

// TestCloseLeavesThePoolAlone, with the settings of its connections.
func TestCloseLeavesThePoolAlone(t *testing.T) {
	pool := connect(t, dbtest.MariaDB(t))
	s, err := mysqlstore.Open[string, string](t.Context(), pool, mysqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, put("k", "1"))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Load(t.Context(), []string{"k"}); !errors.Is(err, lockstep.ErrClosed) {
		t.Errorf("Load after Close: %v, want ErrClosed", err)
	}
	if _, err := s.Commit(t.Context(), []changeSet{set(put("k", "2"))}); !errors.Is(err, lockstep.ErrClosed) {
		t.Errorf("Commit after Close: %v, want ErrClosed", err)
	}
	var zone, value string
	if err := pool.QueryRow("SELECT @@time_zone, value FROM lockstep").Scan(&zone, &value); err != nil || zone != "SYSTEM" || value != `"1"` {
		t.Errorf("the program's connection: time_zone=%s, value=%s, %v", zone, value, err)
	}
	if open := pool.Stats().InUse; open != 0 {
		t.Errorf("%d connections are still in use", open)
	}
}

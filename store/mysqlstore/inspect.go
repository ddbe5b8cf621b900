package mysqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// server is what is known of the server.
type server struct {
	dialect  string // "mariadb" or "mysql"
	version  string
	identity string // an expression that no two servers share the value of

	// How it spells what setup sets.
	txPrefix, timeLimit string
	maxPacket           int64
	foldsNames          bool
	snapshots           bool // it can refuse to lock what has changed since a snapshot
}

// mariadb tells whether the server has INSERT … RETURNING.
func (sv *server) mariadb() bool { return sv.dialect == "mariadb" }

// inspect finds out which server it is, and whether the promises can be kept on it.
func (db *Database) inspect(ctx context.Context) error {
	s, err := db.open(ctx)
	if err != nil {
		return err
	}
	row, err := s.row(ctx, "SELECT VERSION(), DATABASE(), @@max_allowed_packet, @@lower_case_table_names")
	s.close()
	if err != nil {
		return err
	}
	if err := db.server.is(text(row[0])); err != nil {
		return err
	}
	if db.name = text(row[1]); db.name == "" {
		return invalid("the *sql.DB's DSN names no database")
	}
	db.server.maxPacket, _ = integer(row[2])
	folds, _ := integer(row[3])
	db.server.foldsNames = folds != 0

	s, err = db.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	if err := db.checkSettings(ctx, s); err != nil {
		return err
	}
	return db.checkFence(ctx, s)
}

// is tells the dialect by what VERSION() has returned.
func (sv *server) is(version string) error {
	sv.version = version
	for _, other := range []string{"TiDB", "Vitess"} {
		if strings.Contains(strings.ToLower(version), strings.ToLower(other)) {
			return unsupported("the server is %s (version %s), and not MariaDB or MySQL: what a lost commit is settled by, and how rows are locked, has not been tried there", other, version)
		}
	}
	least := [2]int{8, 0}
	*sv = server{dialect: "mysql", version: version, identity: "@@server_uuid",
		txPrefix: "transaction", timeLimit: "max_execution_time"}
	if strings.Contains(strings.ToLower(version), "mariadb") {
		least = [2]int{10, 6}
		*sv = server{dialect: "mariadb", version: version, identity: "CONCAT_WS('/', @@hostname, @@port, @@server_id)",
			txPrefix: "tx", timeLimit: "max_statement_time"}
	}
	parts := strings.SplitN(version, ".", 3)
	var got [2]int
	for i := range min(2, len(parts)) {
		got[i], _ = strconv.Atoi(parts[i])
	}
	if sv.mariadb() && slices.Compare(got[:], []int{11, 1}) >= 0 {
		sv.txPrefix = "transaction" // the old name is deprecated
	}
	if slices.Compare(got[:], least[:]) < 0 {
		return invalid("the server's version is %s; MariaDB %s and MySQL %s are the oldest that will do", version, "10.6", "8.0")
	}
	return nil
}

// checkSettings reads what the promises rest on.
func (db *Database) checkSettings(ctx context.Context, s *session) error {
	vars, err := variables(ctx, s, "innodb_flush_log_at_trx_commit", "sync_binlog", "log_bin", "binlog_format", "innodb_doublewrite",
		"innodb_flush_method", "innodb_force_recovery", "read_only", "super_read_only", "innodb_read_only", "wsrep_on",
		"innodb_snapshot_isolation", "group_replication_single_primary_mode")
	if err != nil {
		return err
	}
	_, db.server.snapshots = vars["innodb_snapshot_isolation"]
	on := func(name string) bool { return isOn(vars[name]) }
	for _, name := range []string{"read_only", "super_read_only", "innodb_read_only"} {
		if on(name) {
			return invalid("%s is on: the server takes no writes, or it is a replica, which may lag", name)
		}
	}
	switch {
	case on("wsrep_on"):
		return unsupported("wsrep_on is on: on a Galera cluster a load may miss a commit that another node has acknowledged")
	case vars["group_replication_single_primary_mode"] == "OFF":
		return unsupported("group_replication_single_primary_mode is OFF: where every member of a group takes writes, a load may miss a commit that another one has acknowledged")
	case on("log_bin") && vars["binlog_format"] == "STATEMENT":
		return invalid("binlog_format is STATEMENT, which READ COMMITTED, the isolation level of all sessions, cannot be logged with; set ROW or MIXED")
	case vars["innodb_force_recovery"] != "" && vars["innodb_force_recovery"] != "0":
		return invalid("innodb_force_recovery is %s", vars["innodb_force_recovery"])
	}
	if !db.opts.AllowUnsafeDurability {
		if err := checkDurability(ctx, s, vars); err != nil {
			return err
		}
	}
	row, err := s.row(ctx, "SELECT NOW(6), SLEEP(0.002), SYSDATE(6)")
	if err != nil {
		return err
	}
	if text(row[0]) == text(row[2]) {
		return invalid("sysdate-is-now is set: the clock must be read after a row was locked, and not before")
	}
	return nil
}

func checkDurability(ctx context.Context, s *session, vars map[string]string) error {
	if got := vars["innodb_flush_log_at_trx_commit"]; got != "1" {
		return unsafe("innodb_flush_log_at_trx_commit", got, "1")
	}
	if got := vars["sync_binlog"]; isOn(vars["log_bin"]) && got != "1" {
		return unsafe("sync_binlog", got, "1")
	}
	if got := vars["innodb_doublewrite"]; got == "OFF" || got == "0" || strings.EqualFold(got, "DETECT_ONLY") {
		return unsafe("innodb_doublewrite", got, "ON")
	}
	if got := strings.ToLower(vars["innodb_flush_method"]); got == "nosync" || got == "littlesync" {
		return unsafe("innodb_flush_method", got, "fsync or O_DIRECT")
	}
	status, err := rowsOf(ctx, s, "SHOW GLOBAL STATUS LIKE 'Innodb_redo_log_enabled'")
	if err != nil {
		return err
	}
	for _, row := range status {
		if text(row[1]) == "OFF" {
			return unsafe("Innodb_redo_log_enabled", "OFF", "ON")
		}
	}
	return nil
}

func isOn(value string) bool { return value == "ON" || value == "1" }

func unsafe(name, got, want string) error {
	return invalid("%s is %s, and %s is needed for durable commits; AllowUnsafeDurability accepts it", name, got, want)
}

// variables reads the server's global variables of those names; those that it does
// not have are not in the result.
func variables(ctx context.Context, s *session, names ...string) (map[string]string, error) {
	rows, err := rowsOf(ctx, s, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('"+strings.Join(names, "','")+"')")
	vars := make(map[string]string, len(rows))
	for _, row := range rows {
		vars[text(row[0])] = text(row[1])
	}
	return vars, err
}

// rowsOf sends a query as text and returns all of its rows.
func rowsOf(ctx context.Context, s *session, query string) (all [][]driver.Value, err error) {
	err = s.stream(ctx, query, func(cols []driver.Value) error {
		all = append(all, keep(cols))
		return nil
	})
	return all, err
}

// String describes the database for errors.
func (db *Database) String() string {
	return fmt.Sprintf("database %s of %s", db.name, db.server.version)
}

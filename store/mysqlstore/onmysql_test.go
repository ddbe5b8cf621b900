package mysqlstore

import (
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

var servedBy struct {
	once  sync.Once
	mysql bool
}

// OnMySQL tells whether the tests' server is a MySQL: LOCKSTEP_TEST_MYSQLD.
func OnMySQL(t testing.TB) bool {
	t.Helper()
	servedBy.once.Do(func() {
		pool, err := sql.Open("mysql", dbtest.MariaDB(t))
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		var version string
		if err := pool.QueryRow("SELECT VERSION()").Scan(&version); err != nil {
			t.Fatal(err)
		}
		servedBy.mysql = !strings.Contains(version, "MariaDB")
	})
	return servedBy.mysql
}

// Of gives what is for the tests' server.
func Of[T any](t testing.TB, mariadb, mysql T) T {
	t.Helper()
	if OnMySQL(t) {
		return mysql
	}
	return mariadb
}

// Nopad is the collation whose texts are compared byte by byte.
func Nopad(t testing.TB) string {
	t.Helper()
	return Of(t, "utf8mb4_nopad_bin", "utf8mb4_0900_bin")
}

// RowLockWaits asks how many statements wait for a row. Not INNODB_TRX, which shows an old
// picture to whoever looks often.
func RowLockWaits(t testing.TB) string {
	t.Helper()
	return "SELECT VARIABLE_VALUE FROM " + Of(t, "information_schema.GLOBAL_STATUS", "performance_schema.global_status") +
		" WHERE VARIABLE_NAME = 'INNODB_ROW_LOCK_CURRENT_WAITS'"
}

// Numbers is a table of the numbers from lo to hi, up to 10,000 of them, in its column seq.
func Numbers(lo, hi int) string {
	digit := "(SELECT 0 d" + strings.Repeat(" UNION ALL SELECT %d", 9) + ")"
	digit = fmt.Sprintf(digit, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	return fmt.Sprintf("(SELECT seq FROM (SELECT %[2]d + a.d + 10 * b.d + 100 * c.d + 1000 * e.d AS seq FROM %[1]s a, %[1]s b, %[1]s c, %[1]s e) AS many WHERE seq <= %[3]d) AS numbers", digit, lo, hi)
}

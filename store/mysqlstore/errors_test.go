package mysqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"strconv"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep/store/internal/errortable"
)

// The table in docs/design/unknown.md and the code say the same of every number, and of
// the driver's errors.
func TestTheTableOfFates(t *testing.T) {
	fates, rest := errortable.Fates(t, errortable.Read(t, "MariaDB and MySQL"))
	names := map[fate]string{fateGone: "gone", fateRefused: "refused", fateUnknown: "unknown"}
	says := func(name string, err error, want string) {
		if got := names[fateOf(fmt.Errorf("wrapped: %w", err))]; got != want {
			t.Errorf("%s is %s, and the table says %s", name, got, want)
		}
	}
	for n := range uint16(6000) {
		name := strconv.Itoa(int(n))
		want := rest
		if f, ok := fates[name]; ok {
			want = f
			delete(fates, name)
		}
		says(name, &mysql.MySQLError{Number: n}, want)
	}
	for name, err := range map[string]error{
		"driver.ErrBadConn": driver.ErrBadConn, "sql.ErrConnDone": sql.ErrConnDone,
		"mysql.ErrPktTooLarge": mysql.ErrPktTooLarge, "mysql.ErrInvalidConn": mysql.ErrInvalidConn,
		"context.DeadlineExceeded": context.DeadlineExceeded, "io.EOF": io.EOF,
	} {
		says(name, err, fates[name])
		delete(fates, name)
	}
	for name := range fates {
		t.Errorf("the table names %s, which is neither a number nor an error of the driver's", name)
	}
}

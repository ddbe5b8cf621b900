package dbtest

import (
	"database/sql"
	"fmt"
	"io"
	"net"
	neturl "net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A server that runs already is used in the place of one that would be started, and
// is left as it was.
func TestAServerThatTheEnvironmentNames(t *testing.T) {
	for _, c := range []struct {
		shared *shared
		own    func(testing.TB, ...string) *Server
		check  func(t *testing.T, url string) (databases int)
	}{
		{&sharedPostgres, StartPostgres, func(t *testing.T, url string) (n int) {
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname LIKE 'lockstep_test_%'").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}},
		{&sharedMariaDB, StartMariaDB, func(t *testing.T, dsn string) (n int) {
			db, err := sql.Open("mysql", dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if err := db.QueryRow("SELECT count(*) FROM information_schema.schemata WHERE schema_name LIKE 'lockstep_test_%'").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}},
		{&sharedRedis, StartRedis, func(t *testing.T, url string) int {
			first, err := neturl.Parse(url) // where the claims are
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", first.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			password, _ := first.User.Password()
			fmt.Fprintf(conn, "AUTH %s\r\nKEYS lockstep_test_*\r\nQUIT\r\n", password)
			said, err := io.ReadAll(conn)
			if err != nil || strings.Contains(string(said), "-") {
				t.Fatalf("%q, %v", said, err)
			}
			return strings.Count(string(said), "lockstep_test_")
		}},
	} {
		t.Run(c.shared.kind.Name(), func(t *testing.T) {
			running := c.own(t)
			t.Setenv(c.shared.variable, running.URL())
			sh := shared{kind: c.shared.kind, variable: c.shared.variable}
			t.Run("InUse", func(t *testing.T) {
				one, two := sh.database(t), sh.database(t)
				if one == two || !strings.Contains(one, running.Addr()) {
					t.Errorf("%s, %s", one, two)
				}
				if n := c.check(t, one); n != 2 {
					t.Errorf("%d databases", n)
				}
			})
			if n := c.check(t, running.URL()); n != 0 {
				t.Errorf("%d databases are left", n)
			}
		})
	}
}

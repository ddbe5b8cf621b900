package mysqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

func TestNewConnectorWithoutAConfig(t *testing.T) {
	if _, err := mysqlstore.NewConnector(nil); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("%v, want ErrInvalid", err)
	}
}

// TestConnectionsAreMadeAsTheConfigSays: by its own DialFunc, and by what is registered for
// its network.
func TestConnectionsAreMadeAsTheConfigSays(t *testing.T) {
	var dialed atomic.Int32
	dial := func(ctx context.Context, _, address string) (net.Conn, error) {
		dialed.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	mysql.RegisterDialContext("tunnel", func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, "", address) })
	t.Cleanup(func() { mysql.DeregisterDialContext("tunnel") })
	for name, change := range map[string]func(c *mysql.Config){
		"DialFunc":   func(c *mysql.Config) { c.DialFunc = dial },
		"registered": func(c *mysql.Config) { c.Net = "tunnel" },
	} {
		t.Run(name, func(t *testing.T) {
			config, err := mysql.ParseDSN(dbtest.MariaDB(t))
			if err != nil {
				t.Fatal(err)
			}
			change(config)
			connector, err := mysqlstore.NewConnector(config)
			if err != nil {
				t.Fatal(err)
			}
			pool := sql.OpenDB(connector)
			defer pool.Close()
			before := dialed.Load()
			s, err := mysqlstore.Open[string, string](t.Context(), pool, mysqlstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if dialed.Load() == before {
				t.Error("it was not asked for a connection")
			}
		})
	}
}

// TestACommitEndsWithItsContext: one that waits for a row which somebody else holds locked
// returns when its context ends, says so, and has written nothing; with the driver's
// watch and without. The store goes on.
func TestACommitEndsWithItsContext(t *testing.T) {
	for name, open := range map[string]func(t testing.TB, dsn string) *sql.DB{"severed": connect, "watched": connectPlainly} {
		t.Run(name, func(t *testing.T) {
			dsn := dbtest.MariaDB(t)
			s, err := mysqlstore.Open[string, string](t.Context(), open(t, dsn), mysqlstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			commit := func(ctx context.Context, value string) error {
				out, err := s.Commit(ctx, []changeSet{set(put("k", value))})
				if err == nil {
					err = out[0].Err
				}
				return err
			}
			if err := commit(t.Context(), "before"); err != nil {
				t.Fatal(err)
			}
			holder, err := connect(t, dsn).BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := holder.Exec("SELECT 1 FROM lockstep WHERE `key` = 'k' FOR UPDATE"); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			err = commit(ctx, "during")
			if !errors.Is(err, lockstep.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, want ErrUnavailable and DeadlineExceeded", err)
			}
			if err := holder.Rollback(); err != nil {
				t.Fatal(err)
			}
			if row, err := loadAgain(t.Context(), s, "k"); err != nil || row.Value != "before" {
				t.Errorf("the row is %+v, %v", row, err)
			}
			if err := commit(t.Context(), "after"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAStatementIsCutOff: one that the server is busy with returns when its context ends.
func TestAStatementIsCutOff(t *testing.T) {
	for name, open := range map[string]func(t testing.TB, dsn string) *sql.DB{"severed": connect, "watched": connectPlainly} {
		t.Run(name, func(t *testing.T) {
			db, err := mysqlstore.OpenDatabase(t.Context(), open(t, dbtest.MariaDB(t)), mysqlstore.DatabaseOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := mysqlstore.RunInSession(ctx, db, "DO SLEEP(5)"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, want DeadlineExceeded", err)
			}
			if err := mysqlstore.RunInSession(t.Context(), db, "DO 1"); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

package mysqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/internal/jointest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// programTx is a transaction of the program's.
type programTx struct {
	*sql.Tx
	db *mysqlstore.Database
}

func (p programTx) Exec(ctx context.Context, query string) error {
	_, err := p.Tx.ExecContext(ctx, query)
	return err
}
func (p programTx) Commit(context.Context) error   { return p.Tx.Commit() }
func (p programTx) Rollback(context.Context) error { return p.Tx.Rollback() }
func (p programTx) Join(ctx context.Context, options ...lockstep.JoinOption) (*lockstep.Joined, error) {
	return mysqlstore.Join(ctx, p.db, p.Tx, options...)
}

// strange are settings of the program's connections with which the stores' statements would
// not do what they do.
const strange = "?charset=latin1&clientFoundRows=true&interpolateParams=true&multiStatements=true&parseTime=true&autocommit=0" +
	"&sql_mode=%27ANSI_QUOTES%2CPAD_CHAR_TO_FULL_LENGTH%27&time_zone=%27%2B05%3A30%27&sql_select_limit=1&sql_safe_updates=1&sql_auto_is_null=1"

func beginIn(pool *sql.DB, db *mysqlstore.Database, opts *sql.TxOptions) func(context.Context) (jointest.Tx, error) {
	return func(ctx context.Context) (jointest.Tx, error) {
		tx, err := pool.BeginTx(ctx, opts)
		return programTx{tx, db}, err
	}
}

// The program's transactions and the stores share one small pool. Of the two stores one has
// a table of its own, and the other a mapped one.
func TestJoin(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	foreign, err := sql.Open("sqlite", ":memory:") // for another server: TestSeveralServersBehindOneAddress
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	plain := connect(t, dsn)
	var tables atomic.Int64
	ownTable := func(t *testing.T, db *mysqlstore.Database, table string) lockstep.Store[string, int] {
		s, err := mysqlstore.OpenIn[string, int](t.Context(), db, mysqlstore.Options{Table: table})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	mappedTable := func(t *testing.T, db *mysqlstore.Database, table string) lockstep.Store[string, int] {
		execute(t, plain, "CREATE TABLE "+table+" (id VARBINARY(20) PRIMARY KEY, n BIGINT NOT NULL, version BIGINT NOT NULL)")
		s, err := mysqlstore.NewTableIn[string, jointest.Row](t.Context(), db, table, mysqlstore.TableOptions{VersionColumn: "version"})
		if err != nil {
			t.Fatal(err)
		}
		return jointest.Ints(s)
	}
	type opened func(t *testing.T, db *mysqlstore.Database, table string) lockstep.Store[string, int]
	for _, c := range []struct {
		name   string
		a, b   opened
		opts   *sql.TxOptions
		params string
	}{
		{"KeyValue", ownTable, mappedTable, nil, ""},
		{"Mapped", mappedTable, ownTable, readCommitted, strange},
	} {
		t.Run(c.name, func(t *testing.T) {
			jointest.Run(t, func(t *testing.T) jointest.Rig {
				n := tables.Add(1)
				pool := connect(t, dsn+c.params)
				pool.SetMaxOpenConns(4)
				db, err := mysqlstore.OpenDatabase(t.Context(), pool, mysqlstore.DatabaseOptions{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { db.Close() })
				log := fmt.Sprint("log", n)
				execute(t, plain, "CREATE TABLE "+log+" (line VARCHAR(10))")
				return jointest.Rig{
					A: c.a(t, db, fmt.Sprint("a", n)), B: c.b(t, db, fmt.Sprint("b", n)),
					Begin: beginIn(pool, db, c.opts), Foreign: beginIn(foreign, db, nil), Settles: true, LogTable: log,
					Log: func(ctx context.Context) (n int, err error) {
						err = plain.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+log).Scan(&n)
						return n, err
					},
				}
			})
		})
	}
}

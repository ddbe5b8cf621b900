package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// mysqlClaim is a user-level lock of a session of its own.
type mysqlClaim struct {
	db   *sql.DB
	conn *sql.Conn
	name string
	id   int64
}

// identity has a NUL between the schema and the table, which no name has.
func (g *mysqlGuest) identity(ctx context.Context, table string) (name string, err error) {
	schema, plain, qualified := strings.Cut(strings.ReplaceAll(table, "`", ""), ".")
	if !qualified {
		schema, plain = g.config.DBName, schema
	}
	err = g.pool.QueryRowContext(ctx, `SELECT CONCAT(table_schema, CHAR(0), table_name) FROM information_schema.tables
WHERE table_schema = ? AND table_name = ? ORDER BY BINARY table_name = ? DESC LIMIT 1`, schema, plain, plain).Scan(&name)
	return name, err
}

func (g *mysqlGuest) claim(ctx context.Context, table string) (_ claim, err error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	connector, err := mysql.NewConnector(g.config.Clone())
	if err != nil {
		return nil, err
	}
	c := mysqlClaim{db: sql.OpenDB(connector)}
	defer func() {
		if err != nil {
			c.release()
		}
	}()
	if c.conn, err = c.db.Conn(ctx); err != nil {
		return nil, err
	}
	schema, name, qualified := strings.Cut(table, "\x00")
	if !qualified {
		schema, name = g.config.DBName, table
	}
	c.name = claimName(schema, name)
	var got sql.NullInt64
	if err := c.conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, 0), CONNECTION_ID()", c.name).Scan(&got, &c.id); err != nil {
		return nil, err
	}
	if got.Int64 == 1 {
		return c, nil
	}
	var other sql.NullInt64
	if err := c.conn.QueryRowContext(ctx, "SELECT IS_USED_LOCK(?)", c.name).Scan(&other); err == nil && other.Valid {
		return nil, fmt.Errorf("%w: it has connection %d", errClaimed, other.Int64)
	}
	return nil, errClaimed
}

// claimName is the lock's: it has at most 64 characters, and the server's are of all its
// databases.
func claimName(database, table string) string {
	sum := sha256.Sum256([]byte(database + "\x00" + table))
	return "lockstep serve " + hex.EncodeToString(sum[:16])
}

func (c mysqlClaim) release() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	_ = c.db.Close() // which ends the session, and its locks
}

func (c mysqlClaim) hold(ctx context.Context) error {
	tick := time.NewTicker(claimCheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := c.check(ctx); err != nil {
			return err
		}
	}
}

func (c mysqlClaim) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	var owner sql.NullInt64
	if err := c.conn.QueryRowContext(ctx, "SELECT IS_USED_LOCK(?)", c.name).Scan(&owner); err != nil {
		return err
	}
	if owner.Int64 != c.id {
		return errors.New("the session does not have the lock any more")
	}
	return nil
}

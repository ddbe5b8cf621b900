package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// sqliteClaim is a transaction that has an empty file beside the database locked. The
// operating system takes the lock away when the program is dead, and at no other time.
// SQLite locks the file in the same way on every system.
type sqliteClaim struct {
	db   *sql.DB
	conn *sql.Conn
}

// identity: users and Users are one table.
func (g *sqliteGuest) identity(_ context.Context, table string) (string, error) {
	return strings.ToLower(table), nil
}

func (g *sqliteGuest) claim(ctx context.Context, table string) (_ claim, err error) {
	path, err := filepath.EvalSymlinks(g.url.Path) // one database by two names is one
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil, err
	}
	// keys and KEYS are one table.
	file := filepath.ToSlash(path) + "-" + url.PathEscape(strings.ToLower(table)) + ".served"
	if !strings.HasPrefix(file, "/") {
		file = "/" + file // a drive's letter
	}
	dsn := url.URL{Scheme: "file", Path: file, RawQuery: "mode=rwc&_pragma=busy_timeout(0)"}
	c := sqliteClaim{}
	if c.db, err = sql.Open("sqlite", dsn.String()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.release()
		}
	}()
	if c.conn, err = c.db.Conn(ctx); err != nil {
		return nil, fmt.Errorf("%s, which is locked while the table is served: %w", file, err)
	}
	if _, err = c.conn.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		if text := err.Error(); strings.Contains(text, "SQLITE_BUSY") || strings.Contains(text, "locked") {
			return nil, fmt.Errorf("%w: it has locked %s", errClaimed, file)
		}
		return nil, fmt.Errorf("%s, which is locked while the table is served: %w", file, err)
	}
	return c, nil
}

func (c sqliteClaim) hold(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (c sqliteClaim) release() {
	if c.conn != nil {
		_, _ = c.conn.ExecContext(context.Background(), "ROLLBACK")
		_ = c.conn.Close()
	}
	_ = c.db.Close()
}

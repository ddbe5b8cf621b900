package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// claimClass is the first key of the advisory lock; the table's number is the second.
const claimClass = 0x4c4f434b

// postgresClaim is an advisory lock of a session of its own.
type postgresClaim struct {
	conn *pgx.Conn
	pid  uint32
}

func (g *postgresGuest) identity(ctx context.Context, table string) (name string, err error) {
	err = g.pool.QueryRow(ctx, `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`, table).Scan(&name)
	return name, err
}

func (g *postgresGuest) claim(ctx context.Context, table string) (_ claim, err error) {
	if g.pooled {
		return unclaimable{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, g.pool.Config().ConnConfig.Copy())
	if err != nil {
		return nil, err
	}
	c := postgresClaim{conn, conn.PgConn().PID()}
	defer func() {
		if err != nil {
			c.release()
		}
	}()
	var (
		got bool
		id  *uint32
	)
	if err := conn.QueryRow(ctx, `SELECT coalesce(to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1)), to_regclass($1))::oid`, table).Scan(&id); err != nil {
		return nil, err
	}
	if id == nil {
		return nil, fmt.Errorf("there is no table %s", table)
	}
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", claimClass, int32(*id)).Scan(&got); err != nil {
		return nil, err
	}
	if got {
		return c, nil
	}
	var pid uint32
	var from string
	if conn.QueryRow(ctx, `SELECT a.pid, coalesce(host(a.client_addr), 'this machine') FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.classid = $1 AND l.objid = $2 AND l.objsubid = 2 AND l.granted
	AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`, claimClass, *id).Scan(&pid, &from) == nil {
		return nil, fmt.Errorf("%w: it has session %d, from %s", errClaimed, pid, from)
	}
	return nil, errClaimed
}

func (c postgresClaim) release() {
	ctx, cancel := context.WithTimeout(context.Background(), claimTimeout)
	defer cancel()
	_ = c.conn.Close(ctx)
}

// hold waits for what the server has to say, which is nothing until the session ends, and
// asks now and then, for one that ends without a word.
func (c postgresClaim) hold(ctx context.Context) error {
	for {
		wait, cancel := context.WithTimeout(ctx, claimCheck)
		_, err := c.conn.WaitForNotification(wait)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if c.conn.IsClosed() {
			return err
		}
		if err := c.check(ctx); err != nil {
			return err
		}
	}
}

func (c postgresClaim) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	var pid uint32
	if err := c.conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		return err
	}
	if pid != c.pid {
		return fmt.Errorf("session %d has become session %d, as behind a pooler", c.pid, pid)
	}
	return nil
}

// unclaimable is for a table that cannot be claimed.
type unclaimable struct{}

func (unclaimable) hold(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (unclaimable) release() {}

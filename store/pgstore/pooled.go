package pgstore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// Behind a pooler that hands out the server's sessions transaction by transaction, a
// connection says nothing of the session that its next statement comes to. So with
// DatabaseOptions.Pooled
//
//   - nothing is left in a session or looked for there: no prepared statements, no
//     LISTEN, no settings but those of a transaction;
//   - whatever reads asks in the same round trip which server answers;
//   - whatever commits does so on the condition that it is the same server, and that the
//     session's commits are durable (lane.guard);
//   - a commit is fenced by its lane (lane.go), and not by the end of its session.

// errMoved says that another server has answered than the one that the connection was
// told of. It says nothing of what was asked, which is asked again.
var errMoved = errors.New("another server has answered than before")

// ask puts the question which server answers into the round trip of what is asked, where
// a transaction begins with it.
func (s *session) ask(commands []command) []command {
	question := command{sql: `SELECT ` + runSQL + `, pg_is_in_recovery()`, row: func(scan func(...any) error) error {
		var started int64
		var recovery bool
		if err := scan(&started, &recovery); err != nil {
			return err
		}
		if started != s.id.server.started || recovery {
			return errMoved
		}
		return nil
	}}
	asking := make([]command, 0, len(commands)+1)
	if commands[0].sql == beginSQL {
		asking, commands = append(asking, commands[0]), commands[1:]
	}
	return append(append(asking, question), commands...)
}

// again looks at the server behind a connection once more, so that all are told if it is
// another one. The connection is not used any more.
func (db *Database) again(ctx context.Context, c *pgx.Conn) {
	// What it finds is noted, and its error shows in whatever is asked next.
	_, _ = db.look(ctx, c)
}

// poolable refuses a connection whose statements outlive a transaction.
func poolable(c *pgx.Conn) error {
	switch mode := c.Config().DefaultQueryExecMode; mode {
	case pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol:
		return nil
	default:
		return invalid("DatabaseOptions.Pooled is set, and the connections run statements by %q, which prepares them in a session that "+
			"the next statement may not come to; open the pool with default_query_exec_mode=exec", mode)
	}
}

// openPooled makes ready for commits that are fenced by lanes. Their table is made with
// the first store (ensureLanes): who only looks at a database changes nothing in it.
func (db *Database) openPooled() error {
	if db.schema == "" {
		return invalid("DatabaseOptions.Pooled needs a table %s, and the search_path has no schema that exists to make it in", lanesName)
	}
	db.lanes = newLanes(qualify(db.schema, lanesName), db.opts.AllowUnsafeDurability)
	return nil
}

// ensureLanes makes the lanes' table, where there are to be lanes.
func (db *Database) ensureLanes(ctx context.Context) error {
	l := db.lanes
	if l == nil {
		return nil
	}
	s, err := db.session(ctx)
	if err != nil {
		return openError(err)
	}
	if err := s.lease.use(func(c *pgx.Conn) error { return l.ensure(ctx, c) }); err != nil {
		db.drop(s)
		return openError(err)
	}
	db.release(s)
	db.keeper.add(l.table, func(ctx context.Context) (bool, error) { return l.sweep(ctx, db) })
	return nil
}

// errNotWatchable is why a watch needs sessions of its own.
func errNotWatchable(table string) error {
	return unsupported("table %s is watched, which needs a session of its own to the server itself, and DatabaseOptions.Pooled is set; "+
		"open the database past the pooler, or remove the watch", table)
}

// errPooledStay refuses what would be left in a session that is somebody else's next.
var errPooledStay = unsupported("what this statement, or call, may leave in the session would be left there for others: DatabaseOptions.Pooled is set")

package mysqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep/store/internal/txconn"
)

// The connection of a transaction that the program began, for as long as that is open. It
// has the program's settings, and neither side's may be in the other's way: each call puts
// ours in their place, and the program's back. Both are one statement, and the server
// keeps the program's meanwhile, in variables of the session.
//
// What was rejected: refusing a connection whose settings differ, for those of the servers
// do by default (sql_mode, time_zone); leaving ours until the end, for the program's own
// statements would run with them; SET STATEMENT … FOR before each statement, which MySQL
// has not.

// programSession is a session by way of a transaction of the program's.
func programSession(tx *sql.Tx) *session {
	return &session{program: &txconn.Conn{Tx: tx}, stmts: map[string]driver.Stmt{}}
}

// borrowed are those settings of setup that a transaction leaves free to be changed.
func (sv *server) borrowed() [][2]string {
	settings := [][2]string{
		{"character_set_client", "utf8mb4"}, {"character_set_results", "utf8mb4"}, {"collation_connection", "utf8mb4_bin"},
		{"sql_mode", "'" + sqlMode + "'"}, {"time_zone", "'+00:00'"}, {sv.timeLimit, "0"},
		{"innodb_lock_wait_timeout", fmt.Sprint(impatience)}, {"sql_select_limit", "DEFAULT"},
		{"sql_safe_updates", "0"}, {"sql_big_selects", "1"}, {"sql_auto_is_null", "0"},
	}
	if sv.snapshots {
		settings = append(settings, [2]string{"innodb_snapshot_isolation", "0"})
	}
	return settings
}

// borrow and giveBack are the two statements.
func (sv *server) borrow(writer string) string {
	settings := sv.borrowed()
	var set []string
	for _, s := range settings {
		set = append(set, "@lockstep_"+s[0]+"=@@"+s[0])
	}
	for _, s := range settings {
		set = append(set, s[0]+"="+s[1])
	}
	return "SET " + strings.Join(set, ", ") + ", @lockstep_writer=" + writerValue(writer)
}

func (sv *server) giveBack() string {
	var set []string
	for _, s := range sv.borrowed() {
		set = append(set, s[0]+"=@lockstep_"+s[0])
	}
	return "SET " + strings.Join(set, ", ") + ", @lockstep_writer=NULL"
}

// meet finds out which connection it is, gives it a name, and marks the transaction.
func (t *joinedTxn) meet(ctx context.Context) error {
	db, s := t.a.db, t.a.s
	if err := t.open(ctx); err != nil {
		return err
	}
	if err := s.nameFence(ctx, db.server.identity); err != nil {
		return notApplied(err)
	}
	var id serverID
	err := t.within(ctx, "", func() error {
		asked := time.Now()
		row, err := s.row(ctx, "SELECT "+clockSQL+", SUBSTR(UUID(), 20)")
		if err != nil {
			return err
		}
		now, _ := integer(row[0])
		started, err := s.begun(ctx, now, asked)
		id = serverID{s.fence.server, text(row[1]), started}
		return err
	})
	if err != nil {
		return notApplied(err)
	}
	if s.server = db.starts.known(id); !db.which.Is(s.server) {
		// Another one may have come since a store has asked.
		if err := db.read(ctx, func(*session) error { return nil }); err != nil {
			return err
		}
		if s.server = db.starts.known(id); !db.which.Is(s.server) {
			return invalid("the transaction is one of another server than the stores'")
		}
	}
	if err := s.run(ctx, "SAVEPOINT "+joinedSavepoint); err != nil {
		return notApplied(err)
	}
	return nil
}

// nameFence takes the lock by which the session is known, once for each connection: nobody
// could release it when a transaction was ended past us, and the next one that is joined
// finds it.
func (s *session) nameFence(ctx context.Context, identity string) error {
	row, err := s.row(ctx, "SELECT CONNECTION_ID(), "+identity+", COALESCE(@lockstep_fence, ''), IS_USED_LOCK(COALESCE(@lockstep_fence, 'lockstep'))")
	if err != nil {
		return err
	}
	s.fence.id, _ = integer(row[0])
	s.fence.server, s.fence.name = text(row[1]), text(row[2])
	if owner, held := integer(row[3]); held && owner == s.fence.id {
		return nil
	}
	s.fence.name = newFenceName()
	if row, err = s.row(ctx, "SELECT GET_LOCK('"+s.fence.name+"', 0)"); err != nil {
		return err
	}
	if locked, _ := integer(row[0]); locked != 1 {
		return unavailable("the session's own lock was not granted")
	}
	return s.run(ctx, "SET @lockstep_fence = '"+s.fence.name+"'")
}

// within calls f with our settings, as a writer.
func (t *joinedTxn) within(ctx context.Context, writer string, f func() error) (err error) {
	if err := t.open(ctx); err != nil {
		return err
	}
	s := t.a.s
	// Not under ctx. Where that had ended before this was sent, what would be put back are
	// the settings that the program had at an earlier call.
	if err := t.detached(t.a.db.server.borrow(writer)); err != nil {
		return err
	}
	defer func() { // also when a value's own method ends the goroutine
		if gerr := t.giveBack(); gerr != nil {
			err = cmp.Or(err, gerr)
		}
	}()
	s.lockWait, s.writer = impatience, writer
	return f()
}

// giveBack puts the program's settings back. Where that fails the connection is ended, and
// with it the transaction. Database/sql may have ended that just now, because its context
// has ended, and have given the connection to somebody else, who then loses it: he would
// write with our settings, and as a store whose cache is not told.
func (t *joinedTxn) giveBack() error {
	err := t.detached(t.a.db.server.giveBack())
	t.a.s.writer = ""
	return err
}

// detached runs a statement without which the connection must not go on, whatever the
// caller's context.
func (t *joinedTxn) detached(query string) error {
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	err := t.a.s.run(ctx, query)
	if err == nil || number(err) == errNoSavepoint {
		return nil
	}
	t.lost = t.lost || gone(err)
	t.a.db.reap(t.a.s.fence)
	err = notApplied(err)
	t.fail(err)
	return err
}

// gone tells whether the driver says that it has closed the connection. The end of a
// context does not say it: it may have come before anything was sent.
func gone(err error) bool {
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn)
}

// open makes sure that a transaction is open on the connection: statements would commit by
// themselves otherwise. The server refuses this one inside a transaction, and nothing else
// comes of it, on MariaDB and MySQL alike.
func (t *joinedTxn) open(ctx context.Context) error {
	err := t.a.s.run(ctx, "SET TRANSACTION READ WRITE")
	switch {
	case err == nil:
		return invalid("the transaction has been ended by a statement, or by the server")
	case number(err) == errInTransaction:
		return nil
	case errors.Is(err, sql.ErrTxDone):
		return invalid("%w", err)
	case ctx.Err() != nil:
		return gaveUp(ctx, "asking the transaction")
	case number(err) == 0 && !gone(err):
		return invalid("the transaction is not one of the driver github.com/go-sql-driver/mysql: %w", err)
	}
	return notApplied(err)
}

// at calls f, which reads or writes a table, as a writer. A temporary table of the
// program's that hides the table would be read or written in its place.
func (t *joinedTxn) at(ctx context.Context, writer, table string, f func() error) error {
	return t.within(ctx, writer, func() error {
		temporary, err := t.a.s.isTemporary(ctx, table)
		if temporary {
			err = invalid("a temporary table that the program has made hides the table %s", table)
		}
		if err != nil {
			return notApplied(err)
		}
		return f()
	})
}

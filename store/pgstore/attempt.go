package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockstep-cache/lockstep"
)

// attempt is one transaction that writes, from the moment it has a session until
// its fate is known. It knows nothing of keys and values.
type attempt struct {
	db      *Database
	session *session
	id      identity // the session's
	born    uint64   // see identity.born
	// lane is the commit's fence where its session is none; nil otherwise.
	lane *lane
	// ended says that nothing can come of the attempt any more, whatever came of it.
	ended bool

	// xact is the transaction's id where the server has told it, 0 where the only
	// reply was lost with the outcome.
	xact uint64
	// epoch is the server's when it gave the id, nil where it was not asked for. See
	// epochSQL.
	epoch *int64
	// verify tells, once the session is gone, whether the rows that the attempt has
	// written are there: errUntold if that cannot be told. It is set before what
	// commits is sent.
	verify func(ctx context.Context, s *session) (applied bool, err error)
	// result is what Commit returns, for Settle; nil if it went with the reply.
	result any
}

// unknownOutcome is the error of a commit that may or may not have been applied.
type unknownOutcome struct {
	attempt *attempt
	cause   error
}

func (e *unknownOutcome) Error() string {
	return fmt.Sprintf("%v: postgres: %v", lockstep.ErrUnknownOutcome, e.cause)
}
func (e *unknownOutcome) Unwrap() error        { return e.cause }
func (e *unknownOutcome) Is(target error) bool { return target == lockstep.ErrUnknownOutcome }

// attempt takes a session for one.
func (db *Database) attempt(ctx context.Context) (*attempt, error) {
	s, err := db.session(ctx)
	if err != nil {
		return nil, notApplied(fateGone, err)
	}
	a := &attempt{db: db, session: s, id: *s.id, born: births.Add(1)}
	if db.lanes != nil {
		if a.lane, err = db.lanes.take(ctx, s); err != nil {
			db.drop(s)
			return nil, notApplied(fateGone, err)
		}
	}
	return a, nil
}

// decisive sends what commits, in one round trip, and gives the session back. Its
// error is an *unknownOutcome, or comes with the fate of a transaction of which
// nothing was applied. The attempt is over.
func (a *attempt) decisive(ctx context.Context, commands ...command) (fate, error) {
	defer a.session.forsake()
	if a.session.closed() {
		a.over(false)
		a.db.drop(a.session)
		return fateGone, unavailable("the connection was lost before the commit was sent")
	}
	if a.lane != nil {
		commands = a.fenced(commands)
	}
	err := a.session.send(ctx, commands...)
	switch {
	case err == nil:
		a.over(true)
		a.db.release(a.session)
		return 0, nil
	case errors.Is(err, errRolledBack):
		a.over(false)
		a.db.release(a.session)
		return fateGone, unavailable("%w", err)
	case errors.Is(err, errLane):
		a.lane = nil // somebody has removed it, for one
		a.lookAgain(ctx)
		return fateAgain, unavailable("%w", err)
	}
	f := fateOf(err)
	switch {
	case f == fateUnknown && neverSent(err, a.session.closed()):
		a.abandon(ctx)
		return fateGone, err
	case f == fateUnknown:
		a.db.drop(a.session)
		return f, &unknownOutcome{attempt: a, cause: err}
	}
	a.over(false)
	switch {
	case len(commands) > 1:
		a.db.rollback(ctx, a.session)
	default:
		a.db.release(a.session)
	}
	return f, err
}

// fenced puts the lane's guard into the transaction, as its last statement.
func (a *attempt) fenced(commands []command) []command {
	guard := a.lane.guard(&a.id)
	last := len(commands) - 1
	if commands[last].sql != commitCommand.sql {
		// What is sent in one round trip outside of a transaction is one.
		return append(slices.Clone(commands), guard)
	}
	return append(slices.Clone(commands[:last]), guard, commands[last])
}

// over ends the use of the lane, by an attempt that has ended itself.
func (a *attempt) over(committed bool) {
	a.lane.give(committed)
	a.lane, a.ended = nil, true
}

// lookAgain ends an attempt whose lane has failed: all are told if that is because the
// server is another one.
func (a *attempt) lookAgain(ctx context.Context) {
	if a.session.send(ctx, command{sql: "ROLLBACK"}) == nil {
		a.session.lease.use(func(c *pgx.Conn) error {
			a.db.again(ctx, c)
			return nil
		})
	}
	a.db.drop(a.session)
}

// before is the fate of an attempt whose COMMIT was not sent, which was not committed
// whatever the error says.
func (a *attempt) before(ctx context.Context, err error) fate {
	f := fateOf(err)
	switch {
	case f != fateUnknown:
		return f
	case a.session.stale(ctx, err):
		return fateAgain
	}
	return fateGone
}

// abandon ends an attempt, with nothing that commits sent.
func (a *attempt) abandon(ctx context.Context) {
	a.over(false)
	a.db.rollback(ctx, a.session)
}

// errUntold is verify's answer when the rows do not tell.
var errUntold = errors.New("every row of the commit has been changed since")

// settle makes sure that the attempt is over, and tells whether it was applied. An
// errUntold says that it is over but cannot be told.
//
// The fence is the end of the attempt's session, where there is no lane. Its transaction is no more when
// its backend is: a backend leaves pg_stat_activity after it has ended its
// transaction, and nothing else can send the COMMIT. A locking read instead would
// prove nothing: a backend that is stopped before its INSERT holds no lock yet.
func (a *attempt) settle(ctx context.Context) (applied bool, err error) {
	for again := true; again; {
		applied, again, err = a.settleOnce(ctx)
	}
	if err != nil && !errors.Is(err, errUntold) {
		err = notApplied(fateGone, err)
	}
	return applied, err
}

func (a *attempt) settleOnce(ctx context.Context) (applied, again bool, err error) {
	s, err := a.db.session(ctx)
	if err != nil {
		return false, false, err
	}
	if a.db.lanes != nil {
		applied, err = a.outcomeByLane(ctx, s)
	} else {
		var alive bool
		if alive, err = a.fence(ctx, s); err == nil {
			applied, err = a.outcome(ctx, s, alive)
		}
	}
	if err != nil && !errors.Is(err, errUntold) {
		a.db.drop(s)
	} else {
		a.db.release(s)
	}
	return applied, s.stale(ctx, err), err
}

// mayTerminate refuses a server whose sessions this role may not end.
func mayTerminate(ctx context.Context, s *session) error {
	const query = `SELECT coalesce(bool_and(has_function_privilege(p.oid, 'EXECUTE')), false)
FROM pg_catalog.pg_proc p WHERE p.proname = 'pg_terminate_backend' AND p.pronamespace = 'pg_catalog'::regnamespace`
	var may bool
	err := s.run(ctx, command{sql: query, row: func(scan func(...any) error) error { return scan(&may) }})
	if err == nil && !may {
		err = unsupported("this role may not call pg_terminate_backend, and so the outcome of a commit whose reply is lost cannot be settled; " +
			"DatabaseOptions.Pooled settles in another way")
	}
	return err
}

// outcomeByLane asks the lane, which is fence and answer. Where it does not know the
// commit any more, or the transaction has ended without it, nothing can come any more,
// and the rows may tell.
func (a *attempt) outcomeByLane(ctx context.Context, s *session) (applied bool, err error) {
	switch {
	case a.lane != nil:
		if applied, err = a.lane.settle(ctx, s); !errors.Is(err, errUntold) {
			return applied, err
		}
	case !a.ended:
		return false, unsupported("the transaction has no lane, and its session cannot be ended: DatabaseOptions.Pooled is set")
	}
	return a.verify(ctx, s)
}

// fence ends the attempt's session, and waits until it has gone. It reports whether
// the session was there to be ended.
func (a *attempt) fence(ctx context.Context, s *session) (alive bool, err error) {
	// The clock is heard again: rows that this attempt has written, if it has, had
	// better not be ahead of what the next one goes by.
	//
	// When a session of another role began is not shown to every role, and whose it is
	// always.
	const terminate = `SELECT count(CASE WHEN backend_start IS NOT NULL THEN pg_terminate_backend(pid) END), count(*), ` + clockSQL + `
FROM pg_stat_get_activity($1::int) WHERE ` + startedSQL + ` = $2::bigint OR backend_start IS NULL AND usesysid::int8 = $3::int8`
	pause := time.NewTimer(0)
	defer pause.Stop()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		var told, there, now int64
		err := s.run(ctx, command{sql: terminate, args: []any{int32(a.id.pid), a.id.started, a.id.user},
			row: func(scan func(...any) error) error { return scan(&told, &there, &now) }})
		if err != nil {
			return alive, err
		}
		a.db.heard(now, 0)
		switch {
		case there == 0:
			return alive, nil
		case told == 0:
			return alive, unavailable("there is a session with pid %d, of another role, and this one may not see whether it is the one to be ended (pg_read_all_stats, pg_signal_backend)", a.id.pid)
		}
		alive = true
		pause.Reset(wait)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return alive, gaveUp(ctx, fmt.Sprintf("the session with pid %d was told to end and is still there", a.id.pid))
		}
	}
}

// outcome tells what became of an attempt whose session has gone.
//
// The server keeps what became of each transaction id, which is the whole answer
// where the id is known. But an id that was given just before a crash is given
// again, and so it counts only if the server has not crashed since: if the session
// was still there when the fence was, or the fence's own session is older and at the same
// server, or the server's epoch is the same.
func (a *attempt) outcome(ctx context.Context, s *session, alive bool) (bool, error) {
	same := alive || s.id.born < a.born && s.id.server == a.id.server
	if a.xact != 0 && (same || a.epoch != nil) {
		var status *string
		var epoch *int64
		err := s.run(ctx, command{sql: statusSQL, args: []any{strconv.FormatUint(a.xact, 10)},
			row: func(scan func(...any) error) error { return scan(&status, &epoch) }})
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "22023" {
			return a.verify(ctx, s) // an id that was not given yet: the server has crashed
		}
		if err != nil {
			return false, err
		}
		same = same || epoch != nil && *epoch == *a.epoch
		switch {
		case !same || status == nil:
		case *status == inProgress:
			return false, errPrepared
		default:
			return *status == "committed", nil
		}
	}
	return a.verify(ctx, s)
}

// errPrepared: a transaction that has no session and goes on is prepared for two phases,
// by the program's own SQL.
var errPrepared = unavailable("the transaction is prepared (PREPARE TRANSACTION), and anybody may still commit it or roll it back")

// inProgress is what pg_xact_status says of a transaction that is not over.
const inProgress = "in progress"

const (
	statusSQL = `SELECT pg_xact_status($1::text::xid8), ` + epochSQL
	// epochSQL is a time that changes when the server has crashed: from version 15 its
	// statistics begin anew then, and say since when. Others can reset them, too, after
	// which it is not known that the server has not crashed. Before 15 asking waits for
	// another process, and is not worth it.
	epochSQL = `CASE WHEN current_setting('server_version_num')::int >= 150000
	THEN (extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()) * 1000000)::bigint END`
)

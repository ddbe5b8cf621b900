package pgstore

import (
	"context"
	endian "encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
)

// The statements of binary.go make their round trip here, with pgx's own frontend and
// beneath its connection. That one watches the context of each statement with a child
// context, arms a timer at each flush, for a server that sends before it has read all,
// and has a statement that returns nothing described each time. A lone writer waits for all
// of it.
//
// One statement is not answered before it is read. What may be sent before that are
// notifications, and where a session of the program's listens, megabytes of them are unread,
// and the statement is as large, server and client wait for each other: until the context
// ends, as a cache's do. That is accepted.
//
// It is for connections that prepare statements. In every other mode, and where a
// tracer wants to see the statements, they go through pgx as all others do.

// prepares tells whether statements of the connection may go beneath pgx.
func prepares(c *pgx.Conn) bool {
	config := c.Config()
	return config.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement && config.Tracer == nil
}

// runBinary is command.read for one whose arguments are binary. The connection is closed
// where the answer has not come, or not to its end.
func (m command) runBinary(ctx context.Context, c *pgx.Conn) error {
	// The statement's text is its name, by which pgx finds it, and those of its own
	// cache find it too.
	statement, err := c.Prepare(ctx, m.sql, m.sql)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return unsent{ctx.Err()}
	}
	whole := false
	defer func() {
		if !whole { // also where a method of the program's has ended the goroutine
			c.Close(ended)
		}
	}()
	uncut := cutBy(ctx, c.PgConn())
	m.bind(c.PgConn().Frontend(), statement.Name)
	err = c.PgConn().Frontend().Flush()
	if err == nil {
		whole, err = m.answer(c.PgConn(), statement.Fields)
	}
	// What ended the context may also have cut the connection behind the answer.
	whole = uncut() && whole
	switch {
	case whole && outdated(err):
		// It is prepared anew, if the connection can still be told.
		whole = c.Deallocate(ctx, m.sql) == nil
	case !whole && err != nil && ctx.Err() != nil:
		// The cause is only told: it may be anybody's error, also one that a server has
		// answered somebody else.
		err = fmt.Errorf("%w (%v): %w", ctx.Err(), context.Cause(ctx), err)
	}
	return err
}

// unsent is the error of a statement that was not sent. It tells pgconn.SafeToRetry.
type unsent struct{ error }

func (e unsent) Unwrap() error   { return e.error }
func (unsent) SafeToRetry() bool { return true }

// cutBy has the network connection fail when ctx ends: what waits for it returns. Uncut is
// to be called at the end, and tells whether that has not happened, and will not.
func cutBy(ctx context.Context, c *pgconn.PgConn) (uncut func() bool) {
	cut := func() {
		if c.Conn().SetDeadline(longAgo) != nil { // as a tunnel may not have deadlines
			c.Conn().Close()
		}
	}
	// A context that can do it by itself, as a commit's, needs no child for that.
	if ctx, ok := ctx.(interface{ AfterFunc(func()) func() bool }); ok {
		return ctx.AfterFunc(cut)
	}
	return context.AfterFunc(ctx, cut)
}

var longAgo = time.Unix(1, 0)

// bind puts the messages of the statement into the frontend's buffer.
func (m command) bind(to *pgproto3.Frontend, statement string) {
	to.SendBind(&pgproto3.Bind{PreparedStatement: statement, ParameterFormatCodes: binaryForm,
		Parameters: m.binary.params, ResultFormatCodes: binaryForm})
	to.SendExecute(&pgproto3.Execute{})
	to.SendSync(&pgproto3.Sync{})
	m.binary.free()
}

// answer reads what the server answers. It is whole if the connection is ready for the
// next statement, whatever has become of this one.
func (m command) answer(c *pgconn.PgConn, fields []pgconn.FieldDescription) (whole bool, err error) {
	var broken error // of rows
	complete := false
	var row [][]byte
	scan := func(into ...any) error { return scanBinary(fields, row, into) }
	for {
		message, failed := c.ReceiveMessage(context.Background())
		if failed != nil {
			return false, fmt.Errorf("the answer was not received: %w", failed)
		}
		switch message := message.(type) {
		case *pgproto3.DataRow:
			if row = message.Values; broken == nil {
				broken = m.row(scan)
			}
		case *pgproto3.CommandComplete:
			complete = true
			if m.tag != nil && broken == nil {
				broken = m.tag(pgconn.NewCommandTag(string(message.CommandTag)))
			}
		case *pgproto3.ErrorResponse:
			err = pgconn.ErrorResponseToPgError(message)
		case *pgproto3.ReadyForQuery:
			switch {
			case err != nil:
				return true, err
			case !complete:
				return false, errors.New("the server is ready, and has not answered")
			}
			return true, broken
		}
	}
}

// scanBinary reads the columns of a row.
func scanBinary(fields []pgconn.FieldDescription, values [][]byte, into []any) error {
	if len(values) != len(into) {
		return fmt.Errorf("the row has %d columns, and not %d", len(values), len(into))
	}
	for i, data := range values {
		switch into := into[i].(type) {
		case *any:
			switch oid := fields[i].DataTypeOID; {
			case oid == pgtype.TextOID:
				*into = string(data)
			case oid == pgtype.Int8OID && len(data) == 8:
				*into = int64(endian.BigEndian.Uint64(data))
			case oid == pgtype.Float8OID && len(data) == 8:
				*into = math.Float64frombits(endian.BigEndian.Uint64(data))
			case oid == pgtype.ByteaOID:
				*into = append([]byte{}, data...)
			default:
				return fmt.Errorf("column %d has %d bytes of the type with oid %d", i+1, len(data), oid)
			}
		case *int64:
			if len(data) != 8 {
				return fmt.Errorf("column %d has %d bytes, and not the 8 of a bigint", i+1, len(data))
			}
			*into = int64(endian.BigEndian.Uint64(data))
		case **int64:
			switch len(data) {
			case 0: // NULL
				*into = nil
			case 8:
				n := int64(endian.BigEndian.Uint64(data))
				*into = &n
			default:
				return fmt.Errorf("column %d has %d bytes, and not the 8 of a bigint", i+1, len(data))
			}
		default:
			return fmt.Errorf("column %d cannot be read as a %T", i+1, into)
		}
	}
	return nil
}

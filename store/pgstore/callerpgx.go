package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockstep-cache/lockstep"
)

func lendPgx(t lockstep.Txn) (pgx.Tx, error) {
	l, err := lend(t)
	if err != nil {
		return nil, err
	}
	if l.pgx == nil {
		// pgx's own Tx, begun by a statement that does nothing: the transaction is there.
		inner, err := l.conn.BeginTx(t.(*txn).ctx, pgx.TxOptions{BeginQuery: "-- lockstep"})
		if err != nil {
			return nil, notApplied(fateGone, err)
		}
		l.pgx = &callerTx{loan: l, inner: inner}
	}
	return l.pgx, nil
}

// callerTx is a pgx.Tx that passes on statements and nothing that ends the
// transaction; or, nested, one that pgx makes of a savepoint.
type callerTx struct {
	loan   *loan
	inner  pgx.Tx
	nested bool
}

func (x *callerTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := x.loan.usable(); err != nil {
		return nil, err
	}
	inner, err := x.inner.Begin(ctx)
	if err != nil {
		return nil, x.loan.note(err)
	}
	return &callerTx{loan: x.loan, inner: inner, nested: true}, nil
}

// Commit and Rollback of the transaction itself: who has called them counts it as
// over, and so it is.
func (x *callerTx) Commit(ctx context.Context) error   { return x.finish(ctx, x.inner.Commit) }
func (x *callerTx) Rollback(ctx context.Context) error { return x.finish(ctx, x.inner.Rollback) }

func (x *callerTx) finish(ctx context.Context, nested func(context.Context) error) error {
	if err := x.loan.usable(); err != nil {
		return err
	}
	if !x.nested {
		x.loan.fail(errEnds)
		return errEnds
	}
	return x.loan.note(nested(ctx))
}

func (x *callerTx) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	query, args, err := x.loan.admitWith(ctx, query, args)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := x.inner.Exec(ctx, query, args...)
	return tag, x.loan.note(err)
}

func (x *callerTx) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	query, args, err := x.loan.admitWith(ctx, query, args)
	if err != nil {
		return refuse(err).Query()
	}
	rows, err := x.inner.Query(ctx, query, args...)
	return callerRows{rows, x.loan}, x.loan.note(err)
}

// callerRows and callerRow note the errors that come with the rows, as those of most
// queries do.
type callerRows struct {
	pgx.Rows
	loan *loan
}

func (r callerRows) Err() error { return r.loan.note(r.Rows.Err()) }
func (r callerRows) Close() {
	r.Rows.Close()
	r.loan.note(r.Rows.Err())
}

type callerRow struct {
	pgx.Row
	loan *loan
}

func (r callerRow) Scan(dest ...any) error { return r.loan.note(r.Row.Scan(dest...)) }

func (x *callerTx) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	query, args, err := x.loan.admitWith(ctx, query, args)
	if err != nil {
		return refuse(err).QueryRow()
	}
	return callerRow{x.inner.QueryRow(ctx, query, args...), x.loan}
}

func (x *callerTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	for _, q := range b.QueuedQueries {
		query, args, err := x.loan.admitWith(ctx, q.SQL, q.Arguments)
		if err != nil {
			return pgx.FailedBatchResults(b, err)
		}
		q.SQL, q.Arguments = query, args // as pgx itself does
	}
	if err := x.loan.usable(); err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	return x.inner.SendBatch(ctx, b)
}

func (x *callerTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if err := x.loan.usable(); err != nil {
		return 0, err
	}
	n, err := x.inner.CopyFrom(ctx, table, columns, rows)
	return n, x.loan.note(err)
}

func (x *callerTx) Prepare(ctx context.Context, name, query string) (*pgconn.StatementDescription, error) {
	if err := x.loan.admit(query); err != nil {
		return nil, err
	}
	if x.loan.spend(); x.loan.session.db.opts.Pooled {
		return nil, errPooledStay
	}
	d, err := x.inner.Prepare(ctx, name, query)
	return d, x.loan.note(err)
}

// LargeObjects and Conn lead past what is looked at. The session is closed when the
// transaction is over, and with it whatever still has a hold of it.
func (x *callerTx) LargeObjects() pgx.LargeObjects {
	x.loan.spend()
	return x.inner.LargeObjects()
}

func (x *callerTx) Conn() *pgx.Conn {
	x.loan.spend()
	return x.inner.Conn()
}

// refuse has an error in every form that pgx gives one.
func refuse(err error) pgx.BatchResults { return pgx.FailedBatchResults(&pgx.Batch{}, err) }

// admitWith is admit for a statement that its first arguments may rewrite, as
// pgx.NamedArgs does. What is returned is what was looked at.
func (l *loan) admitWith(ctx context.Context, query string, args []any) (string, []any, error) {
	var options []any
	for len(args) > 0 {
		switch o := args[0].(type) {
		case pgx.QueryRewriter:
			if err := l.usable(); err != nil {
				return "", nil, err
			}
			rewritten, rest, err := o.RewriteQuery(ctx, l.conn, query, args[1:])
			if err != nil {
				return "", nil, err
			}
			return rewritten, append(options, rest...), l.admit(rewritten)
		case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
			options = append(options, o)
			args = args[1:]
		default:
			return query, append(options, args...), l.admit(query)
		}
	}
	return query, options, l.admit(query)
}

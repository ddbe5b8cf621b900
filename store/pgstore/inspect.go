package pgstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// inspection is what the server says of itself and of a session. It is asked for
// once a session, and not once a database: settings differ by role and by session,
// and a pool may lead to several servers.
type inspection struct {
	version     int
	pid         uint32
	started     int64
	server      serverID
	user        int64
	clock       int64
	encoding    string
	client      string
	recovery    bool
	readOnly    string
	fsync       string
	pages       string
	synchronous string
	// digits, binary and dates are how the session writes floats, bytea and times as text,
	// in which everything comes where texts is set.
	digits        int
	binary, dates string
	texts         bool
}

const inspectSQL = `SELECT current_setting('server_version_num')::int, pg_backend_pid(),
	` + runSQL + `,
	coalesce((SELECT ` + startedSQL + ` FROM pg_stat_get_activity(pg_backend_pid())), 0),
	coalesce((SELECT usesysid::int8 FROM pg_stat_get_activity(pg_backend_pid())), 0),
	` + clockSQL + `, coalesce(` + epochSQL + `, 0),
	current_setting('server_encoding'), current_setting('client_encoding'),
	pg_is_in_recovery(), current_setting('transaction_read_only'),
	current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
	current_setting('extra_float_digits')::int, current_setting('bytea_output'), current_setting('DateStyle')`

// runSQL is when the server was started.
const runSQL = `(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint`

// startedSQL is backend_start as a number: its text depends on the session's DateStyle
// and TimeZone, and is compared by other sessions. The function is the view
// pg_stat_activity without its joins, which a new session would have to learn of, at
// the price of several round trips.
const startedSQL = `(extract(epoch FROM backend_start) * 1000000)::bigint`

// clockSQL is the server's clock in µs since 1970. It is not now(), which stands
// still from the start of a transaction: what is decided under a lock is decided by
// a clock that was read after the lock was had. date_part has it as a double, which tells
// microseconds apart until the year 2106; extract has it as a numeric, which takes longer.
const clockSQL = `(date_part('epoch', clock_timestamp()) * 1000000)::bigint`

func inspect(ctx context.Context, c *pgx.Conn) (inspection, error) {
	var i inspection
	if other := relative(c.PgConn().ParameterStatus); other != "" {
		return i, unsupported("the server is %s, and not PostgreSQL: what a lost commit is settled by, and how rows are locked, has not been tried there", other)
	}
	err := c.QueryRow(ctx, inspectSQL, pgx.QueryExecModeExec).Scan(&i.version, &i.pid, &i.server.started, &i.started, &i.user, &i.clock, &i.server.crash,
		&i.encoding, &i.client, &i.recovery, &i.readOnly, &i.fsync, &i.pages, &i.synchronous,
		&i.digits, &i.binary, &i.dates)
	if err == nil {
		err = lineage(ctx, c, &i.server)
	}
	mode := c.Config().DefaultQueryExecMode
	i.texts = mode == pgx.QueryExecModeExec || mode == pgx.QueryExecModeSimpleProtocol
	if i.fsync == "on" && i.synchronous != "off" {
		i.server.crash = 0 // no commit is lost by one
	}
	return i, err
}

// relative names a database that speaks PostgreSQL's protocol and has an engine of its
// own, by what it says of itself when a connection is opened; "" for PostgreSQL. Those
// that are not known here fail when they are asked for what they lack.
func relative(status func(key string) string) string {
	switch version := status("server_version"); {
	case status("crdb_version") != "":
		return status("crdb_version")
	case strings.Contains(version, "-YB-"):
		return "YugabyteDB " + version
	}
	return ""
}

// check refuses what the promise cannot be kept on.
func (i inspection) check(o DatabaseOptions, pid uint32) error {
	switch {
	case i.version < 130000:
		return unsupported("the server has version %d.%d; 13 is the oldest that is supported", i.version/10000, i.version%10000)
	case i.pid != pid && !o.Pooled:
		return unsupported("between this program and the server there is a connection pooler (the session's pid is %d, and the connection was told %d); "+
			"connect to the server itself, or set DatabaseOptions.Pooled", i.pid, pid)
	case i.started == 0 && !o.Pooled:
		return unsupported("pg_stat_get_activity does not show this session, and without it the outcome of a commit whose reply is lost cannot be settled; " +
			"DatabaseOptions.Pooled settles in another way")
	case i.encoding != "UTF8":
		return invalid("server_encoding is %s; only UTF8 keeps every text as it is", i.encoding)
	case i.client != "UTF8":
		return invalid("client_encoding is %s, and must be UTF8", i.client)
	case i.recovery:
		return invalid("the server is in recovery (pg_is_in_recovery): a replica, which cannot be written and may lag behind")
	case i.readOnly != "off":
		return invalid("default_transaction_read_only is on")
	case i.digits < 1:
		// The driver reads arrays of floats, and floats themselves in some of its modes, as text.
		return invalid("extra_float_digits is %d, and must be 1 or more: floats, keys among them, would be read as other ones", i.digits)
	case i.texts && i.binary != "hex":
		return invalid("bytea_output is %s, and must be hex where the pool has the driver read text (default_query_exec_mode)", i.binary)
	case i.texts && !strings.HasPrefix(i.dates, "ISO"):
		return invalid("DateStyle is %s, and must be ISO where the pool has the driver read text (default_query_exec_mode)", i.dates)
	case o.AllowUnsafeDurability:
		return nil
	}
	for _, s := range []struct{ name, value, unsafe string }{
		{"fsync", i.fsync, "off"},
		{"full_page_writes", i.pages, "off"},
		{"synchronous_commit", i.synchronous, "off"},
	} {
		if s.value == s.unsafe {
			return invalid("%w", &unsafeSetting{s.name, s.value})
		}
	}
	return nil
}

type unsafeSetting struct{ name, value string }

func (e *unsafeSetting) Error() string {
	return fmt.Sprintf("%s is %s: an acknowledged commit could be lost in a crash; DatabaseOptions.AllowUnsafeDurability accepts that", e.name, e.value)
}

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/server"
	"github.com/lockstep-cache/lockstep/store/codec"
)

// serveVerb is lockstep serve: all that can be set. Where a field is not on the command
// line it is taken from the environment, or a file; see settings.
type serveVerb struct {
	Config    string      `placeholder:"FILE" help:"Take settings from this file, one a line: the name of a flag without --, =, and its value, as in max-clients = 500. A line that begins with # is a comment. Flags and the environment go before it."`
	Store     storeFlag   `default:"sqlite:lockstep.db" placeholder:"URL" help:"Where the keys are: ${stores}. Without --store, the file lockstep.db in this directory, which is made if it is not there."`
	KeysTable string      `default:"lockstep_keys" placeholder:"NAME" help:"The table of the keys in that database; it is made if it is not there. Default: lockstep_keys."`
	Table     []tableFlag `sep:"none" placeholder:"NAME=TABLE" help:"Serve the rows of a table that exists as hashes: with --table users=public.users, HGETALL users:42 is the row whose primary key is 42. Behind the table, each after a comma: read-only; version=COLUMN, a column of 64 bits that counts the row's versions (a NOT NULL one that is called version is taken without it); no-version. Several by several flags. What others write there is seen at once if the table is watched (lockstep watch), and after --ttl otherwise."`

	Redis    []string      `placeholder:"HOST:PORT" help:"Where Redis clients connect; several with a comma, or by several flags. Default, without --redis-tls: 127.0.0.1:6379, which only this machine reaches. An address that others reach needs a password."`
	RedisTLS []string      `name:"redis-tls" placeholder:"HOST:PORT" help:"The same for clients that speak TLS, as redis-cli --tls does. One that others reach needs a password or --tls-ca."`
	HTTP     string        `name:"http" placeholder:"HOST:PORT" help:"Answer HTTP there: /healthz (the process lives), /readyz (the database answers, and the server is not ending) and /metrics, for Prometheus. It tells nothing of keys and values, and asks no password. Without it there is none."`
	Leave    time.Duration `placeholder:"TIME" help:"How long to go on as before, after SIGTERM, while /readyz says already that the server is ending, so that whoever sends it clients notices. Default: not at all."`
	Drain    time.Duration `default:"30s" placeholder:"TIME" help:"How long to wait, after SIGTERM, until what was accepted is committed and answered. Default: 30s."`

	PasswordFile string `group:"users" placeholder:"FILE" help:"The password of the user default is the first line of this file. Without it, it is in the environment, LOCKSTEP_REDIS_PASSWORD; and without that there is none."`
	Users        string `group:"users" placeholder:"FILE" help:"Several users: each line has a name, the SHA-256 of one or more passwords, and read-only for one who may not write. lockstep hash-password makes a line. The file is read again when it changes, and at SIGHUP; one that is wrong then changes nothing, and the log says why."`

	TLSCert string `group:"tls" name:"tls-cert" placeholder:"FILE" help:"The server's certificate, in PEM, with those between it and the authority. It, its key and --tls-ca are read again when they change, and at SIGHUP; connections that are open stay."`
	TLSKey  string `group:"tls" name:"tls-key" placeholder:"FILE" help:"The certificate's key, in PEM."`
	TLSCA   string `group:"tls" name:"tls-ca" placeholder:"FILE" help:"Take only clients that show a certificate of one of these authorities, in PEM. Without it clients show none."`

	MaxClients          positive      `group:"limits" placeholder:"N" help:"How many connections may be open. Default: 10000."`
	MaxRequest          byteSize      `group:"limits" placeholder:"BYTES" help:"How large a request may be, as it is sent. Default: 1GiB, and 512MiB for one argument, as in Redis."`
	MaxValue            byteSize      `group:"limits" placeholder:"BYTES" help:"How large a value may be. The database may take less. Default: 8MiB."`
	OutputLimit         byteSize      `group:"limits" placeholder:"BYTES" help:"How much of messages may wait for a client that does not read them; beyond it the connection is closed. Default: 32MiB."`
	TrackedKeys         positive      `group:"limits" placeholder:"N" help:"Of how many keys it is known which clients may have a copy (CLIENT TRACKING). Default: 1000000."`
	InvalidationTimeout time.Duration `group:"limits" placeholder:"TIME" help:"How long a write may wait for a client that has a copy, and does not read that it is out of date; then that client's connection is closed. Default: 100ms."`
	IdleTimeout         time.Duration `group:"limits" placeholder:"TIME" help:"Close a connection that has asked nothing for so long, as 10m. Default: never."`
	AuthTimeout         time.Duration `group:"limits" placeholder:"TIME" help:"Close a connection that had to give a password, and has not for so long. Default: 1m."`
	RequestTimeout      time.Duration `group:"limits" placeholder:"TIME" help:"Close a connection whose request has not come as a whole so long after its first byte. Default: 5m."`
	WriteTimeout        time.Duration `group:"limits" placeholder:"TIME" help:"Close a connection that has not read its replies for so long. Default: 1m."`

	MaxEntries    positive      `group:"memory" placeholder:"N" help:"How many keys memory may hold; what is used least leaves it, and stays in the database. Default: 100000."`
	MaxBytes      byteSize      `group:"memory" placeholder:"BYTES" help:"How much memory keys and values may take, in the place of --max-entries."`
	TTL           time.Duration `group:"memory" name:"ttl" placeholder:"TIME" help:"How long memory may answer for a key without asking the database. It bounds how long what others have written there stays unseen. Default: for ever."`
	RefreshAhead  time.Duration `group:"memory" placeholder:"TIME" help:"How long before --ttl is over a key that is read is asked of the database anew, while memory still answers, so that nobody waits for it. At most half of --ttl. Default: never."`
	AuditInterval time.Duration `group:"memory" placeholder:"TIME" help:"How often 256 keys in memory are compared with the database; one that differs is dropped, and logged. Default: never."`
	CommitTimeout time.Duration `group:"memory" placeholder:"TIME" help:"How long a write may wait for the database, before it answers -UNAVAILABLE or -UNKNOWN. Default: 10s."`
	QueueLimit    positive      `group:"memory" placeholder:"N" help:"How many writes may wait for the database; one more answers -UNAVAILABLE. Default: 65536."`

	strays []string // variables of the environment that are none of these
}

// Help is the long help.
func (serveVerb) Help() string {
	return "Serves the Redis protocol over a SQL database: a SET is committed there when it says OK, and a GET is answered from memory. Try it: redis-cli set greeting hello. " +
		"There are strings, hashes and keys, with their ends, transactions, channels, client-side caching, and tables of yours, whose rows are hashes (--table); there are no lists, sets, sorted sets, streams and scripts. " +
		"A write that the database was not there for says -UNAVAILABLE, and was not done; one of which nobody knows says -UNKNOWN; any other error is one of a write that was not done. " +
		"Only one process may serve a table, for others would not hear of its writes: a second one is refused, unless the table is watched (lockstep watch), or one of --table that is read-only or has a --ttl.\n\n" +
		"Each flag can be set in the environment, in capitals and with LOCKSTEP_ before it: LOCKSTEP_MAX_CLIENTS=500 is --max-clients 500. " +
		"Passwords are in the environment or in files, and nowhere else. SIGTERM ends the server when what it has accepted is answered; a second one ends it at once."
}

// defaultRedis is where clients connect where nothing is said.
const defaultRedis = "127.0.0.1:6379"

// address is one that is listened on, and the flag that has named it.
type address struct {
	flag, text string
	secure     bool
}

// addresses are all that are listened on. open tells that somebody needs no password.
func (v *serveVerb) addresses(open bool) (all []address, err error) {
	if len(v.Redis) == 0 && len(v.RedisTLS) == 0 {
		v.Redis = []string{defaultRedis}
	}
	for _, text := range v.Redis {
		all = append(all, address{"redis", strings.TrimSpace(text), false})
	}
	for _, text := range v.RedisTLS {
		all = append(all, address{"redis-tls", strings.TrimSpace(text), true})
	}
	for _, a := range all {
		host, _, err := net.SplitHostPort(a.text)
		if err != nil {
			return nil, usagef("--%s %s: it must be HOST:PORT, such as %s", a.flag, a.text, defaultRedis)
		}
		if open && !loopback(host) && !(a.secure && v.TLSCA != "") {
			return nil, usagef("--%s %s: others can reach that address, and there is no password; give one by --password-file, %s or --users", a.flag, a.text, passwordVariable)
		}
	}
	return all, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// check refuses what the types of the fields let through.
func (v *serveVerb) check() error {
	for _, f := range []struct {
		flag  string
		value time.Duration
	}{
		{"drain", v.Drain}, {"leave", v.Leave}, {"idle-timeout", v.IdleTimeout}, {"auth-timeout", v.AuthTimeout}, {"request-timeout", v.RequestTimeout},
		{"write-timeout", v.WriteTimeout}, {"invalidation-timeout", v.InvalidationTimeout}, {"ttl", v.TTL}, {"refresh-ahead", v.RefreshAhead}, {"audit-interval", v.AuditInterval}, {"commit-timeout", v.CommitTimeout},
	} {
		if f.value < 0 {
			return usagef("--%s %v: it must not be negative", f.flag, f.value)
		}
	}
	switch {
	case v.KeysTable == "":
		return usagef("--keys-table names no table")
	case v.MaxBytes > 0 && v.MaxEntries > 0:
		return usagef("--max-entries and --max-bytes exclude each other")
	case v.RefreshAhead > v.TTL/2:
		return usagef("--refresh-ahead %v: it must be at most half of --ttl, which is %v", v.RefreshAhead, v.TTL)
	case v.Leave > 0 && v.HTTP == "":
		return usagef("--leave is for --http, which is not given: nobody would notice")
	case v.Users != "" && os.Getenv(passwordVariable) != "":
		return usagef("--users and %s exclude each other: a line of the file of users gives default a password", passwordVariable)
	case v.PasswordFile != "" && v.Users != "":
		return usagef("--password-file and --users exclude each other: a line of the file of users gives default a password")
	}
	return nil
}

// entryBytes is what memory takes for a key besides its name and its value, about.
const entryBytes = 200

func (v *serveVerb) options() server.Options {
	o := server.Options{
		MaxClients: int(v.MaxClients), OutputLimit: int(v.OutputLimit), TrackedKeys: int(v.TrackedKeys), InvalidationTimeout: v.InvalidationTimeout, IdleTimeout: v.IdleTimeout, AuthTimeout: v.AuthTimeout,
		RequestTimeout: v.RequestTimeout, WriteTimeout: v.WriteTimeout,
		Cache: lockstep.Options[string, server.Value]{
			MaxEntries: int(v.MaxEntries), MaxBytes: int64(v.MaxBytes), TTL: v.TTL, RefreshAhead: v.RefreshAhead,
			AuditInterval: v.AuditInterval, CommitTimeout: v.CommitTimeout, QueueLimit: int(v.QueueLimit),
		},
	}
	if v.MaxBytes > 0 {
		o.Cache.Weigher = func(key string, value server.Value) uint32 { return uint32(len(key) + len(value) + entryBytes) }
	}
	if v.MaxValue > 0 {
		o.Cache.MaxValueBytes = int(v.MaxValue) + 1 // the byte that says of what kind it is
	}
	if v.MaxRequest > 0 {
		o.Limits.MaxRequest = int(v.MaxRequest)
		o.Limits.MaxBulk = min(int(v.MaxRequest), 512<<20)
	}
	return o
}

func (v *serveVerb) Run(ctx context.Context, out io.Writer, stderr standardError) (err error) {
	if err := v.check(); err != nil {
		return err
	}
	// From here on it does not end the server, whether or not there is anything to read.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	for _, name := range v.strays {
		logger.Warn("this variable of the environment is no setting, and has no effect; lockstep serve --help lists those that there are", "variable", name)
	}
	users, err := v.users()
	if err != nil {
		return err
	}
	secure, err := v.certificates()
	if err != nil {
		return err
	}
	addresses, err := v.addresses(users.open())
	if err != nil {
		return err
	}
	url, err := parseStore(string(v.Store))
	if err != nil {
		return err
	}
	g, err := url.visit(ctx, v.KeysTable)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, url.error(g.close())) }()
	store, err := g.keys(ctx, v.KeysTable)
	if err != nil {
		return url.error(err)
	}
	take := func(ctx context.Context) (claim, error) { return g.claim(ctx, v.KeysTable) }
	store, release, err := claimTable(ctx, store, take, logger)
	if err != nil {
		return url.error(err)
	}
	defer release()
	options := v.options()
	tables, tablesHeld, releaseTables, err := v.tables(ctx, g, logger)
	defer releaseTables()
	if err != nil {
		return url.error(err)
	}
	options.Tables = tables
	options.Store, options.Users, options.Logger, options.Cache.Logger = store, users.find, logger, logger
	s, err := server.New(options)
	if err != nil {
		return usagef("%v", err)
	}
	h := &health{server: s, logger: logger}
	h.holds = tablesHeld
	if c, ok := store.(interface{ holds() bool }); ok {
		h.holds = func() bool { return c.holds() && tablesHeld() }
	}
	var web net.Listener
	if v.HTTP != "" {
		if _, _, err := net.SplitHostPort(v.HTTP); err != nil {
			return errors.Join(usagef("--http %s: it must be HOST:PORT, such as 127.0.0.1:9121", v.HTTP), v.drain(s))
		}
		if web, err = net.Listen("tcp", v.HTTP); err != nil {
			return errors.Join(fmt.Errorf("--http %s: %w", v.HTTP, err), v.drain(s))
		}
		defer h.serve(web)()
	}
	var listeners []net.Listener
	var names []string
	for _, a := range addresses {
		listener, err := net.Listen("tcp", a.text)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return errors.Join(fmt.Errorf("--%s %s: %w", a.flag, a.text, err), v.drain(s))
		}
		name := listener.Addr().String()
		if a.secure {
			listener = tls.NewListener(listener, secure.config())
			name += " (TLS)"
		}
		listeners, names = append(listeners, listener), append(names, name)
	}
	background, stop := context.WithCancel(ctx)
	files := users.watched(s.UsersChanged)
	if secure != nil {
		files = append(files, secure.watched())
	}
	wait := newReloads(logger, files).start(background, hangup)
	defer func() { stop(); wait() }()
	fmt.Fprintf(out, "Serving the Redis protocol on %s, over %s, %s.\n", strings.Join(names, " and "), url.text, v.tableNames())
	if web != nil {
		fmt.Fprintf(out, "Answering HTTP on %s: /healthz, /readyz and /metrics.\n", web.Addr())
	}
	served := make(chan error, len(listeners))
	for _, listener := range listeners {
		go func() { served <- s.Serve(listener) }()
	}
	left := len(listeners)
	select {
	case <-ctx.Done():
		if h.leaving.Store(true); v.Leave > 0 {
			select {
			case <-leaveAfter(v.Leave):
			case err = <-served:
				left--
			}
		}
	case err = <-served: // one that fails ends the others, or nobody would notice
		left--
	}
	h.leaving.Store(true)
	err = errors.Join(err, v.drain(s))
	for range left {
		err = errors.Join(err, <-served)
	}
	return err
}

// leaveAfter is time.After, but for a test.
var leaveAfter = time.After

// drain has what was accepted committed and answered.
func (v *serveVerb) drain(s *server.Server) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), v.Drain, fmt.Errorf("not everything that was accepted was answered within %v (--drain)", v.Drain))
	defer cancel()
	return s.Shutdown(ctx)
}

// rawValues is how values of keys are written to tables.
func rawValues() codec.Any {
	raw, err := codec.Raw[server.Value]()
	if err != nil {
		panic(err) // a Value is text
	}
	return raw
}

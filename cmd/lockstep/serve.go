package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/lockstep-cache/lockstep/server"
	"github.com/lockstep-cache/lockstep/store/codec"
)

// serveVerb is lockstep serve.
type serveVerb struct {
	Store        storeFlag     `default:"sqlite:lockstep.db" placeholder:"URL" help:"Where the keys are: ${stores}. Without --store, the file lockstep.db in this directory, which is made if it is not there."`
	Table        string        `default:"lockstep_keys" placeholder:"NAME" help:"The table in that database; it is made if it is not there. Default: lockstep_keys."`
	Redis        string        `default:"127.0.0.1:6379" placeholder:"HOST:PORT" help:"Where Redis clients connect. Default: 127.0.0.1:6379, which only this machine reaches. Any other address needs a password."`
	PasswordFile string        `placeholder:"FILE" help:"The password of the user default is the first line of this file. Without it, it is in the environment, LOCKSTEP_REDIS_PASSWORD; and without that there is none."`
	Drain        time.Duration `default:"30s" placeholder:"TIME" help:"How long to wait, after SIGTERM, until what was accepted is committed and answered. Default: 30s."`
}

// Help is the long help.
func (serveVerb) Help() string {
	return "Serves the Redis protocol over a SQL database: a SET is committed there when it says OK, and a GET is answered from memory. Try it: redis-cli set greeting hello. " +
		"There are strings and keys, with their ends; hashes, MULTI, publishing, client-side caching and TLS are not there yet, and answer as Redis answers an unknown command. " +
		"A write that was not done says -UNAVAILABLE, one of which nobody knows says -UNKNOWN. Only one process may serve a table: others would not hear of its writes."
}

const (
	passwordVariable = "LOCKSTEP_REDIS_PASSWORD"
	longestPassword  = 64 << 10
)

// password is the server's, "" for none.
func (v serveVerb) password() (string, error) {
	if v.PasswordFile == "" {
		return os.Getenv(passwordVariable), nil
	}
	file, err := os.Open(v.PasswordFile)
	if err != nil {
		return "", usagef("--password-file: %v", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, longestPassword))
	if err != nil {
		return "", usagef("--password-file: %v", err)
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
		return "", usagef("--password-file %s: its first line is empty", v.PasswordFile)
	}
	return string(line), nil
}

// checkAddress refuses an address that others reach, where there is no password.
func (v serveVerb) checkAddress(password string) error {
	host, _, err := net.SplitHostPort(v.Redis)
	if err != nil {
		return usagef("--redis %s: it must be HOST:PORT, such as 127.0.0.1:6379", v.Redis)
	}
	ip := net.ParseIP(host)
	if password == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return usagef("--redis %s: others can reach that address, and there is no password; give one by --password-file or %s", v.Redis, passwordVariable)
	}
	return nil
}

func (v serveVerb) Run(ctx context.Context, out io.Writer, stderr standardError) (err error) {
	password, err := v.password()
	if err != nil {
		return err
	}
	if err := v.checkAddress(password); err != nil {
		return err
	}
	url, err := parseStore(string(v.Store))
	if err != nil {
		return err
	}
	g, err := url.visit(ctx, v.Table)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, url.error(g.close())) }()
	store, err := g.keys(ctx, v.Table)
	if err != nil {
		return url.error(err)
	}
	options := server.Options{Store: store, Logger: slog.New(slog.NewTextHandler(stderr, nil))}
	options.Cache.Logger = options.Logger
	if password != "" {
		user := server.User{Passwords: []server.PasswordHash{server.HashPassword(password)}}
		options.Users = func(name string) (server.User, bool) { return user, name == "default" }
	}
	s, err := server.New(options)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", v.Redis)
	if err != nil {
		return errors.Join(fmt.Errorf("--redis %s: %w", v.Redis, err), v.drain(s))
	}
	fmt.Fprintf(out, "Serving the Redis protocol on %s, over %s, table %s.\n", listener.Addr(), url.text, v.Table)
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	select {
	case <-ctx.Done():
		err := v.drain(s)
		return errors.Join(err, <-served)
	case err := <-served:
		return errors.Join(err, v.drain(s))
	}
}

// drain has what was accepted committed and answered.
func (v serveVerb) drain(s *server.Server) error {
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

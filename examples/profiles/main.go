// Profiles is an example of Lockstep: an HTTP service with profiles, preferences, security
// settings, and sign-ins that end with the password by which they were made. See
// README.md.
//
//	go run ./examples/profiles
//	go run ./examples/profiles -store postgres://localhost/test
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "profiles:", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("profiles", flag.ContinueOnError)
	store := flags.String("store", "", "a SQLite file, which stays, or a postgres:// `URL` (tables profiles_…); a temporary file if empty")
	address := flags.String("http", "127.0.0.1:8080", "where it listens: this machine alone, unless there is TLS in front of it")
	iterations := flags.Int("iterations", recommended, "the work that a new password takes to check, of PBKDF2")
	tour := flags.Bool("tour", false, "show what it does, and leave")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("%q is no flag; -help lists them", flags.Arg(0))
	case *iterations < 1:
		return errors.New("-iterations has to be above zero")
	}
	if *store == "" {
		dir, err := os.MkdirTemp("", "profiles-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		*store = filepath.Join(dir, "profiles.db")
	}
	tables, err := OpenTables(ctx, *store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tables.Close()) }()
	service, err := NewService(tables, newPasswords(*iterations))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Close(context.WithoutCancel(ctx))) }()

	if *tour {
		*address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	url := "http://" + listener.Addr().String()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- serve(ctx, listener, service.Handler()) }()
	if *tour {
		err = guide(ctx, out, url)
		stop()
	} else {
		fmt.Fprintf(out, welcome, url)
	}
	return errors.Join(err, <-served)
}

// serve answers until ctx ends, and then until those who have asked are answered.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return server.Shutdown(ending)
}

const welcome = `profiles listens at %[1]s, until Ctrl-C.

  url=%[1]s
  curl $url/users -d '{"name":"ada","password":"correct horse"}'
  curl $url/sign-ins -d '{"name":"ada","password":"correct horse"}'
  token=...   # of the answer
  curl $url/profile -i -H "Authorization: Bearer $token"
  curl $url/password -X PUT -H "Authorization: Bearer $token" \
       -d '{"old":"correct horse","new":"battery staple"}'

go run ./examples/profiles -tour shows all of it.
`

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/lockstep-cache/lockstep/internal/dbserver"
	"github.com/lockstep-cache/lockstep/resp"
)

// The two Redises: one that keeps what it is told in memory only, and one that has it on
// disk before it answers.
const (
	forgetful = "redis"
	durable   = "redis, fsync always"
)

// server is one that speaks the Redis protocol.
type server struct{ host, port, password string }

// servers are all that were started, by name: a Redis's, or the store of lockstep serve.
type servers struct {
	at   map[string]server
	ends []func() error
}

// end ends them, the last first.
func (s *servers) end() (err error) {
	for _, end := range s.ends {
		defer func() { err = errors.Join(err, end()) }()
	}
	return nil
}

// start starts those that the cases need, and fills them.
func start(ctx context.Context, chosen []*contest) (*servers, error) {
	s := &servers{at: map[string]server{}}
	program, err := s.build(ctx)
	if err != nil {
		return s, err
	}
	for _, c := range chosen {
		for _, name := range []string{c.beside, c.store} {
			if _, there := s.at[name]; there {
				continue
			}
			fmt.Fprintf(os.Stderr, "starting %s\n", name)
			at, err := s.startOne(ctx, name, program)
			if err == nil {
				err = fill(ctx, at)
			}
			if err != nil {
				return s, fmt.Errorf("%s: %w", name, err)
			}
			s.at[name] = at
		}
	}
	return s, nil
}

// build makes the command, in a directory for files.
func (s *servers) build(ctx context.Context) (program string, err error) {
	dir, err := os.MkdirTemp(os.Getenv("BENCH_DIR"), "redis-")
	if err != nil {
		return "", err
	}
	s.ends = append(s.ends, func() error { return os.RemoveAll(dir) })
	program = filepath.Join(dir, "lockstep")
	build := exec.CommandContext(ctx, "go", "build", "-C", "..", "-o", program, "./cmd/lockstep")
	build.Stderr = os.Stderr
	return program, build.Run()
}

func (s *servers) startOne(ctx context.Context, name, program string) (server, error) {
	switch name {
	case forgetful:
		return s.redis(ctx, "appendonly no")
	case durable:
		return s.redis(ctx)
	case "sqlite":
		return s.serve(ctx, program, "sqlite:"+filepath.Join(filepath.Dir(program), "bench.db"))
	case "postgres":
		db, err := dbserver.Start(ctx, dbserver.PostgreSQL(), "shared_buffers=512MB")
		if err != nil {
			return server{}, err
		}
		s.ends = append(s.ends, db.Close)
		return s.serve(ctx, program, db.URL())
	}
	return server{}, errors.New("no such server")
}

func (s *servers) redis(ctx context.Context, settings ...string) (server, error) {
	r, err := dbserver.Start(ctx, dbserver.Redis(), settings...)
	if err != nil {
		return server{}, err
	}
	s.ends = append(s.ends, r.Close)
	host, port, err := net.SplitHostPort(r.Addr())
	return server{host, port, r.Access().Password}, err
}

var serving = regexp.MustCompile(`Serving the Redis protocol on (\S+?),? `)

// serve starts lockstep serve over a store, and waits until it says where it listens.
func (s *servers) serve(ctx context.Context, program, store string) (server, error) {
	run := exec.Command(program, "serve", "--redis", "127.0.0.1:0")
	run.Env = append(os.Environ(), "LOCKSTEP_STORE="+store)
	run.Stderr = os.Stderr
	out, err := run.StdoutPipe()
	if err != nil {
		return server{}, err
	}
	if err := run.Start(); err != nil {
		return server{}, err
	}
	s.ends = append(s.ends, func() error {
		return errors.Join(run.Process.Signal(syscall.SIGTERM), run.Wait())
	})
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		return server{}, fmt.Errorf("it ended before it listened: %w", err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	found := serving.FindStringSubmatch(line)
	if found == nil {
		return server{}, fmt.Errorf("it does not say where it listens: %q", line)
	}
	host, port, err := net.SplitHostPort(found[1])
	return server{host: host, port: port}, err
}

// fill sets all keys that redis-benchmark will ask for.
func fill(ctx context.Context, s server) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(s.host, s.port))
	if err != nil {
		return err
	}
	defer conn.Close()
	replies := bufio.NewReader(conn)
	expectOK := func(request *resp.Writer) error {
		if _, err := conn.Write(request.Bytes()); err != nil {
			return err
		}
		line, err := replies.ReadString('\n')
		if err == nil && line != "+OK\r\n" {
			err = errors.New(strings.TrimSpace(line))
		}
		return err
	}
	var w resp.Writer
	if s.password != "" {
		w.Array(2)
		w.BulkString("AUTH")
		w.BulkString(s.password)
		if err := expectOK(&w); err != nil {
			return err
		}
	}
	value := bytes.Repeat([]byte("x"), valueBytes)
	const at = 500
	for first := 0; first < keyCount; first += at {
		w.Reset(1 << 20)
		w.Array(1 + 2*at)
		w.BulkString("MSET")
		for i := first; i < first+at; i++ {
			w.BulkString(fmt.Sprintf("key:%012d", i))
			w.Bulk(value)
		}
		if err := expectOK(&w); err != nil {
			return err
		}
	}
	return nil
}

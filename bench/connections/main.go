// Command connections tells what many connections cost lockstep serve: it starts one as a
// process, connects to it 10,000 times from this process, leaves them idle, and has 1,000
// of them ask. Memory is the server's, as the machine tells it. What it prints goes to a
// file in results too.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/lockstep-cache/lockstep/bench/internal/report"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("connections: ")
	count := flag.Int("count", 10_000, "how many connections there are")
	active := flag.Int("active", 1_000, "how many of them ask")
	duration := flag.Duration("duration", 10*time.Second, "for how long they do")
	results := flag.String("results", "results", "`directory` for the results")
	flag.Parse()
	if flag.NArg() > 0 || *count < 1 || *active < 1 || *active > *count {
		flag.Usage()
		os.Exit(2)
	}
	if runtime.GOOS != "linux" {
		log.Fatal("what the server takes is read from /proc, which is Linux's")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := measure(ctx, *count, *active, *duration, *results); err != nil {
		stop()
		log.Fatal(err)
	}
}

// client is a connection of ours.
type client struct {
	net.Conn
	replies *bufio.Reader
}

// ask sends a request whose reply has so many bytes.
func (c client) ask(request string, reply int) error {
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	if n, err := c.replies.Discard(reply); err != nil {
		return fmt.Errorf("%d bytes of %d: %w", n, reply, err)
	}
	return nil
}

const (
	keys       = 1000
	valueBytes = 256
)

var getReply = len(fmt.Sprintf("$%d\r\n\r\n", valueBytes)) + valueBytes

func measure(ctx context.Context, count, active int, duration time.Duration, results string) (err error) {
	origin := report.Now(fmt.Sprintf("go run ./connections -count %d -active %d -duration %v", count, active, duration))
	s, err := start(ctx, count)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	var text bytes.Buffer
	fmt.Fprintln(&text, origin)
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "state\tconnections\tresident MiB\tKiB a connection\tkernel's buffers MiB")
	var base memory
	tell := func(state string, open int) error {
		m, err := s.memory()
		if err != nil {
			return err
		}
		if open == 0 {
			base = m
		}
		each := "-"
		if open > 0 {
			each = fmt.Sprintf("%.1f", float64(m.resident-base.resident)/1024/float64(open))
		}
		fmt.Fprintf(table, "%s\t%d\t%.1f\t%s\t%.1f\n", state, open, float64(m.resident)/(1<<20), each, float64(m.sockets)/(1<<20))
		return nil
	}
	connect := func() (client, error) {
		conn, err := net.Dial("tcp", s.addr)
		return client{conn, bufio.NewReaderSize(conn, 512)}, err
	}

	first, err := connect()
	if err != nil {
		return err
	}
	value := strings.Repeat("x", valueBytes)
	for i := range keys {
		if err := first.ask(fmt.Sprintf("SET key:%d %s\r\n", i, value), len("+OK\r\n")); err != nil {
			return err
		}
	}
	first.Close()
	if err := tell("nobody", 0); err != nil {
		return err
	}
	all := make([]client, count)
	began := time.Now()
	for i := range all {
		if all[i], err = connect(); err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		defer all[i].Close()
		if err := all[i].ask("GET key:1\r\n", getReply); err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
	}
	opening := time.Since(began)
	if err := tell("each has asked once", count); err != nil {
		return err
	}
	select {
	case <-time.After(15 * time.Second): // the server takes buffers back after 10
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := tell("idle", count); err != nil {
		return err
	}

	var asked atomic.Int64
	var running sync.WaitGroup
	took := make([][]time.Duration, active)
	failures := make([]error, active)
	began = time.Now()
	for i := range active {
		running.Go(func() {
			for n := i; time.Since(began) < duration && ctx.Err() == nil; n++ {
				sent := time.Now()
				if failures[i] = all[i].ask("GET key:"+strconv.Itoa(n%keys)+"\r\n", getReply); failures[i] != nil {
					return
				}
				took[i] = append(took[i], time.Since(sent))
				asked.Add(1)
			}
		})
	}
	select {
	case <-time.After(duration * 3 / 4):
	case <-ctx.Done():
	}
	if err := tell(fmt.Sprintf("%d ask, the others are idle", active), count); err != nil {
		return err
	}
	running.Wait()
	elapsed := time.Since(began)
	if err := errors.Join(append(failures, ctx.Err())...); err != nil {
		return err
	}
	table.Flush()
	every := slices.Concat(took...)
	slices.Sort(every)
	fmt.Fprintf(&text, "\n%d connections were opened, and each asked once, in %.1f s.\n", count, opening.Seconds())
	fmt.Fprintf(&text, "%d connections asked %.0f times a second (GET, %d bytes, one at a time): p50 %.1f ms, p99 %.1f ms. This process was on the same machine.\n",
		active, float64(asked.Load())/elapsed.Seconds(), valueBytes, ms(every, 0.5), ms(every, 0.99))
	if _, err := os.Stdout.Write(text.Bytes()); err != nil {
		return err
	}
	return origin.Write(results, "connections", text.Bytes())
}

func ms(sorted []time.Duration, quantile float64) float64 {
	return float64(sorted[int(quantile*float64(len(sorted)-1))]) / float64(time.Millisecond)
}

// memory is what the server's process has of the machine's, and what the kernel has for
// buffers of all TCP connections, both ends.
type memory struct{ resident, sockets int64 }

// server is a lockstep serve.
type server struct {
	dir, addr string
	run       *exec.Cmd
}

var serving = regexp.MustCompile(`Serving the Redis protocol on (\S+?),? `)

func start(ctx context.Context, clients int) (s *server, err error) {
	s = &server{}
	if s.dir, err = os.MkdirTemp(os.Getenv("BENCH_DIR"), "connections-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(s.dir))
		}
	}()
	program := filepath.Join(s.dir, "lockstep")
	build := exec.CommandContext(ctx, "go", "build", "-C", "..", "-o", program, "./cmd/lockstep")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, err
	}
	s.run = exec.Command(program, "serve", "--store", "sqlite:"+filepath.Join(s.dir, "bench.db"), "--redis", "127.0.0.1:0", "--max-clients", strconv.Itoa(clients+10))
	s.run.Stderr = os.Stderr
	out, err := s.run.StdoutPipe()
	if err == nil {
		err = s.run.Start()
	}
	if err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	found := serving.FindStringSubmatch(line)
	if err != nil || found == nil {
		return nil, errors.Join(fmt.Errorf("it does not say where it listens: %q", line), err, s.run.Process.Kill())
	}
	s.addr = found[1]
	return s, nil
}

func (s *server) end() error {
	return errors.Join(s.run.Process.Signal(syscall.SIGTERM), s.run.Wait(), os.RemoveAll(s.dir))
}

func (s *server) memory() (m memory, err error) {
	page := int64(os.Getpagesize())
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.run.Process.Pid))
	if err != nil {
		return m, err
	}
	if _, err := fmt.Sscan(string(statm), new(int64), &m.resident); err != nil {
		return m, err
	}
	sockstat, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(sockstat)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "TCP:" && fields[len(fields)-2] == "mem" {
			if m.sockets, err = strconv.ParseInt(fields[len(fields)-1], 10, 64); err != nil {
				return m, err
			}
		}
	}
	m.resident *= page
	m.sockets *= page
	return m, nil
}

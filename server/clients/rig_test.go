package clients

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/server"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// patience is how long anything may take that should happen at once.
const patience = 30 * time.Second

const password = "open sesame"

func TestMain(m *testing.M) {
	status := m.Run()
	if dir := filepath.Dir(built.path); built.path != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(status)
}

var built struct {
	sync.Once
	path string
	err  error
}

// program builds lockstep from this tree, once.
func program(t testing.TB) string {
	t.Helper()
	built.Do(func() {
		dir, err := os.MkdirTemp("", "lockstep-clients-")
		if err != nil {
			built.err = err
			return
		}
		built.path = filepath.Join(dir, "lockstep")
		args := append([]string{"build", "-C", filepath.Join("..", "..")}, buildFlags...)
		if out, err := exec.Command("go", append(args, "-o", built.path, "./cmd/lockstep")...).CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w: %s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// process is lockstep serve as a program.
type process struct {
	t     testing.TB
	args  []string
	env   []string
	addrs []string // the plain address, and that of TLS where there is one
	leash io.Closer
	run   *exec.Cmd
}

// serve runs lockstep serve over a file until the test ends.
func serve(t testing.TB, args ...string) *process {
	t.Helper()
	p := &process{t: t, args: args, addrs: []string{"127.0.0.1:0"}, env: append(os.Environ(),
		"LOCKSTEP_STORE=sqlite:"+filepath.Join(t.TempDir(), "keys.db"), "LOCKSTEP_REDIS_PASSWORD="+password,
		"GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")} // or each would take a second to end
	p.start()
	t.Cleanup(p.stop)
	return p
}

func (p *process) addr() string { return p.addrs[0] }

func (p *process) port() string {
	_, port, _ := net.SplitHostPort(p.addr())
	return port
}

var address = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// start starts it on its addresses. It is the child of a shell which ends it when this
// program's end of a pipe is closed, however that comes about.
func (p *process) start() {
	p.t.Helper()
	const hold = `"$@" & read -r _; kill $!; wait $!`
	p.run = exec.Command("sh", append([]string{"-c", hold, "sh", program(p.t), "serve", "--redis", p.addr()}, p.args...)...)
	p.run.Env = p.env
	var err error
	if p.leash, err = p.run.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	var stderr strings.Builder
	p.run.Stderr = &stderr
	out, err := p.run.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.run.Start(); err != nil {
		p.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	addrs := address.FindAllString(line, -1)
	if err != nil || len(addrs) == 0 {
		p.leash.Close()
		_ = p.run.Wait()
		p.t.Fatalf("lockstep serve says %q, %v: %s", line, err, stderr.String())
	}
	p.addrs = addrs
}

// stop ends it as an operator does, and expects what it says then.
func (p *process) stop() {
	p.t.Helper()
	p.leash.Close()
	if err := p.run.Wait(); err != nil {
		p.t.Errorf("lockstep serve: %v: %s", err, p.run.Stderr)
	}
	if said := p.run.Stderr.(*strings.Builder).String(); strings.Contains(said, "DATA RACE") || strings.Contains(said, "panic") {
		p.t.Errorf("lockstep serve says: %s", said)
	}
}

// within serves in this process, over memory with faults.
func within(t testing.TB, script string) (addr string, store *fault.Store[string, server.Value]) {
	t.Helper()
	parsed, err := fault.ParseScript(script)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	store = fault.Inject[string, server.Value](memstore.New(memstore.Options[string, server.Value]{}), parsed, 1)
	s, err := server.New(server.Options{Store: store, Logger: quiet, Cache: lockstep.Options[string, server.Value]{Logger: quiet}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return listener.Addr().String(), store
}

// limited is the test's context, which ends when patience does.
func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// ok ends the test at an error of something whose answer does not matter.
func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// same compares an answer.
func same[T comparable](t testing.TB, what string, got T, err error, want T) {
	t.Helper()
	if err != nil || got != want {
		t.Errorf("%s: %v, %v; want %v", what, got, err, want)
	}
}

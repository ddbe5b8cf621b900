package dbserver

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var kinds = []Kind{PostgreSQL(), MariaDB(), Redis()}

func start(t *testing.T, k Kind, settings ...string) *Server {
	t.Helper()
	s, err := Start(t.Context(), k, settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestATakenPortIsWaitedFor has somebody else on the port of a server that is
// started again.
func TestATakenPortIsWaitedFor(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.Name(), func(t *testing.T) {
			t.Parallel()
			s := start(t, k)
			must(t, s.Stop())
			other, err := net.Listen("tcp4", s.Addr())
			must(t, err)
			given := make(chan struct{})
			go func() {
				defer close(given)
				defer other.Close()
				for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
					if log, _ := os.ReadFile(s.logFile()); strings.Contains(string(log), "in use") {
						return
					}
				}
				t.Error("the server does not say that its port is in use")
			}()
			must(t, s.Start(t.Context()))
			<-given
		})
	}
}

func TestAServerThatDoesNotStartSaysWhy(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.Name(), func(t *testing.T) {
			t.Parallel()
			s, err := Start(t.Context(), k, "--nonsense=1")
			if err == nil {
				t.Fatal("a server with a nonsensical setting has started", s.Close())
			}
			if !strings.Contains(err.Error(), "nonsense") {
				t.Error(err)
			}
		})
	}
}

func TestAMissingServerSaysWhatInstallsIt(t *testing.T) {
	_, err := find("no-such-program", "postgresql", "/usr/lib/postgresql/*/bin")
	if !errors.Is(err, exec.ErrNotFound) || err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") {
		t.Error(err)
	}
	_, err = Start(t.Context(), MySQL("/no/such/mysqld"))
	if !errors.Is(err, os.ErrNotExist) || err == nil || !strings.Contains(err.Error(), "/no/such/mysqld") {
		t.Error(err)
	}
}

// An interrupt must not wait for a server, nor leave anything of it behind.
func TestAStartThatIsGivenUpLeavesNothing(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.Name(), func(t *testing.T) {
			dir := t.TempDir()
			for above := dir; above != filepath.Dir(above); above = filepath.Dir(above) {
				if info, err := os.Stat(above); err == nil && info.Mode()&0o001 == 0 {
					must(t, os.Chmod(above, 0o777)) // the servers may run as somebody else
				}
			}
			t.Setenv("TMPDIR", dir)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				for {
					if made, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(made) > 0 {
						cancel()
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			s, err := Start(ctx, k)
			if err == nil {
				t.Fatal("a server that was given up has started", s.Close())
			}
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%v, %v are left", left, err)
			}
		})
	}
}

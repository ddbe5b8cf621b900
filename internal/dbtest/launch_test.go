package dbtest

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

var engines = []engine{postgres{}, mariaDBOrMySQL(), newRedis()}

// TestATakenPortIsWaitedFor has somebody else on the port of a server that is
// started again.
func TestATakenPortIsWaitedFor(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name(), func(t *testing.T) {
			t.Parallel()
			s := own(t, e, nil)
			s.Stop()
			other, err := net.Listen("tcp4", s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer other.Close()
				for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
					if log, _ := os.ReadFile(s.logFile()); strings.Contains(string(log), "in use") {
						return
					}
				}
				t.Error("the server does not say that its port is in use")
			}()
			s.Start()
		})
	}
}

func TestAServerThatDoesNotStartSaysWhy(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name(), func(t *testing.T) {
			t.Parallel()
			s, err := newServer(e, []string{"--nonsense=1"})
			if err == nil {
				t.Fatal("a server with a nonsensical setting has started", s.remove())
			}
			if !strings.Contains(err.Error(), "nonsense") {
				t.Error(err)
			}
		})
	}
}

func TestAMissingServerSaysWhatInstallsIt(t *testing.T) {
	_, err := find("no-such-program", "/usr/lib/postgresql/*/bin")
	if err == nil || !strings.Contains(err.Error(), "scripts/databases") {
		t.Error(err)
	}
}

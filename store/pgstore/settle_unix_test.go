//go:build unix

package pgstore_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// A backend that the kernel does not run cannot be ended, and nothing is said of its
// commit until it has been.
func TestASessionThatIsStopped(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	s, direct := openStore(t, via), openStore(t, url)
	write(t, s, put("k", "old"))
	somebody := connect(t, url)
	run(t, somebody, "BEGIN")
	run(t, somebody, "SELECT FROM rows WHERE key = 'k' FOR UPDATE")
	failed := make(chan error, 1)
	go func() {
		_, err := s.Commit(t.Context(), []changeSet{set(put("k", "late"))})
		failed <- err
	}()
	await(t, url, waiting)
	var pid int
	if err := somebody.QueryRow(t.Context(), `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	proxy.CutAll()
	err := <-failed
	wantError(t, err, lockstep.ErrUnknownOutcome)
	run(t, somebody, "ROLLBACK") // the stopped session has its lock, and only has to go on

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if settled, serr := direct.Capabilities().Settle(ctx, err); !errors.Is(serr, lockstep.ErrUnavailable) {
		t.Fatalf("settled as %+v, %v, and the session is there", settled, serr)
	}
	wantRow(t, direct, "k", "old")
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	settled, serr := direct.Capabilities().Settle(t.Context(), err)
	if serr != nil || settled.Err != nil {
		t.Fatalf("settled as %+v, %v", settled, serr)
	}
	r := get(t, direct, "k")
	if (r.Value == "late") != settled.Applied {
		t.Errorf("settled as %+v, and the row is %+v", settled, r)
	}
	write(t, direct, put("k", "new"))
	wantRow(t, direct, "k", "new")
}

//go:build unix

package sqlitestore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// ownProcess, in the environment, names the test that has the process for itself.
const ownProcess = "LOCKSTEP_TEST_OWN_PROCESS"

// inOwnProcess runs the test again in a process of its own. It returns true there;
// in the first process it returns when that one has ended, and has reported it. The
// error says that it could not be started.
func inOwnProcess(t *testing.T, attr *syscall.SysProcAttr) (alone bool, err error) {
	t.Helper()
	if os.Getenv(ownProcess) == t.Name() {
		return true, nil
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	again.Env = append(os.Environ(), ownProcess+"="+t.Name())
	again.SysProcAttr = attr
	var out bytes.Buffer
	again.Stdout, again.Stderr = &out, &out
	if err := again.Start(); err != nil {
		return false, err
	}
	if err := again.Wait(); err != nil || !bytes.Contains(out.Bytes(), []byte("PASS")) {
		t.Errorf("%v\n%s", err, out.Bytes())
	}
	return false, nil
}

// withLimits is inOwnProcess for tests that call limitFiles: the limit is the whole
// process's, and would break what go test itself writes to a file.
func withLimits(t *testing.T) (alone bool) {
	t.Helper()
	alone, err := inOwnProcess(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	return alone
}

// limitFiles makes every write beyond that many bytes of a file fail with EFBIG,
// which is a real I/O error to SQLite.
func limitFiles(t *testing.T, bytes int64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = uint64(bytes)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	lifted := false
	lift = func() {
		if !lifted {
			lifted = true
			if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(lift)
	return lift
}

func logSize(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// A COMMIT that fails in the middle of the log is unknown; it is settled once a
// commit has overwritten what it left there.
func TestAnIOErrorAtCommitIsSettled(t *testing.T) {
	if !withLimits(t) {
		return
	}
	change := func(k string, v []byte) lockstep.Change[string, []byte] {
		return lockstep.Change[string, []byte]{Key: k, Value: v}
	}
	for name, changes := range map[string][]lockstep.Change[string, []byte]{
		"Alone":    {change("a", noise(100_000))},
		"Together": {change("a", noise(50_000)), change("b", noise(50_000))},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore[string, []byte](t, newPath(t), Options{})
			old := noise(10)
			put(t, s, "a", old)
			path := s.Database().Path()

			lift := limitFiles(t, logSize(t, path)+4*4096)
			_, err := commitOne(s, changes...)
			wantError(t, err, lockstep.ErrUnknownOutcome, "disk I/O error")

			settled, serr := s.Capabilities().Settle(t.Context(), err)
			if serr != nil || settled.Applied || settled.Err != nil {
				t.Fatalf("settled as %+v, %v", settled, serr)
			}
			lift()
			if r := get(t, s, "a"); string(r.Value) != string(old) {
				t.Error("the row has changed")
			}
			put(t, s, "a", []byte("on"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again := openStore[string, []byte](t, path, Options{})
			if r := get(t, again, "a"); string(r.Value) != "on" {
				t.Errorf("after a restart: %q", r.Value)
			}
		})
	}
}

// A settlement that cannot fence says so, and is asked again.
func TestSettleFailsUntilItCanFence(t *testing.T) {
	if !withLimits(t) {
		return
	}
	s := openStore[string, []byte](t, newPath(t), Options{})
	put(t, s, "a", []byte("old"))
	lift := limitFiles(t, logSize(t, s.Database().Path()))
	_, err := commitOne(s, lockstep.Change[string, []byte]{Key: "a", Value: noise(100_000)})
	wantError(t, err, lockstep.ErrUnknownOutcome)
	if settled, err := s.Capabilities().Settle(t.Context(), err); err == nil {
		t.Fatalf("settled without a fence, as %+v", settled)
	}
	lift()
	settled, serr := s.Capabilities().Settle(t.Context(), err)
	if serr != nil || settled.Applied {
		t.Fatalf("settled as %+v, %v", settled, serr)
	}
}

// A row that the sweep has ended since keeps the version of the commit. It is not
// taken for one that was never written.
func TestASweptRowTellsNothing(t *testing.T) {
	s := openStore[string, string](t, newPath(t), Options{})
	b := s.newBatch([]lockstep.ChangeSet[string, string]{{Changes: []lockstep.Change[string, string]{
		{Key: "k", Value: "short", Lifetime: time.Microsecond}, {Key: "l", Value: "shorter", Lifetime: time.Microsecond},
	}}})
	var d *kv.Decision[string, string]
	if _, err := s.db.write(t.Context(), func(ctx context.Context, a *attempt) (err error) {
		if err := a.begin(ctx); err != nil {
			return err
		}
		if d, err = b.decide(ctx, a); err != nil {
			return err
		}
		if err := b.flush(ctx, a, d); err != nil {
			return err
		}
		return a.commit()
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.db.read(t.Context(), func(c *conn) error {
		_, err := s.sweep(c)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if n := countIn(t, s.db, "SELECT count(*) FROM lockstep WHERE deleted = 1"); n != 2 {
		t.Fatalf("%d rows were swept", n)
	}
	if err := s.db.read(t.Context(), func(c *conn) error {
		_, err := b.found(c, d)
		return err
	}); !errors.Is(err, errUntold) {
		t.Errorf("found: %v", err)
	}
}

// What an unclear commit has written is found by what is in the rows.
func TestFoundTellsWhatWasApplied(t *testing.T) {
	s := openStore[string, string](t, newPath(t), Options{})
	put(t, s, "a", "old")
	put(t, s, "b", "old")
	change := []lockstep.Change[string, string]{{Key: "a", Value: "new"}, {Key: "b", Delete: true}}
	b := s.newBatch([]lockstep.ChangeSet[string, string]{{Changes: change}})
	var d *kv.Decision[string, string]
	found := func(want bool, wantErr error) {
		t.Helper()
		err := s.db.read(t.Context(), func(c *conn) error {
			got, err := b.found(c, d)
			if got != want || !errors.Is(err, wantErr) {
				t.Errorf("found = %t, %v, want %t, %v", got, err, want, wantErr)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, roll := range []string{"ROLLBACK", "COMMIT"} {
		w, err := s.db.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a := &attempt{db: s.db, conn: w}
		if err := a.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d, err = b.decide(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if err := b.flush(t.Context(), a, d); err != nil {
			t.Fatal(err)
		}
		if err := w.script(roll); err != nil {
			t.Fatal(err)
		}
		s.db.release(w, true)
		found(roll == "COMMIT", nil)
	}
	put(t, s, "a", "newer")
	found(true, nil) // b still tells
	put(t, s, "b", "newer")
	found(false, errUntold)
}

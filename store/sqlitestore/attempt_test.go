package sqlitestore

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// lockFile holds the file's write lock as another process would, until the
// returned function is called.
func lockFile(t *testing.T, path string) (unlock func()) {
	t.Helper()
	other, err := connect(path, "rw")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.script("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	return func() { other.close() }
}

func TestCommitGivesUpWaitingForAnotherProcess(t *testing.T) {
	s := openStore[string, string](t, newPath(t), Options{})
	put(t, s, "k", "old")
	unlock := lockFile(t, s.Database().Path())
	for _, sets := range [][]lockstep.ChangeSet[string, string]{
		{{Changes: []lockstep.Change[string, string]{{Key: "k", Value: "new"}}}},
		{{Changes: []lockstep.Change[string, string]{{Key: "k", Value: "new"}, {Key: "l", Value: "new"}}}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		_, err := s.Commit(ctx, sets)
		cancel()
		// A lone statement may have been on its way when the context ended; then it
		// has to be settled.
		if errors.Is(err, lockstep.ErrUnknownOutcome) {
			settled, serr := s.Capabilities().Settle(t.Context(), err)
			if serr != nil || settled.Applied || settled.Err != nil {
				t.Fatalf("settled as %+v, %v", settled, serr)
			}
			continue
		}
		wantError(t, err, lockstep.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := s.Capabilities().Begin(ctx)
	wantError(t, err, lockstep.ErrUnavailable)
	if r := get(t, s, "k"); r.Value != "old" {
		t.Errorf("a reader beside the lock sees %q", r.Value)
	}
	unlock()
	put(t, s, "k", "new")
	if r := get(t, s, "k"); r.Value != "new" {
		t.Errorf("after the lock: %q", r.Value)
	}
}

func TestCommitWaitsForAnotherProcess(t *testing.T) {
	s := openStore[string, string](t, newPath(t), Options{})
	unlock := lockFile(t, s.Database().Path())
	done := make(chan error, 1)
	go func() {
		_, err := commitOne(s, lockstep.Change[string, string]{Key: "k", Value: "v"})
		done <- err
	}()
	unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// slowCommit is a write whose COMMIT hangs until release is closed. It returns
// what the caller is told, whose context ends meanwhile.
func slowCommit(t *testing.T, s *Store[string, string], value string, release chan struct{}) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := s.newBatch([]lockstep.ChangeSet[string, string]{{Changes: []lockstep.Change[string, string]{{Key: "k", Value: value}}}})
	_, err := s.db.write(ctx, func(_ context.Context, a *attempt) error {
		if err := a.begin(background); err != nil {
			return err
		}
		d, err := b.decide(background, a)
		if err != nil {
			return err
		}
		if err := b.flush(background, a, d); err != nil {
			return err
		}
		a.result = b.Outcomes
		return a.decisive(func() error {
			cancel()
			<-release
			_, err := a.conn.exec("COMMIT")
			return err
		})
	})
	return err
}

func TestACommitThatHangsIsUnknownUntilItIsOver(t *testing.T) {
	s := openStore[string, string](t, newPath(t), Options{})
	put(t, s, "k", "old")
	release := make(chan struct{})
	err := slowCommit(t, s, "new", release)
	wantError(t, err, lockstep.ErrUnknownOutcome)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error hides its cause: %v", err)
	}

	// While it hangs, nothing can be said, and readers go on.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, serr := s.Capabilities().Settle(ctx, err); !errors.Is(serr, lockstep.ErrUnavailable) {
		t.Errorf("Settle of a commit under way: %v", serr)
	}
	if r := get(t, s, "k"); r.Value != "old" {
		t.Errorf("a reader sees %q", r.Value)
	}
	close(release)
	settled, serr := s.Capabilities().Settle(t.Context(), err)
	if serr != nil || !settled.Applied || settled.Err != nil || len(settled.Outcomes) != 1 {
		t.Fatalf("settled as %+v, %v", settled, serr)
	}
	r := get(t, s, "k")
	if r.Value != "new" || settled.Outcomes[0].Rows[0].Version != r.Version {
		t.Errorf("the row is %+v, the settlement %+v", r, settled.Outcomes[0])
	}
}

// The other side of the compare-and-swap: who leaves before COMMIT is told "not
// applied", and the attempt keeps to it.
func TestACallerWhoLeavesBeforeCommit(t *testing.T) {
	s := openStore[string, string](t, newPath(t), Options{})
	put(t, s, "k", "old")
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	commits := make(chan error, 1)
	_, err := s.db.write(ctx, func(_ context.Context, a *attempt) error {
		if err := a.begin(background); err != nil {
			return err
		}
		if _, err := a.conn.exec(`UPDATE lockstep SET value = '"new"'`); err != nil {
			return err
		}
		cancel()
		<-left
		err := a.commit()
		commits <- err
		return err
	})
	wantError(t, err, lockstep.ErrUnavailable)
	close(left)
	if err := <-commits; !errors.Is(err, errAbandoned) {
		t.Errorf("the attempt's COMMIT: %v", err)
	}
	put(t, s, "other", "waits for the write lock")
	if r := get(t, s, "k"); r.Value != "old" {
		t.Errorf("the row is %q", r.Value)
	}
}

func TestFullDisk(t *testing.T) {
	s := openStore[string, []byte](t, newPath(t), Options{})
	put(t, s, "k", []byte("old"))
	w, err := s.db.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.script("PRAGMA max_page_count=20"); err != nil {
		t.Fatal(err)
	}
	s.db.release(w, true)
	big := make([]byte, 1<<20)
	_, err = commitOne(s, lockstep.Change[string, []byte]{Key: "k", Value: big})
	wantError(t, err, lockstep.ErrUnavailable, "full")
	_, err = commitOne(s, lockstep.Change[string, []byte]{Key: "k", Value: []byte("half")}, lockstep.Change[string, []byte]{Key: "l", Value: big})
	wantError(t, err, lockstep.ErrUnavailable, "full")
	if r := get(t, s, "k"); string(r.Value) != "old" {
		t.Errorf("the row is %q", r.Value)
	}
	put(t, s, "k", []byte("small"))
	if r := get(t, s, "k"); string(r.Value) != "small" {
		t.Errorf("after the failure: %q", r.Value)
	}
}

// RAISE(FAIL) keeps what its statement has done so far, and a lone statement is
// committed with it.
func TestAWriteThatATriggerFailsIsNotSaidToBeUndone(t *testing.T) {
	s := openStore[string, string](t, newPath(t), Options{})
	put(t, s, "k", "old")
	// It is not there when the table is opened, or the table would be refused.
	run(t, s.db.path, `CREATE TRIGGER f AFTER UPDATE ON lockstep WHEN new.value = '"fail"' BEGIN SELECT RAISE(FAIL, 'no'); END`,
		`CREATE TRIGGER a AFTER UPDATE ON lockstep WHEN new.value = '"abort"' BEGIN SELECT RAISE(ABORT, 'no'); END`)
	for value, want := range map[string]bool{"fail": true, "abort": false} {
		_, err := commitOne(s, lockstep.Change[string, string]{Key: "k", Value: value})
		wantError(t, err, lockstep.ErrUnknownOutcome, "no")
		settled, err := s.Capabilities().Settle(t.Context(), err)
		if err != nil || settled.Err != nil {
			t.Fatalf("%s: %v, %v", value, settled.Err, err)
		}
		if applied := get(t, s, "k").Value == value; settled.Applied != want || applied != want {
			t.Errorf("%s: settled as %t, and the row is %t", value, settled.Applied, applied)
		}
		run(t, s.db.path, `DELETE FROM lockstep`)
		put(t, s, "k", "old")
	}
}

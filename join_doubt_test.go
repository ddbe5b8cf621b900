package lockstep_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Joined transactions that nobody ends, or of which nobody knows how they ended.

func TestAForgottenJoinedTransactionIsEnded(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		p, j := d.joined("k", 2, lockstep.JoinTimeout(time.Minute))
		u := in(d, d.a, j)
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		d.asks("k", 1)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		d.settledTo("k", 1)
		if err := p.Commit(); !errors.Is(err, errDone) {
			t.Errorf("the program can still commit it: %v", err)
		}
		d.notApplied(second(u.Set(d.ctx, "k", 3)), lockstep.ErrUnavailable)
		for what, err := range map[string]error{"Get": second(u.Get(d.ctx, "k")), "Rollback": j.Rollback(d.ctx), "InJoined": second(d.a.InJoined(j))} {
			if !errors.Is(err, lockstep.ErrUnavailable) || !strings.Contains(err.Error(), "JoinTimeout") {
				t.Errorf("%s: %v", what, err)
			}
		}
		for range 2 {
			err := j.Commit(d.ctx)
			d.notApplied(err, lockstep.ErrUnavailable)
			if !strings.Contains(err.Error(), "1m0s") {
				t.Errorf("Commit does not say why: %v", err)
			}
		}
	})
}

// By the driver's own Commit or Rollback.
func TestAJoinedTransactionThatEndedBehindItsBackIsFoundOut(t *testing.T) {
	for _, commits := range []bool{true, false} {
		end, want := (*programTx).Rollback, 1
		if commits {
			end, want = (*programTx).Commit, 2
		}
		inJoin(t, options{}, func(d *duo) { // by the deadline
			p, j := d.joined("k", 2, lockstep.JoinTimeout(time.Minute))
			if err := end(p); err != nil {
				t.Fatal(err)
			}
			d.asks("k", want)
			time.Sleep(time.Minute)
			synctest.Wait()
			d.settledTo("k", want)
			if err := j.Commit(d.ctx); commits && err != nil {
				t.Errorf("Commit of what the program has committed: %v", err)
			} else if !commits {
				d.notApplied(err, lockstep.ErrUnavailable)
			}
		})
		inJoin(t, options{}, func(d *duo) { // by Commit
			p, j := d.joined("k", 2)
			if err := end(p); err != nil {
				t.Fatal(err)
			}
			w := d.unknown(j.Commit(d.ctx), errDone)
			d.settles(w, commits)
			synctest.Wait()
			d.settledTo("k", want)
		})
		inJoin(t, options{}, func(d *duo) { // by Rollback
			p, j := d.joined("k", 2)
			if err := end(p); err != nil {
				t.Fatal(err)
			}
			w := d.unknown(j.Rollback(d.ctx), errDone)
			d.settles(w, commits)
			synctest.Wait()
			d.settledTo("k", want)
		})
	}
}

// A call of the program's hangs in the transaction when its deadline comes.
func TestTheDeadlineEndsACallInAJoinedTransaction(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.beginJoined(lockstep.JoinTimeout(time.Minute))
		u := in(d, d.a, j)
		d.sa.Play(fault.MustParse("apply 1: hang"))
		began := time.Now()
		err := second(u.Set(context.Background(), "k", 2))
		d.notApplied(err, lockstep.ErrUnavailable)
		if took := time.Since(began); took != time.Minute || !strings.Contains(err.Error(), "JoinTimeout") {
			t.Errorf("after %v: %v", took, err)
		}
		synctest.Wait()
		d.settledTo("k", 1)
	})
}

func TestAJoinedTransactionWhoseReplyIsLost(t *testing.T) {
	for _, lose := range []string{"request", "reply"} {
		inJoin(t, options{}, func(d *duo) {
			want := 1
			if lose == "reply" {
				want = 2
			}
			_, j := d.joined("k", 2)
			d.sa.Play(fault.MustParse("commit 1: lose " + lose + "; settle 1..3: fail"))
			w := d.unknown(j.Commit(d.ctx))
			d.asks("k", want)
			writes := []*call{
				d.start(func() error { return second(d.a.Set(d.ctx, "k", 7)) }),
				d.start(func() error { return second(d.b.Set(d.ctx, "k", 7)) }),
			}
			for _, write := range writes {
				write.hangs()
			}
			if n := d.a.Stats(); n.InDoubt != 1 || n.Unknown != 1 {
				t.Errorf("%d in doubt, %d unknown", n.InDoubt, n.Unknown)
			}
			d.settles(w, lose == "reply")
			for _, write := range writes {
				write.succeeds()
			}
			d.settledTo("k", 7)
		})
	}
}

func TestTheCallerOfAJoinedCommitLeaves(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.joined("k", 2)
		commit := d.sa.Block(fault.BeforeCommit)
		defer commit.Pass()
		ctx, cancel := context.WithCancel(d.ctx)
		c := d.start(func() error { return j.Commit(ctx) })
		<-commit.Reached
		cancel()
		w := d.unknown(c.returned(), context.Canceled)
		d.asks("k", 1)
		commit.Pass()
		d.settles(w, true)
		synctest.Wait()
		d.settledTo("k", 2)
	})
}

// A context that has ended sends nothing.
func TestAJoinedCommitWithAContextThatHasEndedIsNotApplied(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		p, j := d.joined("k", 2)
		ctx, cancel := context.WithCancel(d.ctx)
		cancel()
		d.notApplied(j.Commit(ctx), context.Canceled)
		d.settledTo("k", 1)
		if err := p.Commit(); !errors.Is(err, errDone) {
			t.Errorf("the transaction is still open: %v", err)
		}
	})
}

// The fence does not come back: reads go to the database, writes end by their own
// deadlines, and so does Close.
func TestAForgottenJoinedTransactionThatCannotBeSettled(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		p, j := d.joined("k", 2, lockstep.JoinTimeout(time.Minute))
		p.Commit()
		d.sa.Play(fault.MustParse("settle *: fail"))
		time.Sleep(2 * time.Minute)
		d.asks("k", 2)
		began := time.Now()
		d.notApplied(second(d.a.Set(d.ctx, "k", 7)), lockstep.ErrUnavailable)
		if took := time.Since(began); took != lockstep.DefaultCommitTimeout {
			t.Errorf("a write waits for %v", took)
		}
		w := d.unknown(j.Commit(d.ctx))
		for _, c := range []*lockstep.Cache[string, int]{d.a, d.b} {
			ctx, cancel := context.WithTimeout(d.ctx, time.Second)
			defer cancel()
			if err := c.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close: %v", err)
			}
		}
		if _, _, err := w.Wait(d.ctx); !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Errorf("Wait: %v", err)
		}
	})
}

func TestCloseDoesNotWaitForAJoinedTransactionThatIsOpen(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.joined("k", 2)
		u := in(d, d.a, j)
		began := time.Now()
		if err := d.a.Close(d.ctx); err != nil || time.Since(began) != 0 {
			t.Errorf("Close after %v: %v", time.Since(began), err)
		}
		d.notApplied(second(u.Set(d.ctx, "k", 3)), lockstep.ErrClosed)
		if _, err := in(d, d.b, j).Set(d.ctx, "k", 3); err != nil {
			t.Errorf("the other cache: %v", err)
		}
		if err := j.Commit(d.ctx); err != nil {
			t.Errorf("Commit: %v", err)
		}
		if got, err := d.b.Get(d.ctx, "k"); got != 3 || err != nil {
			t.Errorf("Get = %d, %v", got, err)
		}
		rows, err := d.sa.Load(d.ctx, []string{"k"})
		if rows["k"].Value != 2 || err != nil {
			t.Errorf("the closed cache's table holds %v, %v", rows["k"], err)
		}
	})
}

// Both are closed, and the transaction is forgotten after all.
func TestAJoinedTransactionOutlivesItsCaches(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		p, j := d.joined("k", 2, lockstep.JoinTimeout(time.Minute))
		for _, c := range []*lockstep.Cache[string, int]{d.a, d.b} {
			if err := c.Close(d.ctx); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if err := p.Commit(); !errors.Is(err, errDone) {
			t.Errorf("it is still open: %v", err)
		}
		d.notApplied(j.Commit(d.ctx), lockstep.ErrUnavailable)
	})
}

func TestCloseWaitsForAJoinedCommit(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.joined("k", 2)
		commit := d.sa.Block(fault.BeforeCommit)
		defer commit.Pass()
		c := d.start(func() error { return j.Commit(d.ctx) })
		<-commit.Reached
		closing := d.start(func() error { return d.a.Close(d.ctx) })
		closing.hangs()
		commit.Pass()
		c.succeeds()
		closing.succeeds()
	})
}

// The program waits, inside the transaction, for a write past it.
func TestAWriteBesideItsOwnJoinedTransactionEndsByItsDeadline(t *testing.T) {
	inJoin(t, options{CommitTimeout: 5 * time.Second}, func(d *duo) {
		_, j := d.joined("k", 2)
		began := time.Now()
		d.notApplied(second(d.a.Set(d.ctx, "k", 7)), lockstep.ErrUnavailable)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it waited for %v", took)
		}
		if err := j.Commit(d.ctx); err != nil {
			t.Error(err)
		}
		d.settledTo("k", 2)
	})
}

// A key in doubt may change late, and would undo what has passed it. Who settles it may
// have to wait for the transaction, which therefore does not wait for him: transactions
// that took turns in waiting kept the fence from SQLite's write lock for ever.
func TestAJoinedTransactionDoesNotPassAWriteInDoubtNorWaitForIt(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		d.sa.Play(fault.MustParse("commit 1: lose reply; settle 1..4: fail"))
		w := d.unknown(second(d.a.Set(d.ctx, "k", 5)))
		_, j := d.joined("other", 1)
		u := in(d, d.a, j)
		began := time.Now()
		d.notApplied(second(u.Set(d.ctx, "k", 6)), lockstep.ErrUnavailable)
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("it waited for %v", took)
		}
		d.settles(w, true)
		synctest.Wait()
		if _, err := u.Set(d.ctx, "k", 7); err != nil { // nothing had been sent
			t.Error(err)
		}
		if err := j.Commit(d.ctx); err != nil {
			t.Error(err)
		}
		if got, err := d.a.Get(d.ctx, "k"); got != 7 || err != nil {
			t.Errorf("Get = %d, %v", got, err)
		}
	})
}

// slowlyAsked is a context that takes its time to say that it goes on.
type slowlyAsked struct {
	context.Context
	takes time.Duration
}

func (c slowlyAsked) Err() error {
	time.Sleep(c.takes)
	return c.Context.Err()
}

// The deadline fell between Commit's turn and its beginning of the end. Commit waited for the
// deadline to have ended the transaction, and the deadline for Commit's turn.
func TestCommitDoesNotWaitForADeadlineThatWaitsForIt(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.joined("k", 2, lockstep.JoinTimeout(time.Minute))
		ctx, cancel := context.WithTimeout(d.ctx, time.Hour)
		defer cancel()
		d.notApplied(j.Commit(slowlyAsked{ctx, 2 * time.Minute}), lockstep.ErrUnavailable)
		if err := ctx.Err(); err != nil {
			t.Errorf("Commit was answered when its context ended: %v", err)
		}
		synctest.Wait()
		d.settledTo("k", 1)
	})
}

package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A "batch" is a loop of single writes; one caller waits up to the timer though
// nothing else is queued; one caller's cancelled context fails another's write.
func TestFault07Batches(t *testing.T) {
	t.Run("a loop of single writes", func(t *testing.T) {
		finds(t, setup[int]{batching: 10 * time.Millisecond}, func(tr *trial[int]) error {
			const writers = 10
			commit := tr.store.Block(fault.BeforeCommit)
			defer commit.Pass()
			var writes []*pending[int]
			for i := range writers {
				writes = append(writes, tr.startSet(tr.ctx, fmt.Sprint("k", i), i))
			}
			tr.quiet()
			<-commit.Reached
			commit.Pass()
			for _, w := range writes {
				<-w.done
				if w.err != nil {
					return w.err
				}
			}
			// The first may travel alone; the others have gathered meanwhile.
			if commits := tr.store.Counts().Commits; commits > 2 {
				return fmt.Errorf("%d commits of %d writes that were queued together", commits, writers)
			}
			return nil
		})
	})
	t.Run("a lone writer waits for company", func(t *testing.T) {
		finds(t, setup[int]{batching: 10 * time.Millisecond}, func(tr *trial[int]) error {
			began := time.Now()
			_, err := tr.set("k", 1)
			if waited := time.Since(began); waited > 0 {
				return fmt.Errorf("a lone writer waited %v", waited)
			}
			return err
		})
	})
	t.Run("one caller's context fails another's write", func(t *testing.T) {
		finds(t, setup[int]{gather: 10 * time.Millisecond}, func(tr *trial[int]) error {
			ctx, leave := context.WithCancel(tr.ctx)
			impatient := tr.startSet(ctx, "a", 1)
			tr.quiet()
			patient := tr.startSet(tr.ctx, "b", 1)
			tr.quiet()
			leave()
			<-patient.done
			<-impatient.done
			if patient.err != nil {
				return fmt.Errorf("a caller who stayed: %w", patient.err)
			}
			return tr.get("b", 1)
		})
	})
}

// A retry sleeps without looking at the caller's context, and has no jitter.
func TestFault09Retries(t *testing.T) {
	t.Run("sleep through the caller's context", func(t *testing.T) {
		finds(t, setup[int]{retrying: true}, func(tr *trial[int]) error {
			tr.script("commit 1..: fail")
			ctx, cancel := context.WithTimeout(tr.ctx, time.Millisecond)
			defer cancel()
			began := time.Now()
			_, err := tr.Set(ctx, "k", 1)
			if waited := time.Since(began); waited > time.Millisecond {
				return fmt.Errorf("the caller had a millisecond, and was kept for %v", waited)
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("the caller's time was over, and the error is %w", or(err, errNotRefused))
			}
			return nil
		})
	})
	t.Run("without jitter", func(t *testing.T) {
		finds(t, setup[int]{retrying: true, inFlight: 2}, func(tr *trial[int]) error {
			tr.script("commit 1..2: fail")
			a, b := tr.startSet(tr.ctx, "a", 1), tr.startSet(tr.ctx, "b", 1)
			<-a.done
			<-b.done
			times := tr.commits.times()
			if err := first(a.err, b.err); err != nil {
				return err
			}
			if len(times) != 4 {
				return fmt.Errorf("%d attempts, want 4", len(times))
			}
			if times[2].Equal(times[3]) {
				return fmt.Errorf("two writers that failed together come back together, after %v", times[2].Sub(times[0]))
			}
			return nil
		})
	})
}

// A caller in the queue cannot leave; closing strands the queue.
func TestFault19StrandedInTheQueue(t *testing.T) {
	t.Run("leaving", func(t *testing.T) {
		finds(t, setup[int]{gather: 5 * time.Second}, func(tr *trial[int]) error {
			ctx, cancel := context.WithTimeout(tr.ctx, time.Second)
			defer cancel()
			began := time.Now()
			_, err := tr.Set(ctx, "k", 1)
			if waited := time.Since(began); waited > time.Second {
				return fmt.Errorf("the caller had a second, and was kept for %v", waited)
			}
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, lockstep.ErrUnknownOutcome) {
				return fmt.Errorf("the caller left the queue, and the error is %w", or(err, errNotRefused))
			}
			time.Sleep(time.Hour)
			if commits := tr.store.Counts().Commits; commits != 0 {
				return errors.New("the write was sent though its caller was told that it was not")
			}
			return nil
		})
	})
	t.Run("closing", func(t *testing.T) {
		finds(t, setup[int]{gather: 5 * time.Second}, func(tr *trial[int]) error {
			writer := tr.startSet(tr.ctx, "k", 1)
			tr.quiet()
			if err := tr.Close(tr.ctx); err != nil {
				return err
			}
			if !tr.answers(writer) {
				return errors.New("a caller in the queue is never answered")
			}
			rows, err := tr.table.Load(tr.ctx, []string{"k"})
			if written := rows["k"].Exists; written != (writer.err == nil) {
				return fmt.Errorf("the caller was told %v, and the row exists: %v", writer.err, written)
			}
			return err
		})
	})
}

// A permanent error is retried like a passing one.
func TestFault20PermanentErrors(t *testing.T) {
	finds(t, setup[int]{retrying: true}, func(tr *trial[int]) error {
		tr.script("commit 1..: refuse")
		if _, err := tr.Set(tr.ctx, "k", 1); !errors.Is(err, lockstep.ErrInvalid) {
			return fmt.Errorf("a write that the database refuses: %w", or(err, errNotRefused))
		}
		if commits := tr.store.Counts().Commits; commits != 1 {
			return fmt.Errorf("what the database refuses was tried %d times", commits)
		}
		// A passing one is tried again.
		tr.script("commit 1: fail")
		_, err := tr.set("k", 1)
		return err
	})
}

package lockstep_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// The context's cause is a conflict, as errgroup makes it.
func TestTransactSaysNotAppliedOfACommittedWrite(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		ctx, cancel := context.WithCancelCause(s.ctx)
		after := s.store.Block(fault.AfterCommit, "k")
		done := make(chan error, 1)
		go func() {
			done <- lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return s.In(tx).Set(ctx, "k", 7)
			})
		}()
		<-after.Reached // the database has committed it
		// A sibling of the errgroup has lost a race.
		cancel(&lockstep.WriteError{Outcome: lockstep.NotApplied, Err: &lockstep.ConflictError{Key: "other"}})
		err := <-done
		after.Pass()
		synctest.Wait()
		rows, _ := s.table.Load(s.ctx, []string{"k"})
		if rows["k"].Value == 7 && !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Errorf("the row is committed, and the caller was told: %v", err)
		}
	})
}

// A read says ErrNotFound of a row that is there.
func TestGetSaysNotFoundOfARowThatIsThere(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		s.Invalidate("k")
		ctx, cancel := context.WithCancelCause(s.ctx)
		_, err := s.Get(s.ctx, "absent")
		cancel(err) // errgroup does so with a sibling's error
		_, err = s.Get(ctx, "k")
		if errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("Get of a row that exists: %v", err)
		}
	})
}

// A write that was never decided is reported as a conflict.
func TestSetSaysConflictWithoutACondition(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		ctx, cancel := context.WithCancelCause(s.ctx)
		cancel(&lockstep.ConflictError{Key: "other"})
		_, err := s.Set(ctx, "k", 1)
		var c *lockstep.ConflictError
		if errors.As(err, &c) {
			t.Errorf("an unconditional Set of k: a conflict of key %v: %v", c.Key, err)
		}
	})
}

// An error of a plain store that is both unknown and unavailable.
type plainDB struct {
	mu   sync.Mutex
	rows map[string]string
}

func (d *plainDB) Read(_ context.Context, key string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.rows[key]
	if !ok {
		return "", lockstep.ErrNotFound
	}
	return v, nil
}

func (d *plainDB) Write(_ context.Context, key, value string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows[key] = value
	return fmt.Errorf("connection lost before the reply: %w: %w", lockstep.ErrUnknownOutcome, lockstep.ErrUnavailable)
}

func (d *plainDB) WriteBatch(context.Context, map[string]string) error { return nil }

func (d *plainDB) Delete(context.Context, string) error { return nil }

func TestPlainUnknownAndUnavailableIsNeverSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &plainDB{rows: map[string]string{}}
		c := cachetest.Open(t, lockstep.FromDataStore[string, string](db), lockstep.Options[string, string]{})
		_, err := c.Set(t.Context(), "k", "new")
		var w *lockstep.WriteError
		if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		applied, _, err := w.Wait(ctx)
		if err != nil || !applied {
			t.Errorf("after a day: applied %t, %v", applied, err)
		}
	})
}

// Settling by comparison says "not applied" of what was applied.
type event struct {
	At time.Time
}

type jsonDB struct {
	mu   sync.Mutex
	rows map[string][]byte
}

func (d *jsonDB) Read(_ context.Context, key string) (v event, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	data, ok := d.rows[key]
	if !ok {
		return v, lockstep.ErrNotFound
	}
	return v, json.Unmarshal(data, &v)
}

func (d *jsonDB) Write(_ context.Context, key string, value event) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows[key], _ = json.Marshal(value)
	return errors.New("the reply was lost")
}

func (d *jsonDB) WriteBatch(context.Context, map[string]event) error { return nil }

func (d *jsonDB) Delete(context.Context, string) error { return nil }

func TestPlainSettlementSaysNotAppliedOfAnAppliedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &jsonDB{rows: map[string][]byte{}}
		c := cachetest.Open(t, lockstep.FromDataStore[string, event](db), lockstep.Options[string, event]{})
		now := event{time.Now()} // with a monotonic reading, which no database keeps
		_, err := c.Set(t.Context(), "k", now)
		var w *lockstep.WriteError
		if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
			t.Fatal(err)
		}
		applied, _, err := w.Wait(t.Context())
		got, gerr := c.Get(t.Context(), "k")
		if err == nil && !applied && gerr == nil && got.At.Equal(now.At) {
			t.Error("the row is there, and Wait says that it was not applied")
		}
	})
}

// Updates inside updates of other keys.
func TestNestedUpdatesDeadlock(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		both := make(chan struct{}, 2)
		ready := make(chan struct{})
		done := make(chan struct{}, 2)
		nested := func(a, b string) {
			defer func() { done <- struct{}{} }()
			first := true
			s.Update(s.ctx, a, func(old int, _ bool) (int, error) {
				if first {
					first = false
					both <- struct{}{}
					<-ready
				}
				_, err := s.Update(s.ctx, b, func(old int, _ bool) (int, error) { return old + 1, nil })
				return old + 1, err
			})
		}
		ctx, cancel := context.WithCancel(s.ctx)
		s.ctx = ctx
		go nested("a", "b")
		go nested("b", "a")
		<-both
		<-both
		close(ready)
		timer := time.After(24 * time.Hour)
		for range 2 {
			select {
			case <-done:
			case <-timer:
				t.Error("two updates have waited for each other for a day")
				cancel()
				<-done
			}
		}
		s.ctx = t.Context()
		cancel()
	})
}

// A joint transaction in doubt, whose first cache is closed.
type lateTxn struct {
	lockstep.Txn
	late *lockstep.Txn
}

func (l lateTxn) Commit(context.Context) error {
	*l.late = l.Txn
	return fmt.Errorf("%w: the connection was lost", lockstep.ErrUnknownOutcome)
}

func (l lateTxn) Settle(context.Context) (bool, error) { return false, errors.New("no connection") }

type lateStore struct {
	store
	late *lockstep.Txn
}

func (s lateStore) Capabilities() capability {
	can := s.store.Capabilities()
	begin, apply := can.Begin, can.Apply
	can.Begin = func(ctx context.Context) (lockstep.Txn, error) {
		t, err := begin(ctx)
		return lateTxn{t, s.late}, err
	}
	can.Apply = func(ctx context.Context, t lockstep.Txn, set changeSet) (outcome, error) {
		return apply(ctx, t.(lateTxn).Txn, set)
	}
	return can
}

func TestJointDoubtEndsWithTheFirstCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memstore.NewDatabase()
		var late lockstep.Txn
		open := func() *lockstep.Cache[string, int] {
			c, err := lockstep.New[string, int](lateStore{memstore.New(memstore.Options[string, int]{Database: db}), &late}, options{})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		a, b := open(), open()
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			b.Close(ctx)
		}()
		if _, err := b.Set(t.Context(), "k", 1); err != nil {
			t.Fatal(err)
		}
		err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
			return errors.Join(a.In(tx).Set(ctx, "j", 2), b.In(tx).Set(ctx, "k", 2))
		})
		if !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Fatal(err)
		}
		b.Get(t.Context(), "k")
		if _, ok := b.Peek("k"); ok {
			t.Fatal("b remembers a key in doubt")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a.Close(ctx)
		synctest.Wait()
		b.Get(t.Context(), "k")
		// The database commits it at last.
		if err := late.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v, err := b.Get(t.Context(), "k"); v != 2 || err != nil {
			t.Errorf("b, which is open, answers from memory with %d, %v, for ever; the table has 2", v, err)
		}
	})
}

// A Weigher that does not expect the zero value ends the program.
func TestAPanicInWeigherEndsTheProgram(t *testing.T) {
	if os.Getenv("BREAK_WEIGHER") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAPanicInWeigherEndsTheProgram$")
		cmd.Env = append(os.Environ(), "BREAK_WEIGHER=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %.300s", err, out)
		}
		return
	}
	type value struct{ Name string }
	c, err := lockstep.New[string, *value](memstore.New(memstore.Options[string, *value]{}), lockstep.Options[string, *value]{
		MaxBytes: 1 << 20, Weigher: func(_ string, v *value) uint32 { return uint32(len(v.Name)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Get(t.Context(), "absent")
	c.Close(t.Context())
}

type panickyDB struct{ plainDB }

func (d *panickyDB) Write(_ context.Context, key, value string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows[key] = value
	panic("a bug in the driver")
}

func TestPlainPanicIsNeverSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &panickyDB{plainDB{rows: map[string]string{}}}
		c := cachetest.Open(t, lockstep.FromDataStore[string, string](db), lockstep.Options[string, string]{})
		_, err := c.Set(t.Context(), "k", "new")
		var w *lockstep.WriteError
		errors.As(err, &w)
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if applied, _, err := w.Wait(ctx); err != nil || !applied {
			t.Errorf("after a day: applied %t, %v", applied, err)
		}
		if _, err := c.Delete(t.Context(), "k"); err != nil {
			t.Errorf("and the key cannot be written: %v", err)
		}
	})
}

func TestAContextOutlivesItsTransaction(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		var kept context.Context
		lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error { kept = ctx; return nil })
		_, alone := s.Exists(kept, "k")
		lockstep.Transact(s.ctx, func(context.Context, *lockstep.Tx) error {
			_, beside := s.Exists(kept, "k")
			if (alone == nil) != (beside == nil) {
				t.Errorf("by itself: %v; while a stranger's transaction runs: %v", alone, beside)
			}
			return nil
		})
	})
}

// A transaction's function that updates, past it, a key whose turn its rerun holds.
func TestARerunDeadlocksOnItsOwnTurn(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		ctx, cancel := context.WithTimeout(s.ctx, 24*time.Hour)
		defer cancel()
		tries := 0
		err := lockstep.Transact(ctx, func(tctx context.Context, tx *lockstep.Tx) error {
			tries++
			v, err := s.In(tx).Get(tctx, "k")
			if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
				return err
			}
			if tries == 1 {
				s.table.Commit(ctx, []changeSet{{Changes: []change{{Key: "k", Value: 5}}}}) // somebody else
			} else if _, err := s.Update(ctx, "k", func(int, bool) (int, error) { return 9, nil }); err != nil {
				return err
			}
			return s.In(tx).Set(tctx, "k", v+1)
		})
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after a day, in try %d: %v", tries, err)
		}
	})
}

// Close does not wake the queue that gathers company for a lone write.
func TestCloseDropsAWriteThatOnlyWaitsForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := lockstep.New[string, int](memstore.New(memstore.Options[string, int]{}), options{Batch: lockstep.Batch{MaxDelay: 5 * time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { _, err := c.Set(t.Context(), "k", 1); done <- err }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		closed := c.Close(ctx)
		if err := <-done; err != nil || closed != nil {
			t.Errorf("an idle database, and a second to write one row: %v; Close: %v", err, closed)
		}
	})
}

// "mine" is set if "theirs" is absent; whoever has set "theirs" looks at "mine".
// Whatever the order, one of the two has to see the other.
func TestATransactionOfOneWriteIsNotSerializable(t *testing.T) {
	for _, name := range []string{"two batches at once", "a joint transaction beside a batch"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				joint := name != "two batches at once"
				var o options
				if !joint {
					o.Batch.InFlight = 2
				}
				db := memstore.NewDatabase()
				store := fault.Inject(memstore.New(memstore.Options[string, int]{Database: db}), fault.Script{}, 1)
				c := cachetest.Open[string, int](t, store, o)
				other := cachetest.Open[string, int](t, fault.Inject(memstore.New(memstore.Options[string, int]{Database: db}), fault.Script{}, 1), o)
				if _, err := c.Set(t.Context(), "mine", 0); err != nil {
					t.Fatal(err)
				}
				after := store.Block(fault.AfterCommit, "mine")
				first := make(chan error, 1)
				go func() {
					first <- lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
						if _, err := c.In(tx).Get(ctx, "theirs"); !errors.Is(err, lockstep.ErrNotFound) {
							return errors.New("theirs is there")
						}
						return c.In(tx).Set(ctx, "mine", 1)
					})
				}()
				<-after.Reached // the database has committed it: theirs was absent
				var err error
				if joint {
					err = lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
						return errors.Join(c.In(tx).Set(ctx, "theirs", 1), other.In(tx).Set(ctx, "x", 1))
					})
				} else {
					_, err = c.Set(t.Context(), "theirs", 1)
				}
				if err != nil {
					t.Fatal(err)
				}
				mine, _ := c.Get(t.Context(), "mine") // begins after theirs was acknowledged
				after.Pass()
				if err := <-first; err == nil && mine == 0 {
					t.Error("the transaction saw no theirs, and whoever wrote theirs sees no mine")
				}
			})
		})
	}
}

// A reader who asks after the row's lifetime joins a load that read it before.
func TestAJoinedLoadBringsARowThatIsOver(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1, lockstep.Lifetime(time.Second))
		s.Invalidate("k")
		after := s.store.Block(fault.AfterLoad, "k")
		go s.Get(s.ctx, "k")
		<-after.Reached
		time.Sleep(time.Hour)
		got := make(chan error)
		go func() { _, err := s.Get(s.ctx, "k"); got <- err }()
		synctest.Wait()
		after.Pass()
		if err := <-got; !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("an hour after the row's end a read begins, and finds it (error %v)", err)
		}
	})
}

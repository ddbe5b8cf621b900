package lockstep_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A database that hangs accepts connections and answers nothing: every call of the
// store lasts until its context ends, and so does every end of a transaction.
type hanging struct {
	*testing.T
	*lockstep.Cache[string, int]
	other    *lockstep.Cache[string, int]
	begin    func(context.Context) (lockstep.Txn, error)
	database any
	hang     func()
}

const hangs = "load *: hang; commit *: hang; settle *: hang; scan *: hang; begin *: hang; apply *: hang"

// lentTxn is a transaction of a database that may hang.
type lentTxn struct {
	lockstep.Txn
	hung func() bool
}

func (t lentTxn) Unwrap() lockstep.Txn { return t.Txn }

func (t lentTxn) wait(ctx context.Context) error {
	if t.hung() {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (t lentTxn) Commit(ctx context.Context) error {
	if err := t.wait(ctx); err != nil {
		return errors.Join(lockstep.ErrUnknownOutcome, err)
	}
	return t.Txn.Commit(ctx)
}

func (t lentTxn) Rollback(ctx context.Context) error {
	if err := t.wait(ctx); err != nil {
		_ = t.Txn.Rollback(context.Background()) // the connection is broken, and the server ends it
		return err
	}
	return t.Txn.Rollback(ctx)
}

func (t lentTxn) Settle(ctx context.Context) (bool, error) {
	if err := t.wait(ctx); err != nil {
		return false, err
	}
	return t.Txn.Settle(ctx)
}

// inHanging plays with two caches of one database that hangs as soon as hang is called.
func inHanging(t *testing.T, play func(h *hanging)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var hung atomic.Bool
		table := memstore.New(memstore.Options[string, int]{NewKey: func() string { return "new" }})
		inner := fault.Inject(table, fault.Script{}, 1)
		over := altered{store: inner, can: func(c *capability) {
			begin, apply, read := c.Begin, c.Apply, c.Read
			c.Begin = func(ctx context.Context) (lockstep.Txn, error) {
				txn, err := begin(ctx)
				if err != nil {
					return nil, err
				}
				return lentTxn{txn, hung.Load}, nil
			}
			c.Apply = func(ctx context.Context, txn lockstep.Txn, set changeSet) (outcome, error) {
				return apply(ctx, txn.(lentTxn).Txn, set)
			}
			c.Read = func(ctx context.Context, txn lockstep.Txn, keys []string) (map[string]row, error) {
				return read(ctx, txn.(lentTxn).Txn, keys)
			}
		}}
		h := &hanging{T: t, Cache: cachetest.Open(t, store(over), options{Logger: quiet}), begin: over.Capabilities().Begin, database: over.Capabilities().Database}
		h.other = cachetest.Open(t, store(over), options{Logger: quiet})
		t.Cleanup(func() { hung.Store(false); inner.Play(fault.Script{}); inner.Release() })
		for _, key := range []string{"hit", "known"} {
			if _, err := h.Set(t.Context(), key, 1); err != nil {
				t.Fatal(err)
			}
		}
		h.hang = func() { hung.Store(true); inner.Play(fault.MustParse(hangs)) }
		play(h)
	})
}

// hangingCalls are a call of every method that may ask the database. Each is made as
// prepare returns it, once the database hangs.
var hangingCalls = map[string]func(h *hanging) (call func(context.Context) error){
	"Get": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return second(h.Get(ctx, "k")) }
	},
	"GetEntry": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return second(h.GetEntry(ctx, "k")) }
	},
	"GetMany": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return second(h.GetMany(ctx, []string{"hit", "k", "l"})) }
	},
	"Exists": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return second(h.Exists(ctx, "k")) }
	},
	"Refresh": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return h.Refresh(ctx, "hit") }
	},
	"Set": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return second(h.Set(ctx, "k", 2)) }
	},
	"SetQueued": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error {
			go h.Set(h.Context(), "k", 1)
			time.Sleep(time.Nanosecond)
			return second(h.Set(ctx, "k", 2)) // behind it
		}
	},
	"SetMany": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return h.SetMany(ctx, map[string]int{"k": 1, "l": 2}) }
	},
	"Insert": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { _, _, err := h.Insert(ctx, 1); return err }
	},
	"Delete": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return second(h.Delete(ctx, "k")) }
	},
	"DeleteMany": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return h.DeleteMany(ctx, []string{"k", "l"}) }
	},
	"DeleteAll": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return h.DeleteAll(ctx) }
	},
	"Update": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return second(h.Update(ctx, "k", addOne)) }
	},
	"UpdateKnown": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return second(h.Update(ctx, "known", addOne)) }
	},
	"Transact": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				if _, err := h.In(tx).Get(ctx, "known"); err != nil {
					return err
				}
				return h.In(tx).Set(ctx, "k", 1)
			})
		}
	},
	"TransactReading": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error { return second(h.In(tx).Get(ctx, "known")) })
		}
	},
	"TransactRefused": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				h.In(tx).Get(ctx, "known")
				return errors.New("insufficient funds")
			})
		}
	},
	"TransactJointly": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return errors.Join(h.In(tx).Set(ctx, "k", 1), h.other.In(tx).Set(ctx, "l", 1))
			})
		}
	},
	"TransactWithSQL": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				if err := h.In(tx).Set(ctx, "k", 1); err != nil {
					return err
				}
				return second(tx.Txn())
			})
		}
	},
	// The transaction is begun when the database begins to hang.
	"BegunTransactRefused": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				err := h.In(tx).Set(ctx, "k", 1)
				if err == nil {
					_, err = tx.Txn()
				}
				if err == nil {
					_, err = h.In(tx).Get(ctx, "known")
				}
				h.hang()
				return errors.Join(err, errors.New("insufficient funds"))
			})
		}
	},
	"BegunTransactReading": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				err := h.In(tx).Set(ctx, "k", 1)
				if err == nil {
					_, err = tx.Txn()
				}
				h.hang()
				return errors.Join(err, second(h.In(tx).Get(ctx, "l")))
			})
		}
	},
	"BegunTransactPanicking": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) (err error) {
			defer func() { recover(); err = ctx.Err() }()
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				err := h.In(tx).Set(ctx, "k", 1)
				if err == nil {
					_, err = tx.Txn()
				}
				h.hang()
				panic(err)
			})
		}
	},
	"Scan": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) (err error) {
			for _, err = range h.Scan(ctx) {
			}
			return err
		}
	},
	"Warm": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return second(h.Warm(ctx, lockstep.WarmOptions{})) }
	},
	"Audit": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error { return second(h.Audit(ctx)) }
	},
	"Close": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error {
			go h.other.Set(h.Context(), "k", 1)
			time.Sleep(time.Nanosecond)
			return h.other.Close(ctx)
		}
	},
	"Wait": func(h *hanging) func(context.Context) error {
		return func(ctx context.Context) error {
			now, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			var unknown *lockstep.WriteError
			if _, err := h.Set(now, "k", 1); !errors.As(err, &unknown) || unknown.Outcome != lockstep.Unknown {
				return nil // which the test does not accept
			}
			_, _, err := unknown.Wait(ctx)
			return err
		}
	},

	// The program's own transaction, in which a cache has written before the database
	// hung.
	"JoinedGet": joinedCall(func(ctx context.Context, _ *lockstep.Joined, a lockstep.InJoined[string, int]) error {
		return second(a.Get(ctx, "l"))
	}),
	"JoinedSet": joinedCall(func(ctx context.Context, _ *lockstep.Joined, a lockstep.InJoined[string, int]) error {
		return second(a.Set(ctx, "l", 1))
	}),
	"JoinedCommit": joinedCall(func(ctx context.Context, j *lockstep.Joined, _ lockstep.InJoined[string, int]) error {
		return j.Commit(ctx)
	}),
}

func addOne(old int, _ bool) (int, error) { return old + 1, nil }

func joinedCall(call func(context.Context, *lockstep.Joined, lockstep.InJoined[string, int]) error) func(h *hanging) func(context.Context) error {
	return func(h *hanging) func(context.Context) error {
		h.Helper()
		txn, err := h.begin(h.Context())
		if err != nil {
			h.Fatal(err)
		}
		j, err := lockstep.Join(h.database, txn)
		if err != nil {
			h.Fatal(err)
		}
		h.Cleanup(func() { j.Rollback(context.Background()) })
		a, err := h.InJoined(j)
		if err == nil {
			_, err = a.Set(h.Context(), "k", 1)
		}
		if err != nil {
			h.Fatal(err)
		}
		return func(ctx context.Context) error { return call(ctx, j, a) }
	}
}

// A hit does not notice that the database hangs, and whoever has to ask it is answered
// by his own deadline, whatever he asks.
func TestADatabaseThatHangs(t *testing.T) {
	for name, prepare := range hangingCalls {
		t.Run(name, func(t *testing.T) {
			inHanging(t, func(h *hanging) {
				call := prepare(h)
				if !strings.HasPrefix(name, "Begun") {
					h.hang()
				}
				const deadline = 3 * time.Second
				start := time.Now()
				ctx, cancel := context.WithTimeout(h.Context(), deadline)
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- call(ctx) }()
				synctest.Wait()
				if name != "DeleteAll" { // which takes every copy away before it is sent
					asked := time.Now()
					if v, err := h.Get(ctx, "hit"); v != 1 || err != nil || time.Since(asked) > 0 {
						t.Errorf("a hit is %d, %v after %v", v, err, time.Since(asked))
					}
				}
				err := <-done
				if took := time.Since(start); took > deadline {
					t.Errorf("answered after %v, with a deadline of %v: %v", took, deadline, err)
				}
				if err == nil || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v", err)
				}
			})
		})
	}
}

// What rolls back is not given up with its caller: Close waits for it.
func TestARollbackGoesOnWithoutItsCaller(t *testing.T) {
	inHanging(t, func(h *hanging) {
		ctx, cancel := context.WithTimeout(h.Context(), time.Second)
		defer cancel()
		err := lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			err := h.other.In(tx).Set(ctx, "k", 1)
			if err == nil {
				_, err = tx.Txn()
			}
			h.hang()
			return errors.Join(err, errors.New("insufficient funds"))
		})
		if err == nil {
			t.Fatal("committed")
		}
		start := time.Now()
		if err := h.other.Close(h.Context()); err != nil || time.Since(start) == 0 {
			t.Errorf("Close: %v after %v", err, time.Since(start))
		}
	})
}

// Nor is a caller kept whose cache was closed while his transaction was open.
func TestARollbackForAClosedCacheDoesNotKeepItsCaller(t *testing.T) {
	for name, result := range map[string]error{"Committing": nil, "Refused": errors.New("insufficient funds")} {
		t.Run(name, func(t *testing.T) {
			inHanging(t, func(h *hanging) {
				const deadline = time.Second
				start := time.Now()
				ctx, cancel := context.WithTimeout(h.Context(), deadline)
				defer cancel()
				err := lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
					err := h.other.In(tx).Set(ctx, "k", 1)
					if err == nil {
						_, err = tx.Txn()
					}
					if err = errors.Join(err, h.other.Close(ctx)); err != nil {
						t.Error(err)
					}
					h.hang()
					return result
				})
				var w *lockstep.WriteError
				if !errors.As(err, &w) || w.Outcome != lockstep.NotApplied {
					t.Errorf("error %v", err)
				}
				if took := time.Since(start); took > deadline {
					t.Errorf("answered after %v, with a deadline of %v: %v", took, deadline, err)
				}
				time.Sleep(lockstep.DefaultCommitTimeout) // by then it has ended
			})
		})
	}
}

package jointest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// stress: each row counts up, by whoever writes it, under the condition that it was as
// read. So a reader who is told less than what was acknowledged before it asked has read
// from before that.
func stress(s *scene) {
	const keys, joiners, writers, readers, rounds = 3, 3, 2, 3, 25
	var acknowledged [keys]atomic.Int64
	acknowledge := func(k int, value int) {
		for {
			old := acknowledged[k].Load()
			if old >= int64(value) || acknowledged[k].CompareAndSwap(old, int64(value)) {
				return
			}
		}
	}
	name := func(k int) string { return fmt.Sprint("n", k) }
	for k := range keys {
		s.ok(second(s.a.Set(s.ctx, name(k), 0)))
	}
	var committed atomic.Int64
	var writing, reading sync.WaitGroup
	for range joiners {
		writing.Go(func() {
			for round := range rounds {
				k := rand.IntN(keys)
				if value, ok := s.joinedIncrement(name(k), round); ok {
					acknowledge(k, value)
					committed.Add(1)
				}
			}
		})
	}
	for range writers {
		writing.Go(func() {
			for range rounds {
				k := rand.IntN(keys)
				value, err := s.a.Update(s.ctx, name(k), func(old int, _ bool) (int, error) { return old + 1, nil })
				if err == nil {
					acknowledge(k, value)
				}
			}
		})
	}
	stop := make(chan struct{})
	for range readers {
		reading.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				k := i % keys
				least := acknowledged[k].Load()
				if got, err := s.a.Get(s.ctx, name(k)); err != nil {
					s.Errorf("Get: %v", err)
					return
				} else if int64(got) < least {
					s.Errorf("Get(%s) = %d, after %d was acknowledged", name(k), got, least)
					return
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	if committed.Load() == 0 {
		s.Error("no joined transaction was committed")
	}
}

// joinedIncrement counts a row up in a transaction that it ends in one way or another,
// and tells the new value if it was told that this is committed.
func (s *scene) joinedIncrement(key string, way int) (value int, committed bool) {
	tx, err := s.Begin(s.ctx)
	if err != nil {
		return 0, false // as many as there are connections
	}
	defer tx.Rollback(context.WithoutCancel(s.ctx))
	timeout := time.Minute
	if way%8 == 7 {
		timeout = 20 * time.Millisecond
	}
	j, err := tx.Join(s.ctx, lockstep.JoinTimeout(timeout))
	if err != nil {
		if timeout == time.Minute {
			s.Errorf("Join: %v", err)
		}
		return 0, false
	}
	u, err := s.a.InJoined(j)
	if err != nil {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	e, err := u.GetEntry(ctx, key)
	if err == nil {
		_, err = u.Set(ctx, key, e.Value+1, lockstep.IfVersion(e.Version))
	}
	if err != nil {
		if err := j.Rollback(s.ctx); err != nil && timeout == time.Minute {
			s.Errorf("Rollback after an error: %v", err)
		}
		return 0, false
	}
	switch way % 8 {
	case 7: // forgotten
		_, ended := waitFor(s.ctx, j)
		if errors.Is(ended, lockstep.ErrInvalid) {
			s.Errorf("a forgotten transaction: %v", ended)
		}
		return 0, false
	case 6: // committed behind the Joined's back, which finds it out
		if err := tx.Commit(s.ctx); err != nil {
			return 0, false
		}
		defer j.Rollback(s.ctx)
		return e.Value + 1, true
	case 5:
		s.ok(j.Rollback(s.ctx))
		return 0, false
	}
	if err := j.Commit(s.ctx); err != nil {
		return 0, false
	}
	return e.Value + 1, true
}

// waitFor waits until the transaction's deadline has ended it.
func waitFor(ctx context.Context, j *lockstep.Joined) (applied bool, err error) {
	time.Sleep(30 * time.Millisecond) // nothing is to be waited for: it is forgotten
	err = j.Commit(ctx)
	var w *lockstep.WriteError
	if errors.As(err, &w) {
		applied, _, _ = w.Wait(ctx)
	}
	return applied, err
}

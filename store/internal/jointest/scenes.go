package jointest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
)

func commits(s *scene) {
	tx, j := s.begin()
	a, b := s.in(s.a, j), s.in(s.b, j)
	version, err := a.Set(s.ctx, "k", 2)
	s.ok(err)
	existed, err := b.Delete(s.ctx, "k")
	if !existed || err != nil {
		s.Errorf("Delete = %v, %v", existed, err)
	}
	s.ok(tx.Exec(s.ctx, "INSERT INTO "+s.LogTable+" (line) VALUES ('one')"))
	s.ok(second(b.Set(s.ctx, "k", 3, lockstep.IfAbsent())))
	s.ok(second(a.Set(s.ctx, "new", 4)))
	if e, err := a.GetEntry(s.ctx, "k"); e.Value != 2 || e.Version != version || err != nil {
		s.Errorf("the transaction reads %+v, %v", e, err)
	}
	s.ok(second(a.Set(s.ctx, "k", 3, lockstep.IfVersion(version))))
	if got, err := a.GetMany(s.ctx, []string{"k", "new", "none"}); len(got) != 2 || got["k"] != 3 || got["new"] != 4 || err != nil {
		s.Errorf("the transaction reads %v, %v", got, err)
	}
	s.asks("k", 1)
	s.logged(0)
	s.ok(j.Commit(s.ctx))
	for _, c := range s.both() {
		if got, ok := c.Peek("k"); ok {
			s.Errorf("memory says %d", got)
		}
	}
	s.free("k", 3)
	s.logged(1)
	if err := tx.Commit(s.ctx); err == nil {
		s.Error("the transaction can be committed once more")
	}
	for what, err := range map[string]error{"Set": second(a.Set(s.ctx, "k", 9)), "Get": second(a.Get(s.ctx, "k")), "Commit": j.Commit(s.ctx), "Rollback": j.Rollback(s.ctx)} {
		if !errors.Is(err, lockstep.ErrInvalid) {
			s.Errorf("%s afterwards: %v", what, err)
		}
	}
}

func rollsBack(s *scene) {
	tx, j := s.joined("k", 2)
	s.ok(tx.Exec(s.ctx, "INSERT INTO "+s.LogTable+" (line) VALUES ('one')"))
	s.asks("k", 1)
	s.ok(j.Rollback(s.ctx))
	s.free("k", 1)
	s.logged(0)
	if err := tx.Commit(s.ctx); err == nil {
		s.Error("the transaction can be committed all the same")
	}
}

func fails(s *scene) {
	_, j := s.joined("k", 2)
	_, err := s.in(s.a, j).Set(s.ctx, "k", 3, lockstep.IfVersion(1))
	s.notApplied(err, lockstep.ErrConflict)
	s.notApplied(second(s.in(s.b, j).Set(s.ctx, "k", 3)), lockstep.ErrInvalid)
	s.asks("k", 1)
	s.notApplied(j.Commit(s.ctx), lockstep.ErrConflict)
	s.free("k", 1)
}

// behindItsBack: the program calls the driver's own Commit or Rollback.
func behindItsBack(s *scene) {
	value := 1
	for _, end := range []func(Tx, context.Context) error{Tx.Commit, Tx.Rollback} {
		for _, by := range []func(*lockstep.Joined, context.Context) error{(*lockstep.Joined).Commit, (*lockstep.Joined).Rollback, nil} {
			timeout := time.Minute
			if by == nil {
				timeout = time.Second
			}
			tx, j := s.joined("k", value+1, lockstep.JoinTimeout(timeout))
			s.ok(end(tx, s.ctx))
			before := value
			if n, err := s.a.Get(s.ctx, "k"); err != nil || n != before && n != before+1 {
				s.Fatalf("Get = %d, %v", n, err)
			} else {
				value = n
			}
			applied := value != before
			s.holds("k", value)
			if by != nil {
				if err := by(j, s.ctx); err != nil || applied { // a rollback may be told at once
					s.settles(err, applied)
				}
			}
			s.free("k", value)
			if by == nil {
				if err := j.Commit(s.ctx); errors.Is(err, lockstep.ErrUnknownOutcome) {
					s.settles(err, applied)
				} else if applied != (err == nil) {
					s.Errorf("Commit afterwards: %v", err)
				}
			}
		}
	}
	if value != 4 {
		s.Errorf("three of six transactions were committed, and the value is %d", value)
	}
}

// byStatement: the program sends COMMIT or ROLLBACK as a statement, and goes on.
func byStatement(s *scene) {
	for i, queries := range [][]string{{"COMMIT"}, {"ROLLBACK"}, {"COMMIT", "BEGIN"}, {"ROLLBACK", "BEGIN"}, {"COMMIT", "BEGIN"}, {"ROLLBACK", "BEGIN"}} {
		value, err := s.a.Get(s.ctx, "k")
		s.ok(err)
		tx, j := s.joined("k", value+1)
		for _, query := range queries {
			if err := tx.Exec(s.ctx, query); err != nil {
				s.Fatal(err)
			}
		}
		committed := queries[0] == "COMMIT"
		if committed {
			value++
		}
		s.holds("k", value)
		if len(queries) == 1 {
			if err := second(s.in(s.a, j).Set(s.ctx, "k", 100)); err == nil {
				s.Errorf("after %s a write in the transaction was accepted", queries)
			}
		}
		end := j.Commit
		if i >= 4 {
			end = j.Rollback
		}
		err = end(s.ctx)
		if errors.Is(err, lockstep.ErrUnknownOutcome) {
			s.settles(err, committed)
		} else if committed {
			s.Errorf("after %s, the end says: %v", queries, err)
		} else if i < 4 && err == nil {
			s.Errorf("after %s, Commit says nil", queries)
		}
		tx.Rollback(s.ctx)
		s.free("k", value)
	}
}

func forgotten(s *scene) {
	tx, j := s.joined("k", 2, lockstep.JoinTimeout(1500*time.Millisecond))
	s.asks("k", 1)
	s.free("k", 1)
	if err := tx.Commit(s.ctx); err == nil {
		s.Error("the forgotten transaction can be committed")
	}
	s.holds("k", 1)
	s.notApplied(second(s.in2(s.a, j).Set(s.ctx, "k", 3)), lockstep.ErrUnavailable)
	s.notApplied(j.Commit(s.ctx), lockstep.ErrUnavailable)
	for _, c := range s.both() {
		s.ok(second(c.Set(s.ctx, "k", 5)))
	}
	s.free("k", 5)
}

// in2 is in for a transaction that is over: of a cache that had joined it.
func (s *scene) in2(c *lockstep.Cache[string, int], j *lockstep.Joined) interface {
	Set(context.Context, string, int, ...lockstep.WriteOption) (lockstep.Version, error)
} {
	return set(func() error { return second(c.InJoined(j)) })
}

type set func() error

func (f set) Set(context.Context, string, int, ...lockstep.WriteOption) (lockstep.Version, error) {
	return 0, &lockstep.WriteError{Err: f()}
}

// waitedFor: so many writers, and transactions, wait for the rows of a forgotten one that
// there is no connection left, if they come from where its own comes from.
func waitedFor(s *scene) {
	_, j := s.joined("k", 2, lockstep.JoinTimeout(1500*time.Millisecond))
	var group sync.WaitGroup
	for i := range 12 {
		for _, c := range s.both() {
			group.Go(func() {
				ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
				defer cancel()
				var err error
				switch i % 3 {
				case 0:
					_, err = c.Set(ctx, "k", 10+i)
				case 1:
					err = c.SetMany(ctx, map[string]int{"k": 10 + i, fmt.Sprint("k", i): i})
				default:
					err = lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
						return errors.Join(s.a.In(tx).Set(ctx, "k", 10+i), s.b.In(tx).Set(ctx, "k", 10+i))
					})
				}
				if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
					s.Errorf("a write hangs: %v", err)
				}
			})
		}
	}
	group.Wait()
	s.notApplied(j.Commit(s.ctx), lockstep.ErrUnavailable)
	for _, c := range s.both() {
		s.ok(second(c.Set(s.ctx, "k", 5)))
	}
	s.free("k", 5)
}

// endedContext: the context ends with which the transaction was begun, and the call goes
// on to roll back.
func endedContext(s *scene) {
	ctx, cancel := context.WithCancel(s.ctx)
	tx, err := s.Begin(ctx)
	if err != nil {
		s.Fatal(err)
	}
	j, err := tx.Join(ctx)
	if err != nil {
		s.Fatal(err)
	}
	s.ok(second(s.in(s.a, j).Set(ctx, "k", 2)))
	cancel()
	s.notApplied(j.Commit(ctx), context.Canceled)
	s.ok(s.ctx.Err())
	s.free("k", 1)

	ctx, cancel = context.WithCancel(s.ctx)
	if tx, err = s.Begin(ctx); err != nil {
		s.Fatal(err)
	}
	if j, err = tx.Join(ctx); err != nil {
		s.Fatal(err)
	}
	s.ok(second(s.in(s.a, j).Set(ctx, "k", 2)))
	cancel()
	s.ok(j.Rollback(ctx))
	s.free("k", 1)
}

// besideItself: the program waits, inside the transaction, for a write past it.
func besideItself(s *scene) {
	_, j := s.joined("k", 2)
	began := time.Now()
	err := second(s.a.Set(s.ctx, "k", 7))
	if err == nil {
		s.Error("the write is committed, before the transaction whose row it writes")
	}
	if took := time.Since(began); took > 10*time.Second {
		s.Errorf("it has waited for %v, and its CommitTimeout is 1s", took)
	}
	if errors.Is(err, lockstep.ErrUnknownOutcome) {
		s.settles(err, false) // else it may still follow the transaction
	}
	s.ok(j.Commit(s.ctx))
	s.free("k", 2)
}

func refuses(s *scene) {
	tx, err := s.Foreign(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := tx.Join(s.ctx); !errors.Is(err, lockstep.ErrInvalid) {
		s.Errorf("a transaction of another database: %v", err)
	}
	s.ok(tx.Rollback(s.ctx))
	for _, end := range []func(Tx, context.Context) error{Tx.Commit, Tx.Rollback} {
		tx, err := s.Begin(s.ctx)
		if err != nil {
			s.Fatal(err)
		}
		s.ok(end(tx, s.ctx))
		if _, err := tx.Join(s.ctx); !errors.Is(err, lockstep.ErrInvalid) {
			s.Errorf("a transaction that is over: %v", err)
		}
	}
	if tx, err = s.Begin(s.ctx); err != nil {
		s.Fatal(err)
	}
	defer tx.Rollback(s.ctx)
	if _, err := tx.Join(s.ctx, lockstep.JoinTimeout(-1)); !errors.Is(err, lockstep.ErrInvalid) {
		s.Errorf("a bad option: %v", err)
	}
	j, err := tx.Join(s.ctx) // the mistake has left it as it was
	if err != nil {
		s.Fatal(err)
	}
	s.ok(second(s.in(s.a, j).Set(s.ctx, "k", 2)))
	s.ok(j.Commit(s.ctx))
}

// closesCachesFirst: what was written can still be committed, or be forgotten.
func closesCachesFirst(s *scene) {
	_, j := s.joined("k", 2)
	began := time.Now()
	for _, c := range s.both() {
		s.ok(c.Close(s.ctx))
	}
	if took := time.Since(began); took > 5*time.Second {
		s.Errorf("Close has taken %v", took)
	}
	s.ok(j.Commit(s.ctx))
	rows, err := s.A.Load(s.ctx, []string{"k"})
	if rows["k"].Value != 2 || err != nil {
		s.Errorf("the table holds %+v, %v", rows["k"], err)
	}
}

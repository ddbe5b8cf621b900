// Package jointest tests a store's Join, with caches in front of it and a real database
// behind it: whatever becomes of a transaction that the program began, memory is right.
package jointest

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
)

// Tx is a transaction of the program's, as its driver gives it.
type Tx interface {
	Exec(ctx context.Context, query string) error
	Commit(ctx context.Context) error
	Rollback(ctx context.Context) error
	Join(ctx context.Context, options ...lockstep.JoinOption) (*lockstep.Joined, error)
}

// Rig is an empty database.
type Rig struct {
	// A and B are stores over one Database.
	A, B lockstep.Store[string, int]
	// Begin begins a transaction in it, and Foreign one of another database that is to
	// be joined with this one. Who has it must end it.
	Begin, Foreign func(ctx context.Context) (Tx, error)
	// LogTable is a table with a column line, of the program's own, and Log counts its rows.
	LogTable string
	Log      func(ctx context.Context) (int, error)
	// Settles: what has become of a transaction that was ended behind the Joined's back
	// can be told.
	Settles bool
}

// scene is a rig with caches, in which no call may take longer than patience.
type scene struct {
	*testing.T
	Rig
	ctx  context.Context
	a, b *lockstep.Cache[string, int]
}

const patience = time.Minute

// quiet is for what the tests do on purpose.
var quiet = slog.New(slog.DiscardHandler)

// Run runs all tests, each on a rig of its own.
func Run(t *testing.T, open func(t *testing.T) Rig) {
	for _, test := range []struct {
		name string
		play func(s *scene)
	}{
		{"Commits", commits},
		{"RollsBack", rollsBack},
		{"AFailedConditionIsRolledBack", fails},
		{"EndedBehindItsBack", behindItsBack},
		{"EndedByAStatement", byStatement},
		{"Forgotten", forgotten},
		{"ForgottenWhileAllWaitForIt", waitedFor},
		{"AContextThatHasEnded", endedContext},
		{"AWriteBesideItEndsByItsDeadline", besideItself},
		{"WhatCannotBeJoined", refuses},
		{"CachesAreClosedFirst", closesCachesFirst},
		{"Stress", stress},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // most of the time they wait
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			t.Cleanup(cancel)
			s := &scene{T: t, Rig: open(t), ctx: ctx}
			o := lockstep.Options[string, int]{CommitTimeout: time.Second, Logger: quiet}
			s.a, s.b = cachetest.Open(t, s.A, o), cachetest.Open(t, s.B, o)
			for _, c := range s.both() {
				if _, err := c.Set(ctx, "k", 1); err != nil {
					t.Fatal(err)
				}
			}
			test.play(s)
		})
	}
}

func (s *scene) both() []*lockstep.Cache[string, int] {
	return []*lockstep.Cache[string, int]{s.a, s.b}
}

// begin begins a transaction and joins it.
func (s *scene) begin(options ...lockstep.JoinOption) (Tx, *lockstep.Joined) {
	s.Helper()
	tx, err := s.Begin(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { tx.Rollback(context.Background()) })
	j, err := tx.Join(s.ctx, options...)
	if err != nil {
		s.Fatal(err)
	}
	return tx, j
}

func (s *scene) in(c *lockstep.Cache[string, int], j *lockstep.Joined) lockstep.InJoined[string, int] {
	s.Helper()
	u, err := c.InJoined(j)
	if err != nil {
		s.Fatal(err)
	}
	return u
}

// joined begins a transaction in which both caches have written.
func (s *scene) joined(key string, value int, options ...lockstep.JoinOption) (Tx, *lockstep.Joined) {
	s.Helper()
	tx, j := s.begin(options...)
	for _, c := range s.both() {
		if _, err := s.in(c, j).Set(s.ctx, key, value); err != nil {
			s.Fatalf("Set in the transaction: %v", err)
		}
	}
	return tx, j
}

// asks says that the database answers for the key, and memory does not.
func (s *scene) asks(key string, want int) {
	s.Helper()
	for range 2 {
		s.holds(key, want)
		for _, c := range s.both() {
			if got, ok := c.Peek(key); ok {
				s.Errorf("memory says %s = %d, and should not answer", key, got)
			}
		}
	}
}

func (s *scene) holds(key string, want int) {
	s.Helper()
	for _, c := range s.both() {
		if got, err := c.Get(s.ctx, key); got != want || err != nil {
			s.Errorf("Get(%s) = %d, %v, want %d", key, got, err, want)
		}
	}
}

// free says that memory answers for the key again, at the latest when a transaction that
// is being settled is over.
func (s *scene) free(key string, want int) {
	s.Helper()
	for _, c := range s.both() {
		for {
			got, err := c.Get(s.ctx, key)
			if err != nil {
				s.Fatalf("Get(%s): %v", key, err)
			}
			if _, ok := c.Peek(key); ok {
				if got != want {
					s.Errorf("Get(%s) = %d, want %d", key, got, want)
				}
				break
			}
			time.Sleep(time.Millisecond) // polled: nobody is told when a key is free
		}
	}
}

func (s *scene) logged(want int) {
	s.Helper()
	if n, err := s.Log(s.ctx); n != want || err != nil {
		s.Errorf("the program's own table has %d rows, %v, want %d", n, err, want)
	}
}

func (s *scene) notApplied(err error, targets ...error) {
	s.Helper()
	var w *lockstep.WriteError
	if !errors.As(err, &w) || w.Outcome != lockstep.NotApplied {
		s.Errorf("the error is %v, want one of a write that was not applied", err)
	}
	for _, target := range targets {
		if !errors.Is(err, target) {
			s.Errorf("the error is %v, want one that is %v", err, target)
		}
	}
}

// settles says what an unknown outcome is in the end.
func (s *scene) settles(err error, want bool) {
	s.Helper()
	var w *lockstep.WriteError
	if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
		s.Errorf("the error is %v, want an unknown outcome", err)
		return
	}
	applied, _, err := w.Wait(s.ctx)
	if !s.Settles && errors.Is(err, lockstep.ErrUnknownOutcome) && s.ctx.Err() == nil {
		return
	}
	if applied != want || err != nil {
		s.Errorf("Wait = %v, %v, want %v", applied, err, want)
	}
}

func (s *scene) ok(err error) {
	s.Helper()
	if err != nil {
		s.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

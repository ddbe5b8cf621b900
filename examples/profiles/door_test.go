package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// What is checked here is who is let in: while somebody changes his password again and
// again, others sign in with the passwords that they know, and knock with what they were
// given. The same knocking is heard by the service as it is (profiles_test.go), and by
// services that lack a protection (sabotage_test.go).

// everyDatabase runs f on tables in SQLite and in PostgreSQL.
func everyDatabase(t *testing.T, f func(t *testing.T, tables *Tables)) {
	t.Run("SQLite", func(t *testing.T) { f(t, openTables(t, filepath.Join(t.TempDir(), "profiles.db"))) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, openTables(t, dbtest.Postgres(t))) })
}

func openTables(t *testing.T, store string) *Tables {
	t.Helper()
	tables, err := OpenTables(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tables.Close(); err != nil {
			t.Error(err)
		}
	})
	return tables
}

// inject puts faults into the tables that decide who is let in; play changes them.
func (tables *Tables) inject(seed uint64) (play func(script string)) {
	security := fault.Inject(tables.security, fault.Script{}, seed)
	signIns := fault.Inject(tables.signIns, fault.Script{}, seed+1)
	profiles := fault.Inject(tables.profiles, fault.Script{}, seed+2)
	preferences := fault.Inject(tables.preferences, fault.Script{}, seed+3)
	tables.security, tables.signIns, tables.profiles, tables.preferences = security, signIns, profiles, preferences
	return func(script string) {
		security.Play(fault.MustParse(script))
		signIns.Play(fault.MustParse(script))
	}
}

func openService(t *testing.T, tables *Tables) *Service {
	t.Helper()
	service, err := NewService(tables, newPasswords(2)) // how slow they are is not tested
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return service
}

// door is who lets people in as ada: the service, or one that lacks something.
type door struct {
	// signIn calls between when the password is checked and nothing is written yet.
	signIn   func(ctx context.Context, password string, between func()) (token string, err error)
	signedIn func(ctx context.Context, token string) error
	change   func(ctx context.Context, token, old, password string) error
}

// asItIs is the door of a service that lacks nothing. Its signIn is SignIn with a stop in
// the middle.
func asItIs(s *Service) door {
	return door{
		signIn: func(ctx context.Context, password string, between func()) (string, error) {
			checked, err := s.checked(ctx, "ada", password)
			if err != nil {
				return "", err
			}
			between()
			token, _, err := s.signInAs(ctx, "ada", checked)
			return token, err
		},
		signedIn: func(ctx context.Context, token string) error {
			_, err := s.SignedIn(ctx, token)
			return err
		},
		change: func(ctx context.Context, token, old, password string) error {
			return s.ChangePassword(ctx, token, "ada", old, password)
		},
	}
}

const (
	changes  = 8 // of the password
	visitors = 4
	storm    = "commit 2: lose reply; commit 10%: lose reply; commit 5%: lose reply, late; commit 5%: lose request; commit 10%: fail; begin 10%: fail"
)

func passwordOf(n int64) string { return fmt.Sprint("password number ", n) }

// knock changes the password and has visitors knock, and returns who was let in or kept
// out wrongly. A request that starts when the n-th change has been acknowledged must not
// be let in by a sign-in that was made with an earlier password, unless it is that of
// the one who has changed it, who must be.
func knock(t *testing.T, s *Service, d door, play func(string)) (faults []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.SignUp(ctx, "ada", passwordOf(0), Profile{Display: "Ada"}); err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		acked atomic.Int64 // the number of the password that everybody has to know by now
	)
	found := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		faults = append(faults, fmt.Sprintf(format, args...))
	}
	// try knocks once, with a sign-in of password n.
	try := func(token string, n int64) {
		now := acked.Load()
		err := d.signedIn(ctx, token)
		switch {
		case err == nil && n < now:
			found("let in: a sign-in of password %d, after that was changed to number %d", n, now)
		case err != nil && !errors.Is(err, ErrSignedOut) && !away(err):
			found("knocking: %v", err)
		}
	}

	own, err := d.signIn(ctx, passwordOf(0), func() {})
	if err != nil {
		t.Fatal(err)
	}
	stale, err := d.signIn(ctx, passwordOf(0), func() {})
	if err != nil {
		t.Fatal(err)
	}
	try(stale, 0) // so that whoever remembers who is in remembers it
	changeTo := func(n int64) {
		for {
			err := d.change(ctx, own, passwordOf(n-1), passwordOf(n))
			if err == nil || errors.Is(err, ErrWrongPassword) { // changed before, when nobody knew
				break
			}
			if !away(err) {
				found("changing the password: %v", err)
				break
			}
		}
		acked.Store(n)
		for {
			err := d.signedIn(ctx, own)
			if away(err) {
				continue
			}
			if err != nil {
				found("kept out: the one who has changed the password to number %d: %v", n, err)
			}
			break
		}
	}

	// One signs in slowly: the password is changed when his has been found right.
	slow, err := d.signIn(ctx, passwordOf(0), func() { changeTo(1) })
	if err != nil {
		t.Fatal(err)
	}
	try(slow, 0)
	try(stale, 0)

	play(storm)
	over := make(chan struct{})
	var all sync.WaitGroup
	for range visitors {
		all.Go(func() {
			type signIn struct {
				token string
				n     int64
			}
			last := []signIn{{slow, 0}}
			for ended := false; !ended; {
				select {
				case <-over:
					ended = true // one more round
				default:
				}
				n := acked.Load()
				token, err := d.signIn(ctx, passwordOf(n), func() {})
				switch {
				case err == nil:
					last = append(last, signIn{token, n})
					last = last[max(0, len(last)-4):]
				case !errors.Is(err, ErrWrongPassword) && !away(err):
					found("signing in: %v", err)
					return
				}
				for _, in := range last {
					try(in.token, in.n)
				}
			}
		})
	}
	for n := int64(2); n <= changes; n++ {
		changeTo(n)
	}
	close(over)
	all.Wait()
	play("")

	for name, audit := range map[string]func() ([]string, error){
		"security": func() ([]string, error) { return differences(ctx, s.security) },
		"sign-ins": func() ([]string, error) { return differences(ctx, s.signIns) },
	} {
		wrong, err := audit()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range wrong {
			found("memory of %s: %s", name, d)
		}
	}
	return faults
}

func differences[V any](ctx context.Context, cache *lockstep.Cache[string, V]) (found []string, err error) {
	report, err := cache.Audit(ctx)
	for _, d := range report.Differences {
		found = append(found, d.String())
	}
	return found, err
}

// away tells whether the answer is that there is none now.
func away(err error) bool {
	return errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome)
}

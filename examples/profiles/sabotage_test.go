package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Each door of this file lacks one protection, and has everything else. The knocking has
// to find out.
func TestKnockingFindsOutWhatADoorLacks(t *testing.T) {
	for _, c := range []struct {
		lacks string
		door  func(s *Service) door
	}{
		{"a look at the generation", func(s *Service) door {
			d := asItIs(s)
			d.signedIn = func(ctx context.Context, token string) error {
				_, err := s.signIns.Get(ctx, keyOf(token))
				return signedOut(err)
			}
			return d
		}},

		{"a generation: those who are there are shown out", func(s *Service) door {
			d := asItIs(s)
			d.signedIn = func(ctx context.Context, token string) error {
				_, err := s.signIns.Get(ctx, keyOf(token))
				return signedOut(err)
			}
			d.change = func(ctx context.Context, token, old, password string) error {
				if err := s.ChangePassword(ctx, token, "ada", old, password); err != nil {
					return err
				}
				var others []string
				for e, err := range s.signIns.Scan(ctx) {
					if err != nil {
						return err
					}
					if e.Key != keyOf(token) {
						others = append(others, e.Key)
					}
				}
				return s.signIns.DeleteMany(ctx, others)
			}
			return d
		}},

		{"the generation of the password that was checked: it is looked up afterwards", func(s *Service) door {
			d := asItIs(s)
			d.signIn = func(ctx context.Context, password string, between func()) (string, error) {
				if _, err := s.checked(ctx, "ada", password); err != nil {
					return "", err
				}
				between()
				now, err := s.security.GetEntry(ctx, "ada")
				if err != nil {
					return "", err
				}
				token, _, err := s.signInAs(ctx, "ada", now)
				return token, err
			}
			return d
		}},

		{"a cache that is in step: who was in is remembered for a second", func(s *Service) door {
			d := asItIs(s)
			var in sync.Map
			d.signedIn = func(ctx context.Context, token string) error {
				if until, ok := in.Load(token); ok && time.Now().Before(until.(time.Time)) {
					return nil
				}
				_, err := s.SignedIn(ctx, token)
				if err == nil {
					in.Store(token, time.Now().Add(time.Second))
				}
				return err
			}
			return d
		}},
	} {
		t.Run(c.lacks, func(t *testing.T) {
			t.Parallel()
			tables := openTables(t, filepath.Join(t.TempDir(), "profiles.db"))
			play := tables.inject(aSeed(t))
			s := openService(t, tables)
			faults := strings.Join(knock(t, s, c.door(s), play), "\n")
			if !strings.Contains(faults, "let in: ") {
				t.Errorf("nobody is said to have been let in:\n%s", faults)
			}
		})
	}
}

func signedOut(err error) error {
	if errors.Is(err, lockstep.ErrNotFound) {
		return ErrSignedOut
	}
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep"
)

// Profile is what everybody may see of a user.
type Profile struct {
	Display string `json:"display"`
	About   string `json:"about,omitempty"`
}

// Preferences are how a user likes it.
type Preferences struct {
	Theme    string `json:"theme"`
	Language string `json:"language"`
	Letters  bool   `json:"letters"`
}

// Service has a cache for each kind of row that a user has, by the user's name, and one of
// sign-ins. All of them are in one database.
//
// Every request reads a sign-in and the security settings of its user, and nearly always
// from memory. That is why they must not be stale: see SignedIn.
type Service struct {
	profiles    *lockstep.Cache[string, Profile]
	preferences *lockstep.Cache[string, Preferences]
	security    *lockstep.Cache[string, Security]
	signIns     *lockstep.Cache[string, SignIn] // by the hash of their token

	passwords passwords
}

// NewService returns a service on the tables of a database. It does no I/O.
func NewService(tables *Tables, p passwords) (_ *Service, err error) {
	s := &Service{passwords: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(context.Background()))
		}
	}()
	if s.profiles, err = lockstep.New(tables.profiles, lockstep.Options[string, Profile]{Validate: checkProfile}); err != nil {
		return nil, fmt.Errorf("profiles: %w", err)
	}
	if s.preferences, err = lockstep.New(tables.preferences, lockstep.Options[string, Preferences]{Validate: checkPreferences}); err != nil {
		return nil, fmt.Errorf("preferences: %w", err)
	}
	if s.security, err = lockstep.New(tables.security, lockstep.Options[string, Security]{Validate: checkSecurity}); err != nil {
		return nil, fmt.Errorf("security settings: %w", err)
	}
	if s.signIns, err = lockstep.New(tables.signIns, lockstep.Options[string, SignIn]{}); err != nil {
		return nil, fmt.Errorf("sign-ins: %w", err)
	}
	return s, nil
}

// Close waits for what was accepted. It leaves the tables open.
func (s *Service) Close(ctx context.Context) error {
	var errs []error
	if s.profiles != nil {
		errs = append(errs, s.profiles.Close(ctx))
	}
	if s.preferences != nil {
		errs = append(errs, s.preferences.Close(ctx))
	}
	if s.security != nil {
		errs = append(errs, s.security.Close(ctx))
	}
	if s.signIns != nil {
		errs = append(errs, s.signIns.Close(ctx))
	}
	return errors.Join(errs...)
}

// settle waits until it is known what has become of a write, as long as ctx allows, and
// returns what it would have returned if that had been known at once. A caller of the
// service is at the other end of a network: he knows little enough.
func settle(ctx context.Context, version lockstep.Version, err error) (lockstep.Version, error) {
	if !errors.Is(err, lockstep.ErrUnknownOutcome) {
		return version, err
	}
	var lost *lockstep.WriteError
	if !errors.As(err, &lost) {
		return 0, err
	}
	applied, version, waiting := lost.Wait(ctx)
	switch {
	case waiting != nil:
		return 0, err // nobody knows, still
	case applied:
		return version, nil
	}
	return 0, fmt.Errorf("%w: the write was lost on its way", lockstep.ErrUnavailable)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Security is what decides who is let in as this user.
type Security struct {
	Password Password  `json:"password"`
	Changed  time.Time `json:"changed"`
	// Generation counts the passwords that the user has had.
	Generation    int64 `json:"generation"`
	SignInMinutes int   `json:"sign_in_minutes"`
}

var ErrNameTaken = errors.New("the name is taken")

const errName = fieldError("name: a letter and 1 to 30 letters, digits and hyphens, all of them small")

var names = regexp.MustCompile(`^[a-z][a-z0-9-]{1,30}$`)

func checkSecurity(name string, s Security) error {
	switch {
	case !names.MatchString(name):
		return errName
	case s.SignInMinutes < 1 || s.SignInMinutes > 30*24*60:
		return fieldError("sign_in_minutes: 1 to 43,200")
	}
	return nil
}

// SignUp makes the three rows of a new user, or none of them.
func (s *Service) SignUp(ctx context.Context, user, password string, p Profile) error {
	// Validate would say so too, but after the work on the password.
	if !names.MatchString(user) {
		return errName
	}
	if err := checkPassword(password); err != nil {
		return err
	}
	kept, err := s.passwords.create(ctx, password)
	if err != nil {
		return err
	}
	err = lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		first := Security{Password: kept, Changed: time.Now().UTC(), Generation: 1, SignInMinutes: 24 * 60}
		if err := s.security.In(tx).Set(ctx, user, first, lockstep.IfAbsent()); errors.Is(err, lockstep.ErrConflict) {
			return ErrNameTaken
		} else if err != nil {
			return err
		}
		if err := s.profiles.In(tx).Set(ctx, user, p); err != nil {
			return err
		}
		return s.preferences.In(tx).Set(ctx, user, Preferences{Theme: themes[0], Language: "en"})
	})
	_, err = settle(ctx, 0, err)
	return err
}

// ChangePassword ends every sign-in of the user but the one of the token. With nil, no
// request that starts afterwards is let in by any of the others, nor by one that somebody
// has begun with the old password and that is not yet there.
func (s *Service) ChangePassword(ctx context.Context, token, user, old, password string) error {
	if err := checkPassword(password); err != nil {
		return err
	}
	// What is slow comes before the transaction, and what was checked is checked once more
	// inside: that the settings are still of this version.
	checked, err := s.checked(ctx, user, old)
	if err != nil {
		return err
	}
	kept, err := s.passwords.create(ctx, password)
	if err != nil {
		return err
	}
	err = lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		signIns, key := s.signIns.In(tx), keyOf(token)
		own, err := signIns.GetEntry(ctx, key)
		if errors.Is(err, lockstep.ErrNotFound) {
			return ErrSignedOut
		} else if err != nil {
			return err
		}
		// Nor is a sign-in of an older password made one of the new, by whoever knows both.
		if own.Value.Generation != checked.Value.Generation {
			return ErrSignedOut
		}
		next := checked.Value
		next.Password, next.Changed = kept, time.Now().UTC()
		next.Generation++
		if err := s.security.In(tx).Set(ctx, user, next, lockstep.IfVersion(checked.Version)); err != nil {
			return err
		}
		own.Value.Generation = next.Generation
		return signIns.Set(ctx, key, own.Value, lockstep.ExpiresAt(own.ExpiresAt))
	})
	_, err = settle(ctx, 0, err)
	return err
}

// Security returns the settings that a user may see.
func (s *Service) Security(ctx context.Context, user string) (Security, error) {
	security, err := s.security.Get(ctx, user)
	security.Password = Password{}
	return security, err
}

// SetSignInMinutes says how long the user's next sign-ins last.
func (s *Service) SetSignInMinutes(ctx context.Context, user string, minutes int) error {
	_, err := s.security.Update(ctx, user, func(security Security, exists bool) (Security, error) {
		if !exists {
			return security, fmt.Errorf("%w: %s", lockstep.ErrNotFound, user)
		}
		security.SignInMinutes = minutes
		return security, nil
	})
	_, err = settle(ctx, 0, err)
	return err
}

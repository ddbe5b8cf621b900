package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"github.com/lockstep-cache/lockstep"
)

var (
	ErrSignedOut     = errors.New("not signed in")
	ErrWrongPassword = errors.New("the name or the password is wrong")
)

// SignIn is a row that ends by itself. It is kept under the hash of its token, so that
// nobody who reads the table can use it.
type SignIn struct {
	User  string    `json:"user"`
	Since time.Time `json:"since"`
	// Generation is that of the password by which the user has signed in. A sign-in whose
	// generation is not the password's own any more is over.
	Generation int64 `json:"generation"`
}

// SignIn checks the password and returns a token, which is good until expires.
//
// The generation is that of the password which was checked, read before the check. A
// password that is changed while this goes on, which is slow, makes the new sign-in one
// of the old generation: it is over before it has begun.
func (s *Service) SignIn(ctx context.Context, user, password string) (token string, expires time.Time, err error) {
	checked, err := s.checked(ctx, user, password)
	if err != nil {
		return "", time.Time{}, err
	}
	return s.signInAs(ctx, user, checked)
}

// checked returns the security settings by whose password the caller is who he says.
func (s *Service) checked(ctx context.Context, user, password string) (lockstep.Entry[string, Security], error) {
	var kept *Password
	var e lockstep.Entry[string, Security]
	if names.MatchString(user) {
		var err error
		switch e, err = s.security.GetEntry(ctx, user); {
		case err == nil:
			kept = &e.Value.Password
		case !errors.Is(err, lockstep.ErrNotFound):
			return e, err
		}
	}
	right, err := s.passwords.check(ctx, password, kept)
	if err == nil && !right {
		err = ErrWrongPassword
	}
	return e, err
}

func (s *Service) signInAs(ctx context.Context, user string, by lockstep.Entry[string, Security]) (token string, expires time.Time, err error) {
	token = rand.Text()
	lasts := time.Duration(by.Value.SignInMinutes) * time.Minute
	expires = time.Now().Add(lasts)
	// The database ends the row, by its own clock; expires is what the user is told.
	version, err := s.signIns.Set(ctx, keyOf(token),
		SignIn{User: user, Since: time.Now().UTC(), Generation: by.Value.Generation}, lockstep.Lifetime(lasts))
	_, err = settle(ctx, version, err)
	return token, expires, err
}

// SignedIn returns the user whose token it is. It is asked with every request, and
// answered from memory as a rule.
//
// It may be, because a password's change is acknowledged only when neither row is older
// in memory than in the database: a request that starts afterwards reads the new
// generation, and a sign-in of the old one is not let in.
func (s *Service) SignedIn(ctx context.Context, token string) (user string, err error) {
	if len(token) != tokenLength {
		return "", ErrSignedOut
	}
	key := keyOf(token)
	for {
		in, err := s.signIns.Get(ctx, key)
		if errors.Is(err, lockstep.ErrNotFound) {
			return "", ErrSignedOut
		} else if err != nil {
			return "", err
		}
		security, err := s.security.Get(ctx, in.User)
		if errors.Is(err, lockstep.ErrNotFound) {
			return "", ErrSignedOut
		} else if err != nil {
			return "", err
		}
		if in.Generation == security.Generation {
			return in.User, nil
		}
		// The two were read one after the other. If this very sign-in has changed the
		// password in between, it is of the new generation by now.
		now, err := s.signIns.Get(ctx, key)
		if err == nil && now.Generation != in.Generation {
			continue
		}
		return "", ErrSignedOut
	}
}

// SignOut ends a sign-in. One that is over already stays so.
func (s *Service) SignOut(ctx context.Context, token string) error {
	_, err := s.signIns.Delete(ctx, keyOf(token))
	_, err = settle(ctx, 0, err)
	return err
}

var tokenLength = len(rand.Text())

func keyOf(token string) string {
	hash := sha256.Sum256([]byte(token))
	return hex.EncodeToString(hash[:])
}

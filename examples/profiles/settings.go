package main

import (
	"context"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/lockstep-cache/lockstep"
)

// Profile returns a user's profile, and its version. What cannot be a name is not looked
// for: memory remembers users that do not exist, too.
func (s *Service) Profile(ctx context.Context, user string) (Profile, lockstep.Version, error) {
	if !names.MatchString(user) {
		return Profile{}, 0, lockstep.ErrNotFound
	}
	e, err := s.profiles.GetEntry(ctx, user)
	return e.Value, e.Version, err
}

// SetProfile replaces the profile that the caller has seen. If it has changed since, it is
// ErrConflict, and nobody's work is overwritten.
func (s *Service) SetProfile(ctx context.Context, user string, p Profile, seen lockstep.Version) (lockstep.Version, error) {
	version, err := s.profiles.Set(ctx, user, p, lockstep.IfVersion(seen))
	return settle(ctx, version, err)
}

// Preferences returns a user's preferences.
func (s *Service) Preferences(ctx context.Context, user string) (Preferences, error) {
	return s.preferences.Get(ctx, user)
}

// ChangePreferences changes some of the preferences and leaves the others as they are,
// whatever somebody else does to them meanwhile.
func (s *Service) ChangePreferences(ctx context.Context, user string, change func(*Preferences)) error {
	_, err := s.preferences.Update(ctx, user, func(p Preferences, exists bool) (Preferences, error) {
		if !exists {
			return p, lockstep.ErrNotFound
		}
		change(&p)
		return p, nil
	})
	_, err = settle(ctx, 0, err)
	return err
}

// fieldError says which field is wrong, and what it may be.
type fieldError string

func (e fieldError) Error() string { return string(e) }

// What is checked here is checked before anything is written, whoever writes
// (Options.Validate).

func checkProfile(_ string, p Profile) error {
	switch {
	case p.Display == "" || !utf8.ValidString(p.Display) || utf8.RuneCountInString(p.Display) > 80:
		return fieldError("display: 1 to 80 characters")
	case !utf8.ValidString(p.About) || utf8.RuneCountInString(p.About) > 2000:
		return fieldError("about: 2,000 characters at most")
	}
	return nil
}

var (
	themes    = []string{"light", "dark"}
	languages = []string{"de", "en", "fr"}
)

func checkPreferences(_ string, p Preferences) error {
	switch {
	case !slices.Contains(themes, p.Theme):
		return fieldError(fmt.Sprintf("theme: %q is none of %q", p.Theme, themes))
	case !slices.Contains(languages, p.Language):
		return fieldError(fmt.Sprintf("language: %q is none of %q", p.Language, languages))
	}
	return nil
}

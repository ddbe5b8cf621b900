package server

import (
	"crypto/sha256"
	"crypto/subtle"
)

// defaultUser is who has not said who it is.
const defaultUser = "default"

// PasswordHash is what the server knows of a password: SHA-256, as in Redis's lists of
// users. It is quick to compute, also for somebody who has stolen it and guesses: a password
// should be long and random.
type PasswordHash [sha256.Size]byte

// HashPassword returns the hash of a password.
func HashPassword(password string) PasswordHash { return sha256.Sum256([]byte(password)) }

// User is somebody who may use the server.
type User struct {
	// NoPassword takes any password, and for the user "default" none.
	NoPassword bool

	// Passwords are the hashes of those that are good; a second one is for the time in
	// which the first is replaced. None, and not NoPassword: the user is disabled.
	Passwords []PasswordHash
}

// authenticates tells whether that is the user's password. It takes as long for a wrong one
// as for a good one, and for a user that does not exist, with one password, as for one that
// does, so far as that is ours.
func (s *Server) authenticates(name, password []byte) bool {
	user, exists := s.options.Users(string(name))
	given := PasswordHash(sha256.Sum256(password))
	if !exists {
		user = User{Passwords: []PasswordHash{{}}}
	}
	good := 0
	for _, hash := range user.Passwords {
		good |= subtle.ConstantTimeCompare(given[:], hash[:])
	}
	return exists && (good == 1 || user.NoPassword)
}

// open tells whether everybody may use the server without saying who they are.
func (s *Server) open() bool {
	user, exists := s.options.Users(defaultUser)
	return exists && user.NoPassword
}

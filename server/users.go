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

	// ReadOnly refuses commands that write, and those that administer the server
	// (CLIENT KILL): the command table's flags write and admin say which those are.
	ReadOnly bool
}

// may tells whether the connection's user may run a command.
func (c *conn) may(cmd *command) bool { return !c.readOnly || !cmd.guarded }

// disabled: nobody can become that user.
func (u User) disabled() bool { return !u.NoPassword && len(u.Passwords) == 0 }

// UsersChanged has connections follow what Options.Users says now: those of a user who is
// gone, or is disabled, are closed, and who is read-only, or is not any more, is so from the
// next request on. One that was let in by a password that has been replaced stays, as with
// Redis.
func (s *Server) UsersChanged() {
	s.usersChanges.Add(1)
	for _, c := range s.clients() {
		c.mu.Lock()
		name, known := c.about.user, c.about.known
		c.mu.Unlock()
		if user, exists := s.options.Users(name); known && (!exists || user.disabled()) {
			c.hangUp()
			s.leave(c)
		}
	}
}

// renew asks anew for the connection's user, where users have changed, and tells whether
// there is one. UsersChanged has not met a connection that became the user's beside it.
func (c *conn) renew() bool {
	changes := c.server.usersChanges.Load()
	if changes == c.usersSeen {
		return true
	}
	c.usersSeen = changes
	user, exists := c.server.options.Users(c.about.user)
	c.readOnly = user.ReadOnly
	return !c.authenticated || exists && !user.disabled()
}

// authenticates returns the user of that name, and tells whether that is the user's
// password. It takes as long for a wrong one as for a good one, and for a user that does not exist, with one password, as for one that
// does, so far as that is ours.
func (s *Server) authenticates(name, password []byte) (User, bool) {
	user, exists := s.options.Users(string(name))
	given := PasswordHash(sha256.Sum256(password))
	if !exists {
		user = User{Passwords: []PasswordHash{{}}}
	}
	good := 0
	for _, hash := range user.Passwords {
		good |= subtle.ConstantTimeCompare(given[:], hash[:])
	}
	return user, exists && (good == 1 || user.NoPassword)
}

// open tells whether everybody may use the server without saying who they are, and as
// whom.
func (s *Server) open() (User, bool) {
	user, exists := s.options.Users(defaultUser)
	return user, exists && user.NoPassword
}

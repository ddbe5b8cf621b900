package main

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"runtime"
)

// Password is what is kept of a password.
type Password struct {
	Salt       []byte `json:"salt"`
	Hash       []byte `json:"hash"`
	Iterations int    `json:"iterations"` // so that new ones can take more
}

// passwords makes and checks them. Both are slow on purpose, and so only so many are
// under way at once: whoever sends many is waiting, and not the whole service.
type passwords struct {
	iterations int
	places     chan struct{}
}

// recommended is OWASP's number for PBKDF2 with SHA-256, of 2023.
const recommended = 600_000

func newPasswords(iterations int) passwords {
	return passwords{iterations, make(chan struct{}, runtime.GOMAXPROCS(0))}
}

func checkPassword(password string) error {
	if len(password) < 8 || len(password) > 1000 {
		return fieldError("password: 8 to 1,000 bytes")
	}
	return nil
}

// create returns what is to be kept of a new password.
func (p passwords) create(ctx context.Context, password string) (Password, error) {
	salt := make([]byte, 16)
	rand.Read(salt)
	hash, err := p.derive(ctx, password, salt, p.iterations)
	return Password{salt, hash, p.iterations}, err
}

// check tells whether it is the password, in a time that does not depend on how wrong it
// is, nor on whether there is one: kept is nil for a user that does not exist.
func (p passwords) check(ctx context.Context, password string, kept *Password) (bool, error) {
	against := Password{make([]byte, 16), make([]byte, sha256.Size), p.iterations}
	if kept != nil {
		against = *kept
	}
	hash, err := p.derive(ctx, password, against.Salt, against.Iterations)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(hash, against.Hash) == 1 && kept != nil, nil
}

func (p passwords) derive(ctx context.Context, password string, salt []byte, iterations int) ([]byte, error) {
	select {
	case p.places <- struct{}{}:
	case <-ctx.Done():
		return nil, errors.Join(errBusy, ctx.Err())
	}
	defer func() { <-p.places }()
	return pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
}

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lockstep-cache/lockstep/server"
)

// hashPasswordVerb is lockstep hash-password.
type hashPasswordVerb struct {
	User     string `default:"default" placeholder:"NAME" help:"Who has the password. Default: default, who is everybody that gives a password and no name."`
	ReadOnly bool   `help:"The user may not write."`
	Generate bool   `help:"Make a password of 32 random bytes, and say it on standard error, in place of reading one."`
}

// Help is the long help.
func (hashPasswordVerb) Help() string {
	return "Makes a line for the file of lockstep serve --users. The password is the first line of the standard input, never an argument, which everybody on the machine could read: " +
		"lockstep hash-password --user reporter --read-only < password >> users. The line has its SHA-256, as Redis's lists of users have. " +
		"That is quick to compute, also for somebody who has stolen the file and guesses: a password should be long and random, and --generate makes one."
}

// standardInput is what a verb may read.
var standardInput io.Reader = os.Stdin

func (v hashPasswordVerb) Run(_ context.Context, out io.Writer, stderr standardError) error {
	if v.User == "" || !printable([]byte(v.User)) || len(v.User) > 256 || v.User[0] == '#' {
		return usagef("--user %.64q: a name has at most 256 letters, digits and signs of ASCII, and no # in front", v.User)
	}
	var password string
	if v.Generate {
		password = hex.EncodeToString(random(32))
		fmt.Fprintln(stderr, password)
	} else {
		text, err := io.ReadAll(io.LimitReader(standardInput, longestPassword))
		if err != nil {
			return fmt.Errorf("reading the password: %w", err)
		}
		if password = string(firstLine(text)); password == "" {
			return usageError{errors.New("there is no password on the first line of the standard input")}
		}
	}
	hash := server.HashPassword(password)
	line := v.User + " " + hex.EncodeToString(hash[:])
	if v.ReadOnly {
		line += " " + readOnlyWord
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return b
}

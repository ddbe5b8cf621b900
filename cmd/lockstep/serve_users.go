package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/lockstep-cache/lockstep/server"
)

const (
	passwordVariable = "LOCKSTEP_REDIS_PASSWORD"
	longestPassword  = 64 << 10
	longestUsers     = 16 << 20
	defaultUser      = "default"
	readOnlyWord     = "read-only"
	noPasswordWord   = "nopass"
)

// userList is who may use the server, as of now.
type userList struct {
	path string // of the file that says it, or ""
	all  atomic.Pointer[map[string]server.User]
}

// users are those that the flags and the environment name.
func (v *serveVerb) users() (*userList, error) {
	l := &userList{path: v.Users}
	if v.Users != "" {
		text, err := readFile(v.Users, longestUsers)
		if err != nil {
			return nil, usagef("--users: %v", err)
		}
		all, err := parseUsers(l.path, text)
		if err != nil {
			return nil, usagef("--users: %v", err)
		}
		l.all.Store(&all)
		return l, nil
	}
	password, err := v.password()
	if err != nil {
		return nil, err
	}
	user := server.User{NoPassword: true}
	if password != "" {
		user = server.User{Passwords: []server.PasswordHash{server.HashPassword(password)}}
	}
	l.all.Store(&map[string]server.User{defaultUser: user})
	return l, nil
}

// password is that of the user default, "" for none.
func (v *serveVerb) password() (string, error) {
	if v.PasswordFile == "" {
		return os.Getenv(passwordVariable), nil
	}
	text, err := readFile(v.PasswordFile, longestPassword)
	if err != nil {
		return "", usagef("--password-file: %v", err)
	}
	line := firstLine(text)
	if len(line) == 0 {
		return "", usagef("--password-file %s: its first line is empty", v.PasswordFile)
	}
	return string(line), nil
}

func (l *userList) find(name string) (server.User, bool) {
	user, found := (*l.all.Load())[name]
	return user, found
}

// open tells whether somebody needs no password.
func (l *userList) open() bool {
	for _, user := range *l.all.Load() {
		if user.NoPassword {
			return true
		}
	}
	return false
}

// watched is the file, if there is one, to be read again when it changes.
func (l *userList) watched(changed func()) []watched {
	if l.path == "" {
		return nil
	}
	open := l.open()
	return []watched{{what: "users", paths: []string{l.path}, longest: longestUsers, load: func(texts [][]byte) error {
		all, err := parseUsers(l.path, texts[0])
		if err != nil {
			return err
		}
		if !open {
			// The addresses were allowed because everybody needed a password.
			for name, user := range all {
				if user.NoPassword {
					return fmt.Errorf("%s: the user %s has become one without a password, which takes a restart", l.path, name)
				}
			}
		}
		l.all.Store(&all)
		changed()
		return nil
	}}}
}

// parseUsers reads a list of users: a line each, the name, hashes of passwords as Redis
// has them in its lists (SHA-256, in hexadecimal digits) or nopass, and read-only. An error
// names the file, the line and the user.
func parseUsers(path string, text []byte) (map[string]server.User, error) {
	all := map[string]server.User{}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		words := bytes.Fields(line)
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		name := string(words[0])
		fail := func(format string, args ...any) (map[string]server.User, error) {
			return nil, fmt.Errorf("%s:%d: user %s: %s", path, n, name, fmt.Sprintf(format, args...))
		}
		if !printable(words[0]) || len(words[0]) > 256 {
			name = fmt.Sprintf("%.64q", name)
			return fail("a name has at most 256 letters, digits and signs of ASCII")
		}
		if _, again := all[name]; again {
			return fail("it is there twice")
		}
		var user server.User
		for i, word := range words[1:] {
			hash, err := hex.DecodeString(string(word))
			switch {
			case string(word) == readOnlyWord:
				user.ReadOnly = true
			case string(word) == noPasswordWord:
				user.NoPassword = true
			case err == nil && len(hash) == len(server.PasswordHash{}):
				user.Passwords = append(user.Passwords, server.PasswordHash(hash))
			default:
				// It is not quoted: it may be a password.
				return fail("word %d is none of %s, %s and the 64 hexadecimal digits of a password's SHA-256, which lockstep hash-password makes", i+2, readOnlyWord, noPasswordWord)
			}
		}
		switch {
		case user.NoPassword && len(user.Passwords) > 0:
			return fail("it has a password and %s", noPasswordWord)
		case !user.NoPassword && len(user.Passwords) == 0:
			return fail("it has no password; %s says that it needs none", noPasswordWord)
		}
		all[name] = user
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: there is no user in it", path)
	}
	return all, nil
}

func printable(name []byte) bool {
	for _, b := range name {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return true
}

func firstLine(text []byte) []byte {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}

// readFile reads a small file, and refuses a larger one, which must be something else.
func readFile(path string, longest int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, longest+1))
	if err == nil && int64(len(text)) > longest {
		err = fmt.Errorf("%s: it has more than %d bytes", path, longest)
	}
	return text, err
}

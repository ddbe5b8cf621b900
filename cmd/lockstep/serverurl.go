package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/lockstep-cache/lockstep"
)

// serverURL is the URL of a database on a server, as --store takes it. Its password is
// in nothing that is printed: neither String nor an error has it, and the drivers,
// which put what they were given into their errors, are given it apart from the rest.
type serverURL struct {
	scheme, user, host, port, database string
	password                           *string // nil: none in the URL
	options                            map[string]string
}

// passwordFile is the option that every kind of server has.
const passwordFile = "password-file"

// parseServerURL takes a URL apart that begins with scheme:. Its error quotes nothing
// of what may be a part of a password, which in a URL that is not well-formed may be
// anywhere.
func parseServerURL(scheme, text string, options []string) (serverURL, error) {
	fail := func(format string, args ...any) (serverURL, error) {
		return serverURL{}, fmt.Errorf("%w: %s", lockstep.ErrInvalid, fmt.Sprintf(format, args...))
	}
	rest, ok := strings.CutPrefix(text, scheme+"://")
	if !ok {
		return fail("it must begin with %s://", scheme)
	}
	// What has a special character in a password ends up behind the host.
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if strings.Contains(rest[end:], "@") || strings.Contains(rest, "#") {
		return fail("a special character in the user, the password, the database or an option must be percent-encoded: @ is %%40, / is %%2F, # is %%23, ? is %%3F")
	}
	u, err := url.Parse("server://" + rest)
	if err != nil {
		return fail("%s", wrongPart(rest[:end], rest[end:]))
	}
	s := serverURL{scheme: scheme, user: u.User.Username(), host: u.Hostname(), port: u.Port(), database: strings.TrimPrefix(u.Path, "/")}
	if password, given := u.User.Password(); given {
		s.password = &password
	}
	given, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fail("the options: a %% or a ; must be percent-encoded")
	}
	s.options = make(map[string]string, len(given))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		switch values := given[name]; {
		case name == "password":
			return fail("the password is no option; the option %s names a file that has it", passwordFile)
		case !slices.Contains(options, name):
			return fail("unknown option %s; there are %s", name, strings.Join(options, ", "))
		case len(values) > 1:
			return fail("the option %s is given twice", name)
		case values[0] == "":
			return fail("the option %s has no value", name)
		default:
			s.options[name] = values[0]
		}
	}
	switch {
	case strings.Contains(s.database, "/"):
		return fail("the database: %q is not a name", s.database)
	case strings.ContainsRune(s.user+s.host+s.database, 0):
		return fail("there is a NUL in it")
	case s.password != nil && s.options[passwordFile] != "":
		return fail("there is a password in the URL, and the option %s", passwordFile)
	}
	return s, nil
}

// wrongPart says which part of a URL cannot be read.
func wrongPart(authority, rest string) string {
	userinfo, host := "", authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		userinfo, host = authority[:at], authority[at+1:]
	}
	if _, err := url.Parse("server://" + userinfo + "@host"); err != nil {
		return "the user or the password has a character that must be percent-encoded"
	}
	if _, err := url.Parse("server://host" + rest); err != nil {
		return "the database or an option has a % that is not followed by two hexadecimal digits"
	}
	if _, port, found := strings.Cut(host, ":"); found && userinfo == "" && !strings.HasPrefix(host, "[") && port != "" {
		return "the host, or its port; with a user, an @ stands before the host"
	}
	return "the host, or its port"
}

// String is the URL without its password and its options.
func (s serverURL) String() string {
	u := url.URL{Scheme: s.scheme, Host: s.address(""), Path: "/" + s.database}
	if s.user != "" {
		u.User = url.User(s.user)
	}
	return u.String()
}

// through is the URL at another address, or at its own for "", with its password and its
// options.
func (s serverURL) through(address string) string {
	u := url.URL{Scheme: s.scheme, Host: cmp.Or(address, s.address("")), Path: "/" + s.database}
	switch {
	case s.password != nil:
		u.User = url.UserPassword(s.user, *s.password)
	case s.user != "":
		u.User = url.User(s.user)
	}
	query := url.Values{}
	for name, value := range s.options {
		query.Set(name, value)
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// again is the URL without its password, and with its options.
func (s serverURL) again() string {
	s.password = nil
	return s.through("")
}

// address is host:port, with that port if there is none in the URL.
func (s serverURL) address(port string) string {
	if s.port != "" {
		port = s.port
	}
	switch {
	case port != "":
		return net.JoinHostPort(s.host, port)
	case strings.Contains(s.host, ":"):
		return "[" + s.host + "]"
	}
	return s.host
}

// secret is the password that the URL has, or a file that it names; nil for none.
func (s serverURL) secret() (*string, error) {
	path := s.options[passwordFile]
	if path == "" {
		return s.password, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: the option %s: %w", lockstep.ErrInvalid, passwordFile, err)
	}
	data = bytes.TrimRight(data, "\r\n")
	if len(data) == 0 || bytes.ContainsAny(data, "\r\n\x00") {
		return nil, fmt.Errorf("%w: the option %s: %s must have one line, the password", lockstep.ErrInvalid, passwordFile, path)
	}
	password := string(data)
	return &password, nil
}

// truth reads an option that is true or false; it is false if it is not given.
func (s serverURL) truth(name string) (bool, error) {
	switch value := s.options[name]; value {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, fmt.Errorf("%w: the option %s: %q is neither true nor false", lockstep.ErrInvalid, name, value)
	}
}

// withoutSecret is an argument as it may be printed by who has not understood it: a
// URL of a server, or what somebody took for one, may have a password.
func withoutSecret(arg string) string {
	if !strings.Contains(arg, "://") && !strings.ContainsAny(arg, "@") && !strings.Contains(strings.ToLower(arg), "password") {
		return arg
	}
	scheme, _, found := strings.Cut(arg, "://")
	if !found || strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyz0123456789+-.") != "" {
		return "…"
	}
	return scheme + "://…"
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// settings gives lockstep serve the values of flags that its command line does not have:
// from the environment, and where that says nothing, from a file. Both are a flag's by its
// name: --max-clients is LOCKSTEP_MAX_CLIENTS, and in the file a line
//
//	max-clients = 500
//
// The file has no quotes, no sections and no values of several lines, so that it cannot say
// anything that a command line cannot. Kong's own way to read the environment quotes a
// value that is wrong, which may be a URL with a password, and does not say where it is.
type settings struct {
	verb  string
	path  string
	lines map[string][]setting // by the flag's name
}

// setting is a line of a file.
type setting struct {
	line  int
	value string
}

const (
	variables = "LOCKSTEP_"
	// longestSettings bounds what is read of a file that is something else.
	longestSettings = 1 << 20
)

// variable is the name of a flag's variable.
func variable(flag string) string {
	return variables + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readSettings reads a file; an empty path is that of none.
func readSettings(verb, path string) (*settings, error) {
	s := &settings{verb: verb, path: path, lines: map[string][]setting{}}
	if path == "" {
		return s, nil
	}
	text, err := readFile(path, longestSettings)
	if err != nil {
		return nil, usagef("--config: %v", err)
	}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name, value, found := bytes.Cut(line, []byte("="))
		field := string(bytes.TrimSpace(name))
		if !found || field == "" {
			return nil, usagef("%s:%d: it must be NAME = VALUE, as in max-clients = 500", path, n)
		}
		s.lines[field] = append(s.lines[field], setting{n, string(bytes.TrimSpace(value))})
	}
	return s, nil
}

// flags are the names of the verb's.
func (s *settings) flags(app *kong.Application) map[string]bool {
	known := map[string]bool{}
	for _, node := range app.Leaves(false) {
		if node.FullPath() == app.Name+" "+s.verb {
			for _, flag := range node.Flags {
				known[flag.Name] = true
			}
		}
	}
	return known
}

// Validate refuses fields that are no flags: one that is misspelt would be without effect.
func (s *settings) Validate(app *kong.Application) error {
	known := s.flags(app)
	delete(known, "config")
	var wrong []string
	for name := range s.lines {
		if !known[name] {
			wrong = append(wrong, name)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.SortFunc(wrong, func(a, b string) int { return s.lines[a][0].line - s.lines[b][0].line })
	switch name := wrong[0]; name {
	case "config":
		return usagef("%s:%d: config: a file cannot name another one", s.path, s.lines[name][0].line)
	default:
		return usagef("%s:%d: %s: there is no such setting; they are called as the flags are, without --", s.path, s.lines[name][0].line, strconv.Quote(withoutSecret(name)))
	}
}

// linked are the variables that Kubernetes gives a program for each service: one that is called
// lockstep makes LOCKSTEP_SERVICE_HOST, LOCKSTEP_PORT, LOCKSTEP_PORT_6379_TCP_ADDR and so on.
var linked = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$`)

// strays are variables of the environment that look like settings and are none. A file is the
// server's own, and one in it is refused; the environment is everybody's, and what others put
// there must not keep a server from starting: they are logged.
func (s *settings) strays(app *kong.Application, environment []string) (names []string) {
	known := map[string]bool{passwordVariable: true}
	for flag := range s.flags(app) {
		known[variable(flag)] = true
	}
	for _, entry := range environment {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, variables) && !known[name] && !linked.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Resolve is kong's question for a flag that is not on the command line.
func (s *settings) Resolve(_ *kong.Context, path *kong.Path, flag *kong.Flag) (any, error) {
	if path.Command == nil || path.Command.Name != s.verb || flag.Name == "config" {
		return nil, nil
	}
	several := flag.IsCumulative()
	if value, set := os.LookupEnv(variable(flag.Name)); set {
		return s.parse(variable(flag.Name), flag, typed(flag, []string{value}), value)
	}
	given := s.lines[flag.Name]
	switch {
	case len(given) == 0:
		return nil, nil
	case len(given) > 1 && !several:
		return nil, usagef("%s:%d: %s: it is on line %d already", s.path, given[1].line, flag.Name, given[0].line)
	}
	// Each by itself, so that an error names its line.
	var values []string
	for _, g := range given {
		if _, err := s.parse(fmt.Sprintf("%s:%d: %s", s.path, g.line, flag.Name), flag, typed(flag, []string{g.value}), g.value); err != nil {
			return nil, err
		}
		values = append(values, g.value)
	}
	return typed(flag, values), nil
}

// typed is values as kong takes them for a flag: text, which may have several in it, or a
// list where no character parts them.
func typed(flag *kong.Flag, values []string) any {
	if !flag.IsCumulative() || flag.Tag.Sep != -1 {
		return strings.Join(values, string(max(flag.Tag.Sep, ',')))
	}
	var all []any
	for _, v := range values {
		all = append(all, v)
	}
	return all
}

// parse tries a value, so that an error can say where it stands.
func (s *settings) parse(where string, flag *kong.Flag, value any, text string) (any, error) {
	if text == "" {
		return nil, usagef("%s: it has no value", where)
	}
	err := flag.Parse(kong.Scan().PushTyped(value, kong.FlagValueToken), reflect.New(flag.Target.Type()).Elem())
	if err == nil {
		return value, nil
	}
	if misread, ok := errors.AsType[usageError](err); ok {
		err = misread
	}
	message := strings.TrimPrefix(err.Error(), "--"+flag.Name+": ")
	if shown := withoutSecret(text); shown != text {
		message = strings.ReplaceAll(message, text, shown)
	}
	return nil, usagef("%s: %s", where, message)
}

// byteSize is a number of bytes: 1048576, 1024KiB, 1MiB.
type byteSize int64

var byteUnits = []struct {
	name string
	size int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}

func (b *byteSize) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for _, u := range byteUnits {
		if n, found := strings.CutSuffix(number, u.name); found {
			number, unit = n, u.size
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > (1<<62)/unit {
		return fmt.Errorf("%q is no number of bytes, such as 1048576, 1024KiB, 1MiB or 1GiB", text)
	}
	*b = byteSize(n * unit)
	return nil
}

// positive is a number that 0 is not among, for it would mean the default.
type positive int

func (p *positive) UnmarshalText(text []byte) error {
	n, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil || n < 1 {
		return fmt.Errorf("%q is no number from 1 to 2147483647", text)
	}
	*p = positive(n)
	return nil
}

// BeforeResolve makes the environment and the file known to kong.
func (v *serveVerb) BeforeResolve(app *kong.Kong, ctx *kong.Context) error {
	path := os.Getenv(variable("config"))
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Name == "config" {
			path = ctx.FlagValue(p.Flag).(string)
		}
	}
	s, err := readSettings("serve", path)
	if err != nil {
		return err
	}
	if err := s.Validate(app.Model); err != nil {
		return err
	}
	v.strays = s.strays(app.Model, os.Environ())
	ctx.AddResolver(s)
	return nil
}

// AfterApply refuses a password where everybody on the machine can read it.
func (v *serveVerb) AfterApply(ctx *kong.Context) error {
	for _, p := range ctx.Path {
		if p.Flag == nil || p.Flag.Name != "store" || p.Resolved {
			continue
		}
		url, err := parseStore(string(v.Store))
		if err == nil && url.at.through("") != url.at.again() {
			return usagef("--store %s: everybody on this machine can read a command line; %s, or the whole URL in %s or in a file (--config)", url.text, url.kind.secret, variable("store"))
		}
	}
	return nil
}

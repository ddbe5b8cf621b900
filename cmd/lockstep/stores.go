package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/demo"
	"github.com/lockstep-cache/lockstep/server"
)

// kind is a kind of store, with all that the commands need to know of it. Its
// file store_KIND.go is the only one that imports the store, and its place in
// kinds is all that the commands see.
type kind struct {
	// scheme begins its URLs; alias is another name for it, or "". form is how they are
	// made, and example one of them.
	scheme, alias, form, example string
	// secret says where a password comes from, "" for a kind that has none. The URLs of
	// the others are printed as their places print them, and not at all before they are
	// understood.
	secret string
	// tableOptions and options may follow a ? in a URL. Those choose a table and
	// how it is written, these say how the database is opened.
	tableOptions, options []string
	// parse reads a URL and opens nothing.
	parse func(text string) (place, error)
	// file is the URL of a database file, nil for a kind that has no files.
	file func(path string) string
}

// place is a database that may not be open, or not there.
type place interface {
	// visit opens it for a command whose tables all begin with the prefix.
	visit(ctx context.Context, prefix string) (guest, error)
	// address is its server's, host:port; "" for a file, and for a socket.
	address() string
	// through is the URL, password and all, of the same database at another address of
	// its server; or at its own, for "".
	through(address string) string
	// again is the URL, with its options and without its password.
	again() string
}

// guest is a command in a database that may be somebody's.
type guest interface {
	// database is what the demo plays on. Nobody has to know the name of a
	// temporary one.
	database(temporary bool) demo.Database
	// integers is a store over a table of integers. It makes the table.
	integers(ctx context.Context, table string) (lockstep.Store[int, int64], error)
	// positions is one of positions of journals, in the same database.
	positions(ctx context.Context, table string) (lockstep.Store[string, int64], error)
	// keys is a store over a table of keys, for the server. It makes the table.
	keys(ctx context.Context, table string) (lockstep.Store[string, server.Value], error)
	// claim takes such a table for this program alone; errClaimed says that another one has
	// it.
	claim(ctx context.Context, table string) (claim, error)
	// identity is the name of a table that exists, however it was spelled: what claim takes.
	identity(ctx context.Context, table string) (string, error)
	// rows is a store over a table that exists, for the server.
	rows(ctx context.Context, table tableFlag) (server.TableStore, error)
	// close closes the database, and leaves in it what is there.
	close() error
	// leave closes the database and takes away what the command has brought, also
	// when ctx has ended.
	leave(ctx context.Context) error
}

// afresh calls f again, on other connections, where it has failed. A connection that was
// cut while nobody used it shows that only when it is used.
func afresh(ctx context.Context, f func(context.Context) error) (err error) {
	for range 3 {
		if err = f(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

// kinds are those that there are.
var kinds = []kind{sqliteKind, postgresKind, mysqlKind}

// onFile is the URL of a database file, of the first kind that has files.
func onFile(path string) string {
	for _, k := range kinds {
		if k.file != nil {
			return k.file(path)
		}
	}
	panic("no kind of store has files")
}

// storesHelp is what help says that a --store URL may be, where the command has
// tables of its own.
func storesHelp() string {
	var forms []string
	for _, k := range kinds {
		form := fmt.Sprintf("%s, with options after a ?, as in %s?%s=…; there are %s",
			k.form, k.example, k.options[0], strings.Join(k.options, ", "))
		if k.secret != "" {
			form += " (" + k.secret + ")"
		}
		forms = append(forms, form)
	}
	return strings.Join(forms, "; or ")
}

// storeFlag is the argument of --store. It reads the argument itself, to say what
// is wanted. An empty one, as a shell makes of a variable that is not set, must
// not pass for none.
type storeFlag string

func (f *storeFlag) Decode(c *kong.DecodeContext) error {
	token := c.Scan.Pop()
	text, _ := token.Value.(string)
	if !token.IsValue() || text == "" {
		return usagef("--store needs a URL, such as %s", kinds[0].example)
	}
	*f = storeFlag(text)
	return nil
}

// storeURL is what --store says.
type storeURL struct {
	text string // as it may be printed
	kind kind
	at   place
}

// parseStore reads a --store URL and opens nothing. Its error is a usageError.
func parseStore(text string) (storeURL, error) {
	u := storeURL{text: withoutSecret(text)}
	scheme, _, ok := strings.Cut(text, ":")
	if !ok {
		return u, usagef("--store %s is not a URL; a database file is %s", u.text, onFile(u.text))
	}
	var forms []string
	for _, u.kind = range kinds {
		if u.kind.scheme == scheme || u.kind.alias == scheme {
			var err error
			u.at, err = u.kind.parse(text)
			if u.kind.secret == "" {
				u.text = text
			} else if shown, ok := u.at.(fmt.Stringer); ok {
				u.text = shown.String()
			}
			return u, u.error(err)
		}
		forms = append(forms, u.kind.form)
	}
	return u, usagef("--store %s: there is no kind of store called %q; there is %s", u.text, withoutSecret(scheme), strings.Join(forms, ", "))
}

// visit opens the database for the demo. An error about what the URL names is a
// usageError.
func (u storeURL) visit(ctx context.Context, prefix string) (guest, error) {
	g, err := u.at.visit(ctx, prefix)
	return g, u.error(err)
}

// optionNames has errors name the option of a URL where a store names a program's.
var optionNames = strings.NewReplacer("DatabaseOptions.AllowUnsafeDurability", unsafeOption, "AllowUnsafeDurability", unsafeOption)

const unsafeOption = "the option allow-unsafe-durability=true"

// error says which store an error is about. What is invalid is the command line's
// fault, and anything else the moment's.
func (u storeURL) error(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lockstep.ErrInvalid):
		what := strings.TrimPrefix(err.Error(), lockstep.ErrInvalid.Error()+": ")
		return usagef("--store %s: %s", u.text, optionNames.Replace(strings.TrimPrefix(what, u.kind.scheme+": ")))
	}
	return fmt.Errorf("--store %s: %w", u.text, err)
}

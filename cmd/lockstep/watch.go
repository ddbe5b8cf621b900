package main

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// watchVerb is about the triggers by which a cache is told of changes that others
// make. What they are is shown before anything is done.
type watchVerb struct {
	Show    watchShow    `cmd:"" help:"Print the SQL that install would execute, and change nothing."`
	Install watchInstall `cmd:"" help:"Print the SQL and, with --yes, execute it: triggers that write down what is changed in a table."`
	Remove  watchRemove  `cmd:"" help:"Print the SQL and, with --yes, execute it: takes the triggers away."`
}

// watchTarget is the table that a watch is of.
type watchTarget struct {
	Store string `required:"" placeholder:"URL" help:"The database: ${watched}. A password is better given in ${watchedsecrets} or a file (?password-file=PATH). The options are those of demo."`
	Table string `arg:"" help:"The table, as in SQL: users, app.users."`
}

// watchOptions are those of a watch that is to be installed.
type watchOptions struct {
	VersionColumn string `help:"The column, a bigint, in which the program keeps the version of a row."`
	Role          string `help:"The role or user that caches connect as, if it is not the one that installs: it is granted what they need."`
}

// watchKind is a kind of database whose tables can be watched. Its file is
// watch_KIND.go.
type watchKind struct {
	form    string // of its URLs
	secret  string // the variable that may have the password
	schemes []string
	open    func(ctx context.Context, url string) (watchedDatabase, error)
}

// watchedDatabase is one that has been opened.
type watchedDatabase interface {
	installSQL(ctx context.Context, table string, o watchOptions) ([]string, error)
	install(ctx context.Context, table string, o watchOptions) error
	removeSQL(ctx context.Context, table string) ([]string, error)
	remove(ctx context.Context, table string) error
	// script is what a person can give to the database's own program.
	script(statements []string) string
	close() error
}

var watchKinds = []watchKind{postgresWatch, mysqlWatch}

func watchHelp() string {
	var forms []string
	for _, k := range watchKinds {
		forms = append(forms, k.form)
	}
	return strings.Join(forms, " or ")
}

// watchSecrets are the variables that may have a password.
func watchSecrets() string {
	var names []string
	for _, k := range watchKinds {
		names = append(names, k.secret)
	}
	return strings.Join(names, ", ")
}

// open opens the database. The URL, which may have a password in it, is in no error.
func (t watchTarget) open(ctx context.Context) (watchedDatabase, error) {
	scheme, _, ok := strings.Cut(t.Store, ":")
	if !ok {
		return nil, usagef("--store is not a URL; there is %s", watchHelp())
	}
	for _, k := range watchKinds {
		for _, s := range k.schemes {
			if s == scheme {
				return k.open(ctx, t.Store)
			}
		}
	}
	return nil, usagef("a table of the kind of store %q cannot be watched; there is %s", scheme, watchHelp())
}

// do opens the database, prints the statements that plan has, and executes them if
// it is asked to.
func (t watchTarget) do(ctx context.Context, out io.Writer, yes bool,
	plan func(db watchedDatabase) ([]string, error), execute func(db watchedDatabase) error, done string) (err error) {
	db, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := db.close(); err == nil {
			err = cerr
		}
	}()
	statements, err := plan(db)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(out, db.script(statements)); err != nil {
		return err
	}
	if execute == nil {
		return nil
	}
	if !yes {
		return usagef("nothing was done: --yes executes these statements")
	}
	if err := execute(db); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "-- %s\n", done)
	return err
}

type watchShow struct {
	watchTarget  `embed:""`
	watchOptions `embed:""`
}

// Run implements the verb.
func (v *watchShow) Run(ctx context.Context, out io.Writer) error {
	return v.do(ctx, out, false, func(db watchedDatabase) ([]string, error) { return db.installSQL(ctx, v.Table, v.watchOptions) }, nil, "")
}

type watchInstall struct {
	watchTarget  `embed:""`
	watchOptions `embed:""`
	Yes          bool `help:"Execute the statements."`
}

// Run implements the verb.
func (v *watchInstall) Run(ctx context.Context, out io.Writer) error {
	return v.do(ctx, out, v.Yes, func(db watchedDatabase) ([]string, error) { return db.installSQL(ctx, v.Table, v.watchOptions) },
		func(db watchedDatabase) error { return db.install(ctx, v.Table, v.watchOptions) },
		"done: programs that open the table from now on watch it")
}

type watchRemove struct {
	watchTarget `embed:""`
	Yes         bool `help:"Execute the statements."`
}

// Run implements the verb.
func (v *watchRemove) Run(ctx context.Context, out io.Writer) error {
	return v.do(ctx, out, v.Yes, func(db watchedDatabase) ([]string, error) { return db.removeSQL(ctx, v.Table) },
		func(db watchedDatabase) error { return db.remove(ctx, v.Table) },
		"done: programs that watch the table remember nothing of it until they open it again")
}

// Command lockstep is the command line of Lockstep: one verb, one file.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// verbs are what lockstep can be asked to do. Each is a struct of its flags
// with a method Run(context.Context, io.Writer, standardError) error; any argument may
// be left out. The context ends at an interrupt, and the writer is the standard
// output.
type verbs struct {
	Compare compareVerb        `cmd:"" help:"Measure the patterns of caching beside each other, on a real database."`
	Demo    demoVerb           `cmd:"" help:"Show the patterns at work on a real database."`
	Hash    hashPasswordVerb   `cmd:"" name:"hash-password" help:"Make a line for the server's file of users."`
	Serve   serveVerb          `cmd:"" help:"Serve the Redis protocol over a SQL database."`
	Verify  verifyVerb         `cmd:"" help:"Break programs that use Lockstep, and check that the promise was kept."`
	Version versionVerb        `cmd:"" help:"Say which version this is."`
	Watch   watchVerb          `cmd:"" help:"Have caches told of what others change in a table."`
	Program programVerb        `cmd:"" name:"verify-program" hidden:""`
	Subject compareProgramVerb `cmd:"" name:"compare-program" hidden:""`
}

// Exit statuses: a verb that failed, or found what it looked for to be wrong; and a
// command line that cannot be understood, or, of verify, that could not tell.
const (
	exitFailed = 1
	exitUsage  = 2
)

// standardError is where a verb may say how far it is.
type standardError struct{ io.Writer }

// usageError is a command line that was understood and cannot be followed.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	// A verb may have something to put away when nobody reads its output any more:
	// it learns of that by an error.
	signal.Ignore(syscall.SIGPIPE)
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	serves := len(os.Args) > 1 && os.Args[1] == "serve"
	if !serves { // which reads files again, as servers do
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	if serves {
		// A second signal ends it at once, for who does not want to wait until it has
		// drained. The other verbs have something to put away.
		context.AfterFunc(ctx, stop)
	}
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run is main with everything it touches as an argument. It returns the exit
// status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (status int) {
	// Kong prints help in the middle of parsing, and expects Exit not to return.
	type exit int
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exit:
			status = int(r)
		default:
			panic(r)
		}
	}()

	command, err := parser(ctx, &verbs{}, stdout, stderr, func(code int) { panic(exit(code)) }).Parse(spoken(args))
	if err != nil {
		understood := verbOf(err)
		var misread usageError // a flag's own words, which name it
		if errors.As(err, &misread) {
			err = misread
		}
		// Kong quotes what it has not understood, which may be a URL with a password.
		fmt.Fprintf(stderr, "lockstep: %s\n%s --help lists what there is.\n", hideSecrets(err.Error(), args), understood)
		return exitUsage
	}
	err = command.Run()
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "lockstep: %s\n", strings.TrimPrefix(err.Error(), "lockstep: "))
	if errors.As(err, new(usageError)) || errors.As(err, new(undecided)) {
		return exitUsage
	}
	return exitFailed
}

// parser reads command lines into v.
func parser(ctx context.Context, v *verbs, stdout, stderr io.Writer, exit func(int)) *kong.Kong {
	parser, err := kong.New(v,
		kong.Name("lockstep"),
		kong.Description("Keeps a cache and a database in step."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Groups{
			"users":  "Users and passwords:",
			"tls":    "TLS:",
			"limits": "Limits of clients:",
			"memory": "Memory and the database:",
		},
		kong.Vars{"stores": storesHelp(), "watched": watchHelp(), "watchedsecrets": watchSecrets()},
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.BindTo(stdout, (*io.Writer)(nil)),
		kong.Bind(standardError{stderr}),
	)
	if err != nil {
		panic(err) // the tags of verbs are wrong, which no user can mend
	}
	return parser
}

// spoken puts into our words what people say to any command before they have read
// its help.
func spoken(args []string) []string {
	switch {
	case len(args) == 0:
	case args[0] == "help":
		return append(slices.Clone(args[1:]), "--help")
	case args[0] == "--version":
		return append([]string{"version"}, args[1:]...)
	}
	return args
}

// hideSecrets takes out of a message those arguments that may have a password in them.
func hideSecrets(message string, args []string) string {
	for _, arg := range args {
		if _, value, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(arg, "-") {
			arg = value
		}
		message = strings.ReplaceAll(message, arg, withoutSecret(arg))
	}
	return message
}

// verbOf is how much of a command line was understood: the verb, whose help
// lists its own flags, or only that lockstep was called.
func verbOf(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if verb := parse.Context.Selected(); verb != nil {
			return verb.FullPath()
		}
	}
	return "lockstep"
}

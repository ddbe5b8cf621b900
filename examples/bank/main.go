// Bank is an example of Lockstep: many clients move money between accounts. A transfer
// changes two caches and a table of the program's own in one transaction. See README.md.
//
//	go run ./examples/bank
//	go run ./examples/bank -store postgres://localhost/test
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bank:", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	clients := &Clients{}
	flags := flag.NewFlagSet("bank", flag.ContinueOnError)
	store := flags.String("store", "", "a SQLite file, which stays, or a postgres:// `URL` (tables bank_…); a temporary file if empty")
	lasting := flags.Duration("duration", 10*time.Second, "how long clients come")
	flags.IntVar(&clients.Number, "clients", 16, "how many come at once")
	flags.IntVar(&clients.Accounts, "accounts", 100, "how many accounts there are, at least 2")
	flags.DurationVar(&clients.Patience, "patience", 10*time.Millisecond, "how long every fourth client waits for an answer before asking again")
	flags.Uint64Var(&clients.Seed, "seed", 0, "what the clients do; 0 draws one")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("%q is no flag; -help lists them", flags.Arg(0))
	case clients.Accounts < 2:
		return fmt.Errorf("-accounts %d: a transfer needs two", clients.Accounts)
	case clients.Number < 1 || *lasting <= 0 || clients.Patience <= 0:
		return errors.New("-clients, -duration and -patience have to be above zero")
	}
	if clients.Seed == 0 {
		clients.Seed = rand.Uint64()
	}
	if *store == "" {
		dir, err := os.MkdirTemp("", "bank-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		*store = filepath.Join(dir, "bank.db")
	}

	books, err := OpenBooks(ctx, *store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, books.Close()) }()
	bank, err := NewBank(books)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bank.Close(context.WithoutCancel(ctx))) }()
	if err := found(ctx, bank, clients.Accounts, 1000_00); err != nil {
		return err
	}

	fmt.Fprintf(out, "seed %d\n", clients.Seed)
	report := &Report{Out: out, Terminal: isTerminal(out), Bank: bank, Books: books,
		Clients: clients, Began: time.Now(), For: *lasting}
	if report.Terminal {
		slog.SetDefault(slog.New(slog.DiscardHandler)) // a page that is written over has no place for a log
	}
	open, closing := context.WithTimeout(ctx, *lasting)
	defer closing()
	var (
		following sync.WaitGroup
		faults    []string
		reporting error
	)
	following.Go(func() { faults, reporting = report.Follow(open) })
	err = clients.Run(open, bank)
	closing()
	following.Wait()
	if err := errors.Join(err, reporting); err != nil {
		return err
	}
	return audit(context.WithoutCancel(ctx), report, faults)
}

var owners = []string{"Ada", "Barbara", "Charles", "Donald", "Edsger", "Frances", "Grace", "Hedy"}

// found opens the accounts, each with the same deposit.
func found(ctx context.Context, bank *Bank, accounts int, deposit Cents) error {
	for i := range accounts {
		owner := owners[i%len(owners)]
		if i >= len(owners) {
			owner = fmt.Sprint(owner, " ", i/len(owners)+1)
		}
		if err := bank.Open(ctx, int64(i+1), owner, deposit); err != nil {
			return fmt.Errorf("opening account %d: %w", i+1, err)
		}
	}
	return nil
}

// audit is the end of the day. The books have to be right in themselves. That memory is
// what they say is only looked at: where another program writes to the tables, or a second
// process of this one, some copies are behind.
func audit(ctx context.Context, report *Report, faults []string) error {
	s, err := report.Books.Statement(ctx)
	if err != nil {
		return err
	}
	faults = append(faults, s.Faults()...)
	memory, err := report.Bank.accounts.Audit(ctx)
	if err != nil {
		return err
	}
	if err := report.Close(s, faults, memory.Entries, len(memory.Differences)); err != nil {
		return err
	}
	if len(faults) > 0 {
		return errors.New("the books are wrong")
	}
	return nil
}

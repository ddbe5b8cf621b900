package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

var seedFlag = flag.Uint64("bank.seed", 0, "the seed of the days in the bank; 0 draws one")

// aSeed is printed when the test fails.
func aSeed(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("again: go test -race -run '%s' ./examples/bank -bank.seed %d", t.Name(), seed)
	return seed
}

func TestTheBooksAreInOrderAfterADayOfFaults(t *testing.T) {
	everyDatabase(t, func(t *testing.T, books *Books) {
		seed := aSeed(t)
		play := books.inject(seed)
		bank := openBank(t, books)
		for _, f := range day(t, books, bank, bank, seed, play) {
			t.Error(f)
		}
		stats := bank.accounts.Stats()
		if stats.Unknown == 0 {
			t.Error("no outcome was unknown: the day has tested nothing")
		}
	})
}

// The reply of the server's commit is cut off on its way, by the network.
func TestATransferWhoseReplyIsLostIsMadeOnce(t *testing.T) {
	proxy, url := dbtest.Via(t, dbtest.Postgres(t))
	books := openBooks(t, url)
	bank := openBank(t, books)
	ctx := t.Context()
	if err := found(ctx, bank, 2, deposit); err != nil {
		t.Fatal(err)
	}
	lost := proxy.CutReply("COMMIT\x00")
	var tries []error
	err := pay(ctx, bank, "rent", Transfer{From: 1, To: 2, Amount: 60_00}, 10*time.Second, func(err error) { tries = append(tries, err) })
	<-lost
	if err != nil || len(tries) != 2 || !errors.Is(tries[0], lockstep.ErrUnknownOutcome) {
		t.Fatalf("pay: %v, after %v; want nil after an unknown outcome and another try", err, tries)
	}
	if balance, err := bank.Balance(ctx, 1); balance != 40_00 || err != nil {
		t.Fatalf("the balance is %v, %v; want 40.00", balance, err)
	}
	if s, err := books.Statement(ctx); err != nil || s.Faults() != nil {
		t.Fatal(s.Faults(), err)
	}
}

// All connections are cut, again and again, under the clients and the report as the program
// has them.
func TestClientsOutliveLostConnections(t *testing.T) {
	proxy, url := dbtest.Via(t, dbtest.Postgres(t))
	books := openBooks(t, url)
	bank := openBank(t, books)
	if err := found(t.Context(), bank, 10, deposit); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	clients := &Clients{Number: 4, Accounts: 10, Patience: time.Millisecond, Seed: aSeed(t)}
	ended := make(chan error)
	go func() { ended <- clients.Run(ctx, bank) }()
	for cuts := int64(1); cuts <= 2; cuts++ {
		for clients.tally.Made.Load() < 10*cuts && ctx.Err() == nil {
			select {
			case err := <-ended:
				t.Fatalf("the clients have left: %v", err)
			case <-time.After(time.Millisecond): // looking how far they are
			}
		}
		proxy.CutAll()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	s, err := books.Statement(t.Context())
	for range 100 { // connections of the pool that were cut, and do not know it yet
		if err == nil {
			break
		}
		s, err = books.Statement(t.Context())
	}
	if err != nil || s.Faults() != nil {
		t.Fatal(s.Faults(), err)
	}
}

func TestWhatATransferSays(t *testing.T) {
	everyDatabase(t, func(t *testing.T, books *Books) {
		bank := openBank(t, books)
		ctx := t.Context()
		if err := found(ctx, bank, 2, deposit); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			key  string
			t    Transfer
			want error
			says string
		}{
			{key: "a", t: Transfer{1, 2, 70_00}},
			{key: "a", t: Transfer{1, 2, 70_00}}, // again, and nothing happens
			{key: "a", t: Transfer{1, 2, 1}, want: ErrKeyReused, says: "70.00 from 1 to 2"},
			{key: "b", t: Transfer{1, 2, 70_00}, want: ErrInsufficientFunds},
			{key: "c", t: Transfer{1, 3, 1}, want: lockstep.ErrNotFound, says: "account 3"},
			{key: "", t: Transfer{1, 2, 1}, says: "needs a key"},
			{key: "d", t: Transfer{1, 2, 0}, says: "0.00"},
			{key: "e", t: Transfer{1, 2, -5}, says: "-0.05"},
			{key: "f", t: Transfer{2, 2, 5}, says: "itself"},
			{key: "g", t: Transfer{2, 1, 170_00}},
		} {
			err := bank.Transfer(ctx, c.key, c.t)
			wanted := c.want != nil || c.says != ""
			if wanted != (err != nil) || wanted && (c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%s %+v: %v; want %v, %q", c.key, c.t, err, c.want, c.says)
			}
		}
		balance, err := bank.Balance(ctx, 1)
		if balance != 200_00 || err != nil {
			t.Errorf("account 1 has %v, %v; want 200.00", balance, err)
		}
		s, err := books.Statement(ctx)
		if err != nil || s.Faults() != nil || s.Entries != 6 {
			t.Error(s, s.Faults(), err)
		}
	})
}

func TestTheTrailIsNeverChanged(t *testing.T) {
	everyDatabase(t, func(t *testing.T, books *Books) {
		bank := openBank(t, books)
		if err := found(t.Context(), bank, 2, deposit); err != nil {
			t.Fatal(err)
		}
		for _, statement := range []string{"UPDATE bank_trail SET amount = 0", "DELETE FROM bank_trail"} {
			if _, err := books.sql.ExecContext(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "never changed") {
				t.Errorf("%s: %v; want a refusal", statement, err)
			}
		}
	})
}

// The program as it is run, twice on the same books.
func TestProgram(t *testing.T) {
	for name, store := range map[string]string{"SQLite": filepath.Join(t.TempDir(), "bank.db"), "PostgreSQL": dbtest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				var out bytes.Buffer
				if err := run(t.Context(), []string{"-store", store, "-duration", "100ms", "-accounts", "5"}, &out); err != nil {
					t.Fatal(err)
				}
				for _, want := range []string{"seed ", "\nIn the books: 5,000.00 in 5 accounts", "The sum is what was paid in"} {
					if !strings.Contains(out.String(), want) {
						t.Errorf("%q is not in what it says:\n%s", want, out.String())
					}
				}
			}
		})
	}
	for args, want := range map[string]string{
		"-accounts 1":       "-accounts 1",
		"-clients 0":        "-clients",
		"-duration -1s":     "-duration",
		"bank.db":           `"bank.db" is no flag`,
		"-store /no/where/": "/no/where",
		"-store mysql://x":  "mysql://",
	} {
		if err := run(context.Background(), strings.Fields(args), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", args, err, want)
		}
	}
}

// No line of the page is longer than a terminal of 80 columns, whatever the figures are.
func TestThePageFits(t *testing.T) {
	books := openBooks(t, filepath.Join(t.TempDir(), "bank.db"))
	bank := openBank(t, books)
	if err := found(t.Context(), bank, 8, deposit); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r := &Report{Out: &out, Bank: bank, Books: books, Clients: &Clients{Number: 1000, Accounts: 1000}, Began: time.Now().Add(-time.Hour), For: 100 * time.Hour}
	r.Clients.tally.Unknown.Store(1_234_567)
	r.Clients.tally.Made.Store(123_456_789)
	if err := r.page(t.Context(), Statement{Accounts: 1000, Total: 99_999_999_99, PaidIn: 1, Entries: 123_456_789}); err != nil {
		t.Fatal(err)
	}
	if err := r.line(Statement{Accounts: 1000, Total: 99_999_999_99, PaidIn: 99_999_999_99, Entered: 99_999_999_99}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

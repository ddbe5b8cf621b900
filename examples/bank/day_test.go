package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A day in a bank: clients make transfers, faults are injected into the stores, and in
// the evening somebody who trusts nobody looks at the books. The same day is lived by the
// bank as it is (bank_test.go), and by banks that lack a protection (sabotage_test.go).

// everyDatabase runs f on books in SQLite and in PostgreSQL.
func everyDatabase(t *testing.T, f func(t *testing.T, books *Books)) {
	t.Run("SQLite", func(t *testing.T) { f(t, openBooks(t, filepath.Join(t.TempDir(), "bank.db"))) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, openBooks(t, dbtest.Postgres(t))) })
}

func openBooks(t *testing.T, store string) *Books {
	t.Helper()
	books, err := OpenBooks(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := books.Close(); err != nil {
			t.Error(err)
		}
	})
	return books
}

// inject puts faults into both stores; play changes them.
func (b *Books) inject(seed uint64) (play func(script string)) {
	accounts := fault.Inject(b.accounts, fault.Script{}, seed)
	transfers := fault.Inject(b.transfers, fault.Script{}, seed+1)
	b.accounts, b.transfers = accounts, transfers
	return func(script string) {
		accounts.Play(fault.MustParse(script))
		transfers.Play(fault.MustParse(script))
	}
}

func openBank(t *testing.T, books *Books) *Bank {
	t.Helper()
	bank, err := NewBank(books)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bank.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return bank
}

const (
	people   = 8
	wishes   = 8 // of each
	accounts = people + 1
	deposit  = 100_00
	// storm is what the database does to those who commit.
	storm = "commit 1: lose reply; commit 3: lose reply; commit 10%: lose reply; commit 5%: lose reply, late; commit 5%: lose request; commit 5%: fail; begin 5%: fail"
)

// wish is one transfer that somebody wants.
type wish struct {
	key string
	t   Transfer
}

// day lets the clients make their transfers by way of a teller, and returns what is wrong
// with what they were told, the books, and memory.
//
// Everybody begins with a transfer from account 1, so that nobody is alone there; and every
// fourth wish is asked for by two people at once, as by one who clicks twice.
func day(t *testing.T, books *Books, bank *Bank, teller transferer, seed uint64, play func(string)) (faults []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := found(ctx, bank, accounts, deposit); err != nil {
		t.Fatal(err)
	}

	asked := map[string]Transfer{}
	lists := make([][]wish, people)
	draw := rand.New(rand.NewPCG(seed, 0))
	for n := range wishes {
		for p := range people {
			w := wish{fmt.Sprintf("wish %d of %d", n, p), Transfer{From: 1, To: int64(2 + p), Amount: 10_00}}
			if n > 0 {
				from := draw.Int64N(accounts)
				to := (from + 1 + draw.Int64N(accounts-1)) % accounts
				w.t = Transfer{From: 1 + from, To: 1 + to, Amount: Cents(1 + draw.Int64N(60_00))}
			}
			if n%4 == 3 && p%2 == 1 {
				w = lists[p-1][n]
			}
			lists[p] = append(lists[p], w)
			asked[w.key] = w.t
		}
	}

	play(storm)
	told := make([]map[string]error, people)
	var all sync.WaitGroup
	for p := range people {
		told[p] = map[string]error{}
		all.Go(func() {
			for _, w := range lists[p] {
				patience := 10 * time.Second
				if p == 0 {
					patience = 2 * time.Millisecond
				}
				told[p][w.key] = pay(ctx, teller, w.key, w.t, patience, func(error) {})
			}
		})
	}
	all.Wait()
	play("")

	entries, err := trail(ctx, books)
	if err != nil {
		t.Fatal(err)
	}
	for p := range people {
		for key, err := range told[p] {
			made := []entry{{asked[key].From, -asked[key].Amount}, {asked[key].To, asked[key].Amount}}
			switch has := entries[key]; {
			case err == nil && !slices.Equal(has, made):
				faults = append(faults, fmt.Sprintf("%s, %+v, was made once, says the bank; its entries are %v", key, asked[key], has))
			case err != nil && !errors.Is(err, ErrInsufficientFunds):
				faults = append(faults, fmt.Sprintf("%s: %v", key, err))
			case err != nil && len(has) > 0 && !alsoAsked(told[p^1], key):
				faults = append(faults, fmt.Sprintf("%s was not made, says the bank (%v); its entries are %v", key, err, has))
			}
		}
	}
	for key := range entries {
		if _, ok := asked[key]; !ok {
			faults = append(faults, fmt.Sprintf("%s was made, and nobody has asked for it", key))
		}
	}
	statement, err := books.Statement(ctx)
	if err != nil {
		t.Fatal(err)
	}
	faults = append(faults, statement.Faults()...)
	report, err := bank.accounts.Audit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range report.Differences {
		faults = append(faults, "memory: "+d.String())
	}
	return faults
}

// alsoAsked tells whether the other one who asked for the key was told that it is made.
func alsoAsked(told map[string]error, key string) bool {
	err, asked := told[key]
	return asked && err == nil
}

// trail is what was entered for each transfer, deposits left out.
func trail(ctx context.Context, books *Books) (map[string][]entry, error) {
	rows, err := books.sql.QueryContext(ctx, "SELECT transfer, account, amount FROM bank_trail WHERE transfer NOT LIKE 'opening of %' ORDER BY entry")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	entries := map[string][]entry{}
	for rows.Next() {
		var key string
		var e entry
		if err := rows.Scan(&key, &e.account, &e.amount); err != nil {
			return nil, err
		}
		entries[key] = append(entries[key], e)
	}
	return entries, rows.Err()
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// Each teller of this file lacks one protection, and has everything else. The day has to
// find out.
func TestADayFindsOutWhatABankLacks(t *testing.T) {
	for _, c := range []struct {
		lacks  string
		teller func(books *Books, bank *Bank) transferer
		finds  string
	}{
		{"the key, which is kept and not looked at", func(_ *Books, b *Bank) transferer {
			return tellerFunc(func(ctx context.Context, key string, t Transfer) error {
				return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
					if err := b.move(ctx, tx, t); err != nil {
						return err
					}
					if err := b.remember(ctx, tx, key, t); err != nil {
						return err
					}
					return b.enter(ctx, tx, key, entry{t.From, -t.Amount}, entry{t.To, t.Amount})
				})
			})
		}, "were entered twice"},

		{"the key, which is another one for each try", func(_ *Books, b *Bank) transferer {
			return tellerFunc(func(ctx context.Context, _ string, t Transfer) error {
				return b.Transfer(ctx, rand.Text(), t)
			})
		}, "nobody has asked for it"},

		{"the difference between an unknown outcome and a refusal", func(_ *Books, b *Bank) transferer {
			return tellerFunc(func(ctx context.Context, key string, t Transfer) error {
				err := b.Transfer(ctx, key, t)
				if errors.Is(err, lockstep.ErrUnknownOutcome) {
					return ErrInsufficientFunds // "it did not work"
				}
				return err
			})
		}, "was not made, says the bank"},

		{"a transaction: balances are read, and then written", func(_ *Books, b *Bank) transferer {
			return &twoSteps{bank: b}
		}, "was paid in"},

		{"one transaction for the money and the trail", func(books *Books, b *Bank) transferer {
			return tellerFunc(func(ctx context.Context, key string, t Transfer) error {
				err := lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
					if made, err := b.made(ctx, tx, key, t); made || err != nil {
						return err
					}
					if err := b.move(ctx, tx, t); err != nil {
						return err
					}
					return b.remember(ctx, tx, key, t)
				})
				if err != nil {
					return err
				}
				return books.enterAlone(ctx, key, t)
			})
		}, "the trail adds up to"},
	} {
		t.Run(c.lacks, func(t *testing.T) {
			t.Parallel() // most of a day is waiting
			books := openBooks(t, filepath.Join(t.TempDir(), "bank.db"))
			seed := aSeed(t)
			play := books.inject(seed)
			bank := openBank(t, books)
			faults := strings.Join(day(t, books, bank, c.teller(books, bank), seed, play), "\n")
			if !strings.Contains(faults, c.finds) {
				t.Errorf("%q is not among what was found:\n%s", c.finds, faults)
			}
		})
	}
}

type tellerFunc func(ctx context.Context, key string, t Transfer) error

func (f tellerFunc) Transfer(ctx context.Context, key string, t Transfer) error {
	return f(ctx, key, t)
}

// enterAlone enters a transfer in a transaction of its own.
func (b *Books) enterAlone(ctx context.Context, key string, t Transfer) error {
	_, err := b.sql.ExecContext(ctx, "INSERT INTO bank_trail (transfer, account, amount) VALUES ($1, $2, $3), ($1, $4, $5)",
		key, t.From, int64(-t.Amount), t.To, int64(t.Amount))
	return err
}

// twoSteps reads both balances, computes, and writes both: what a program does that has
// Get and Set. The first of each client have all read before any of them writes.
type twoSteps struct {
	bank  *Bank
	calls atomic.Int64
	read  sync.WaitGroup
	once  sync.Once
}

func (s *twoSteps) Transfer(ctx context.Context, key string, t Transfer) error {
	s.once.Do(func() { s.read.Add(people) })
	from, err := s.bank.accounts.Get(ctx, t.From)
	if err != nil {
		return err
	}
	to, err := s.bank.accounts.Get(ctx, t.To)
	if err != nil {
		return err
	}
	if s.calls.Add(1) <= people {
		s.read.Done()
		s.read.Wait()
	}
	if from.Balance < t.Amount {
		return ErrInsufficientFunds
	}
	from.Balance -= t.Amount
	to.Balance += t.Amount
	return s.bank.accounts.SetMany(ctx, map[int64]Account{t.From: from, t.To: to})
}

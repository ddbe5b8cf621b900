package demo

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/text"
)

// TransferFigures are those of the fifth scene. Amounts are in cents.
type TransferFigures struct {
	Customers int   `json:"customers"`
	Before    int64 `json:"sum_before_cents"`
	After     int64 `json:"sum_after_cents"`

	Committed int64 `json:"committed"`
	Refused   int64 `json:"insufficient_funds"`
	Reruns    int64 `json:"reruns"`
	// Sums were taken while money moved, each of the whole bank in one transaction;
	// WrongSums are those that were not what the bank has.
	Sums      int64 `json:"sums_taken"`
	WrongSums int64 `json:"wrong_sums"`
}

var errFunds = errors.New("insufficient funds")

// bank has two tables, each with a cache, in one database.
type bank struct {
	checking, savings *table[Account]
	customers         int
	runs              atomic.Int64 // of the functions given to Transact
}

func transfers(ctx context.Context, s *stage) (any, error) {
	f := &TransferFigures{Customers: 20}
	b := &bank{customers: f.Customers}
	for _, t := range []struct {
		to   **table[Account]
		name string
	}{{&b.checking, "checking"}, {&b.savings, "savings"}} {
		var err error
		if *t.to, err = openTable(ctx, s, recipe[Account]{name: t.name, open: s.options.Database.Accounts}); err != nil {
			return nil, err
		}
		err = (*t.to).fill(ctx, f.Customers, accountKey, func(i int) Account { return Account{Owner: personName(i), Balance: 1000_00} })
		if err != nil {
			return nil, err
		}
	}
	var err error
	if f.Before, err = b.sum(ctx, s); err != nil {
		return nil, err
	}
	if err := f.two(ctx, s, b); err != nil {
		return nil, err
	}
	return f, f.many(ctx, s, b)
}

// move takes an amount from a checking account to a savings account. A negative
// amount goes the other way. It credits first, so that a refusal has something to
// undo.
func (b *bank) move(ctx context.Context, from, to string, amount int64) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		b.runs.Add(1)
		checking, savings := b.checking.cache.In(tx), b.savings.cache.In(tx)
		saved, err := savings.Get(ctx, to)
		if err != nil {
			return err
		}
		saved.Balance += amount
		if err := savings.Set(ctx, to, saved); err != nil {
			return err
		}
		spent, err := checking.Get(ctx, from)
		if err != nil {
			return err
		}
		spent.Balance -= amount
		if spent.Balance < 0 || saved.Balance < 0 {
			return errFunds
		}
		return checking.Set(ctx, from, spent)
	})
}

// two shows a transfer that is possible and one that is not.
func (f *TransferFigures) two(ctx context.Context, s *stage, b *bank) error {
	ada := accountKey(0)
	rows := [][]string{{"", "checking", "savings", "together"}}
	var balances [3][2]int64
	look := func(i int, what string) error {
		checking, err := b.checking.stored(ctx, s, ada)
		if err != nil {
			return err
		}
		savings, err := b.savings.stored(ctx, s, ada)
		if err != nil {
			return err
		}
		x, y := checking.value.Balance, savings.value.Balance
		balances[i] = [2]int64{x, y}
		rows = append(rows, []string{what, money(x), money(y), money(x + y)})
		return nil
	}
	if err := look(0, "before"); err != nil {
		return err
	}
	possible := b.move(ctx, ada, ada, 250_00)
	if err := look(1, "250.00 to savings: committed"); err != nil {
		return err
	}
	impossible := b.move(ctx, ada, ada, 5000_00)
	if err := look(2, "5,000.00 to savings: rolled back"); err != nil {
		return err
	}
	s.say("%s has two accounts, in two tables with a cache each. Transact changes both in one transaction of the database, or neither. The function first credits the one and then finds out whether the other has the money; these are the rows in the database:", personName(0))
	s.show("lrrr", rows...)
	if impossible != nil {
		s.say("The second one's caller was told:")
		s.quote(impossible.Error())
	}
	s.expect(possible == nil && balances[1] == [2]int64{balances[0][0] - 250_00, balances[0][1] + 250_00}, "the first transfer changed both rows")
	s.expect(errors.Is(impossible, errFunds) && balances[2] == balances[1], "the second changed neither, and said why")
	return nil
}

// many moves money about while somebody keeps counting it.
func (f *TransferFigures) many(ctx context.Context, s *stage, b *bank) error {
	const tellers = 8
	done := s.progress("moving money")
	defer done()
	b.runs.Store(0)
	moved := make(chan struct{})
	var committed, refused atomic.Int64
	end := time.Now().Add(s.lasting(1500 * time.Millisecond))
	err := clients(2, func(i int) error {
		if i == 1 {
			return f.keepCounting(ctx, b, moved)
		}
		defer close(moved)
		return clients(tellers, func(int) error {
			for more := true; more; more = time.Now().Before(end) && ctx.Err() == nil {
				amount := rand.Int64N(4000_00) - 2000_00
				err := b.move(ctx, accountKey(rand.IntN(b.customers)), accountKey(rand.IntN(b.customers)), amount)
				switch {
				case err == nil:
					committed.Add(1)
				case errors.Is(err, errFunds):
					refused.Add(1)
				default:
					return err
				}
			}
			return nil
		})
	})
	done()
	if err != nil {
		return err
	}
	f.Committed, f.Refused = committed.Load(), refused.Load()
	f.Reruns = b.runs.Load() - f.Committed - f.Refused
	if f.After, err = b.sum(ctx, s); err != nil {
		return err
	}
	s.say("Then %d tellers move random amounts between the accounts of %d customers, while an accountant adds up all %d accounts again and again, each time in a transaction that only reads.", tellers, f.Customers, 2*f.Customers)
	s.show("lr",
		[]string{"transfers committed", text.Count(f.Committed)},
		[]string{"rolled back, insufficient funds", text.Count(f.Refused)},
		[]string{"run again, as others had changed a row", text.Count(f.Reruns)},
		[]string{"sums taken meanwhile", text.Count(f.Sums)},
		[]string{"money in the database before", money(f.Before)},
		[]string{"money in the database after", money(f.After)},
	)
	s.expect(f.Before == f.After, "no money was made or lost")
	s.expect(f.Sums > 0 && f.WrongSums == 0, "no sum saw a transfer by half")
	return nil
}

// keepCounting takes sums until the money has stopped moving, and one more.
func (f *TransferFigures) keepCounting(ctx context.Context, b *bank, moved <-chan struct{}) error {
	for last := false; ; {
		sum := int64(0)
		err := lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			sum = 0
			for _, accounts := range []lockstep.InTx[string, Account]{b.checking.cache.In(tx), b.savings.cache.In(tx)} {
				for i := range b.customers {
					a, err := accounts.Get(ctx, accountKey(i))
					if err != nil {
						return err
					}
					sum += a.Balance
				}
			}
			return nil
		})
		switch {
		case errors.Is(err, lockstep.ErrConflict):
			// The rows changed a hundred times before all of them could be read.
		case err != nil:
			return err
		default:
			f.Sums++
			if sum != f.Before {
				f.WrongSums++
			}
			if last {
				return nil
			}
		}
		select {
		case <-moved:
			last = true
		default:
		}
	}
}

// sum is all the money that the database knows of.
func (b *bank) sum(ctx context.Context, s *stage) (sum int64, err error) {
	for _, t := range []*table[Account]{b.checking, b.savings} {
		rows, err := readRows[Account](ctx, s, t.sql)
		if err != nil {
			return 0, err
		}
		for _, row := range rows {
			sum += row.value.Balance
		}
	}
	return sum, nil
}

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep"
)

// Cents is an amount of money. Balances are whole numbers: a sum of floats depends on
// the order in which they are added.
type Cents int64

func (c Cents) String() string {
	if c < 0 {
		return "-" + (-c).String()
	}
	return fmt.Sprintf("%s.%02d", grouped(int64(c)/100), int64(c)%100)
}

// Account is a row of the table bank_accounts, which any program may query.
type Account struct {
	Owner   string           `db:"owner"`
	Balance Cents            `db:"balance"`
	Version lockstep.Version `db:"version,version"` // kept by the store
}

// Transfer is what somebody asked for, kept under the key under which it was asked.
type Transfer struct {
	From   int64 `json:"from"`
	To     int64 `json:"to"`
	Amount Cents `json:"amount"`
}

// Bank has two caches, of accounts and of the transfers that were made, and a trail of
// every movement that no cache keeps. All three are in one database, and a transfer
// changes them in one transaction.
type Bank struct {
	accounts  *lockstep.Cache[int64, Account]
	transfers *lockstep.Cache[string, Transfer]

	// sqlTx is the transaction of tx for the bank's own SQL: sqlitestore.Tx, or
	// pgstore.SQLTx.
	sqlTx func(tx *lockstep.Tx) (*sql.Tx, error)
}

// NewBank returns a bank on the books of a database. It does no I/O.
func NewBank(books *Books) (*Bank, error) {
	accounts, err := lockstep.New(books.accounts, lockstep.Options[int64, Account]{})
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	transfers, err := lockstep.New(books.transfers, lockstep.Options[string, Transfer]{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("transfers: %w", err), accounts.Close(context.Background()))
	}
	return &Bank{accounts: accounts, transfers: transfers, sqlTx: books.sqlTx}, nil
}

// Close waits for what was accepted. It leaves the books open.
func (b *Bank) Close(ctx context.Context) error {
	return errors.Join(b.accounts.Close(ctx), b.transfers.Close(ctx))
}

// Balance is answered from memory as a rule. It is never older than the last transfer of
// that account of which anybody was told that it is made.
func (b *Bank) Balance(ctx context.Context, account int64) (Cents, error) {
	a, err := b.accounts.Get(ctx, account)
	return a.Balance, err
}

// Open opens an account with a deposit, which is the first entry of its trail. An account
// that is open already stays as it is.
func (b *Bank) Open(ctx context.Context, account int64, owner string, deposit Cents) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		accounts := b.accounts.In(tx)
		switch _, err := accounts.Get(ctx, account); {
		case err == nil:
			return nil
		case !errors.Is(err, lockstep.ErrNotFound):
			return err
		}
		if err := accounts.Set(ctx, account, Account{Owner: owner, Balance: deposit}); err != nil {
			return err
		}
		return b.enter(ctx, tx, fmt.Sprint("opening of ", account), entry{account, deposit})
	})
}

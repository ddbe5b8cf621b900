package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
)

var (
	ErrInsufficientFunds = errors.New("not enough money in the account")
	ErrKeyReused         = errors.New("the key was used for another transfer")
)

// keysAreKept is how long a transfer can be asked for again under its key. Whoever has
// not been told by then what became of it has to look into the trail.
const keysAreKept = 24 * time.Hour

// Transfer moves money from one account to another, once, however often it is asked for
// under the same key: a caller who does not know what became of it asks again.
//
// With nil it is made and on disk, and every Balance that is asked for from now on shows
// it. ErrUnknownOutcome says that it may have been made; anything else, that it was not.
func (b *Bank) Transfer(ctx context.Context, key string, t Transfer) error {
	if err := t.check(key); err != nil {
		return err
	}
	// All of it is one transaction of the database. The function runs again when somebody
	// else has changed what it has read, so it does nothing that cannot be undone.
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		if made, err := b.made(ctx, tx, key, t); made || err != nil {
			return err
		}
		if err := b.move(ctx, tx, t); err != nil {
			return err
		}
		if err := b.remember(ctx, tx, key, t); err != nil {
			return err
		}
		// Last, because from here on the database holds a transaction open for us.
		return b.enter(ctx, tx, key, entry{t.From, -t.Amount}, entry{t.To, t.Amount})
	})
}

func (t Transfer) check(key string) error {
	switch {
	case key == "":
		return errors.New("a transfer needs a key, under which it can be asked for again")
	case t.Amount <= 0:
		return fmt.Errorf("a transfer of %v is none", t.Amount)
	case t.From == t.To:
		return fmt.Errorf("a transfer from account %d to itself is none", t.From)
	}
	return nil
}

// made tells whether the transfer was made before. That it was not is checked by the
// database once more when the transaction commits: of two callers with one key, one makes
// the transfer, and the other's function runs again and finds it here.
func (b *Bank) made(ctx context.Context, tx *lockstep.Tx, key string, t Transfer) (bool, error) {
	switch before, err := b.transfers.In(tx).Get(ctx, key); {
	case errors.Is(err, lockstep.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case before != t:
		return false, fmt.Errorf("%w: %v from %d to %d", ErrKeyReused, before.Amount, before.From, before.To)
	}
	return true, nil
}

// move changes both balances. That there is not enough money is said only of a balance
// that was there: Transact checks what a function has read also when it fails.
func (b *Bank) move(ctx context.Context, tx *lockstep.Tx, t Transfer) error {
	accounts := b.accounts.In(tx)
	from, err := accounts.Get(ctx, t.From)
	if err != nil {
		return fmt.Errorf("account %d: %w", t.From, err)
	}
	to, err := accounts.Get(ctx, t.To)
	if err != nil {
		return fmt.Errorf("account %d: %w", t.To, err)
	}
	if from.Balance < t.Amount {
		return ErrInsufficientFunds
	}
	from.Balance -= t.Amount
	to.Balance += t.Amount
	if err := accounts.Set(ctx, t.From, from); err != nil {
		return err
	}
	return accounts.Set(ctx, t.To, to)
}

// remember keeps the transfer under its key. The row ends by itself: its Lifetime is the
// row's, by the database's clock, and not that of a copy in memory.
func (b *Bank) remember(ctx context.Context, tx *lockstep.Tx, key string, t Transfer) error {
	return b.transfers.In(tx).Set(ctx, key, t, lockstep.Lifetime(keysAreKept))
}

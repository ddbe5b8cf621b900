package lockstep_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

var errInsufficient = errors.New("insufficient funds")

// A transfer: both accounts change, or neither does.
func ExampleTransact() {
	ctx := context.Background()
	accounts, _ := lockstep.New(memstore.New(memstore.Options[string, int]{}), lockstep.Options[string, int]{})
	defer accounts.Close(ctx)
	accounts.SetMany(ctx, map[string]int{"ada": 100, "bob": 0})

	transfer := func(from, to string, amount int) error {
		return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			a := accounts.In(tx)
			source, err := a.Get(ctx, from)
			if err != nil {
				return err
			}
			target, err := a.Get(ctx, to)
			if err != nil {
				return err
			}
			if source < amount {
				return errInsufficient
			}
			if err := a.Set(ctx, from, source-amount); err != nil {
				return err
			}
			return a.Set(ctx, to, target+amount)
		})
	}
	fmt.Println(transfer("ada", "bob", 60))
	fmt.Println(errors.Is(transfer("ada", "bob", 60), errInsufficient))
	balances, _ := accounts.GetMany(ctx, []string{"ada", "bob"})
	fmt.Println(balances["ada"], balances["bob"])
	// Output:
	// <nil>
	// true
	// 40 60
}

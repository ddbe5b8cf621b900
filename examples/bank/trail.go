package main

import (
	"context"

	"github.com/lockstep-cache/lockstep"
)

// entry is one movement of one account.
type entry struct {
	account int64
	amount  Cents
}

// enter adds entries to the trail. It is the program's own SQL, in the transaction in
// which the caches write: the entries are there if the transfer was made, and not if it
// was not, whatever happens in between. The table takes new rows only (books.go).
func (b *Bank) enter(ctx context.Context, tx *lockstep.Tx, transfer string, entries ...entry) error {
	// SQL of a program's own needs a cache in the transaction, to know the database; and
	// every caller has used one by now.
	sql, err := b.sqlTx(tx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := sql.ExecContext(ctx, "INSERT INTO bank_trail (transfer, account, amount) VALUES ($1, $2, $3)",
			transfer, e.account, int64(e.amount)); err != nil {
			return err
		}
	}
	return nil
}

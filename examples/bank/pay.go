package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// transferer is whoever makes transfers: a Bank.
type transferer interface {
	Transfer(ctx context.Context, key string, t Transfer) error
}

// pay asks for the transfer until it is known whether it was made, or ctx ends. It waits
// for an answer as long as patience says, and twice as long each time it asks again.
// asked is told what each try has come to.
//
// This is what a client does that may have been cut off. All that it needs is to use one
// key for one transfer.
func pay(ctx context.Context, bank transferer, key string, t Transfer, patience time.Duration, asked func(error)) error {
	const longest = time.Second
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, longest) {
		err := ask(ctx, bank, key, t, patience)
		asked(err)
		patience *= 2
		if !worthAsking(err) {
			return err
		}
		select {
		case <-time.After(rand.N(pause)): // at random, so that those who failed together do not come back together
		case <-ctx.Done():
			return err
		}
	}
}

func ask(ctx context.Context, bank transferer, key string, t Transfer, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return bank.Transfer(ctx, key, t)
}

// worthAsking tells whether the next answer may be another one. Nobody knows whether a
// transfer with an unknown outcome was made: it would be wrong to ask for it under
// another key, and wrong to give it up. One that met a database which is away, or
// whose patience was over while it waited, was not made.
func worthAsking(err error) bool {
	return errors.Is(err, lockstep.ErrUnknownOutcome) ||
		errors.Is(err, lockstep.ErrUnavailable) ||
		errors.Is(err, context.DeadlineExceeded)
}

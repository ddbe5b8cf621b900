package main

import (
	"context"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Clients are people at their machines: each looks at some balances and makes a transfer,
// again and again.
type Clients struct {
	Number   int
	Accounts int
	// Patience is how long every fourth of them waits for an answer; the others wait for
	// 10 seconds. The impatient leave in the middle of a commit now and then, and do not
	// know what becomes of it.
	Patience time.Duration
	Seed     uint64

	tally Tally
}

// Tally is what clients were told.
type Tally struct {
	Made    atomic.Int64 // transfers
	Refused atomic.Int64 // for want of money
	Unknown atomic.Int64 // answers that nobody knows
	Late    atomic.Int64 // no answer in time, and not made
	Looks   atomic.Int64 // balances
}

// looks is how many balances a client looks at for each transfer.
const looks = 10

// Run returns when ctx has ended and every client has left, or one of them has met an
// error that it does not expect.
func (c *Clients) Run(ctx context.Context, bank *Bank) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	for i := range c.Number {
		all.Go(func() {
			patience := 10 * time.Second
			if i%4 == 3 {
				patience = c.Patience
			}
			if err := c.play(ctx, bank, patience, mathrand.New(mathrand.NewPCG(c.Seed, uint64(i)))); err != nil {
				stop(err)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (c *Clients) play(ctx context.Context, bank *Bank, patience time.Duration, draw *mathrand.Rand) error {
	for ctx.Err() == nil {
		for range looks {
			account := 1 + draw.Int64N(int64(c.Accounts))
			if err := look(ctx, bank, account); err != nil && ctx.Err() == nil {
				return err
			}
			c.tally.Looks.Add(1)
		}
		// Two different accounts.
		from := draw.Int64N(int64(c.Accounts))
		to := (from + 1 + draw.Int64N(int64(c.Accounts)-1)) % int64(c.Accounts)
		t := Transfer{From: 1 + from, To: 1 + to, Amount: Cents(1 + draw.Int64N(500_00))}
		// The key is drawn where the wish arises, before anything is sent.
		err := pay(ctx, bank, rand.Text(), t, patience, func(err error) {
			if ctx.Err() == nil {
				c.tally.asked(err)
			}
		})
		switch {
		case err == nil:
			c.tally.Made.Add(1)
		case errors.Is(err, ErrInsufficientFunds):
			c.tally.Refused.Add(1)
		case ctx.Err() == nil:
			return err
		}
	}
	return nil
}

// look waits for a database that is away, as pay does.
func look(ctx context.Context, bank *Bank, account int64) error {
	for {
		_, err := bank.Balance(ctx, account)
		if !errors.Is(err, lockstep.ErrUnavailable) {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *Tally) asked(err error) {
	switch {
	case errors.Is(err, lockstep.ErrUnknownOutcome):
		t.Unknown.Add(1)
	case worthAsking(err):
		t.Late.Add(1)
	}
}

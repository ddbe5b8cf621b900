package main

import (
	"context"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Sale is a flash sale: one item, few units, and many who want one.
type Sale struct {
	Shop    *Shop
	Item    string
	Units   int
	Buyers  int
	Reserve reserving
	Seed    uint64

	Sold    atomic.Int64 // units
	Waived  atomic.Int64 // held, and given back
	TooLate atomic.Int64 // buyers who went away with nothing
	Looks   atomic.Int64 // at the shelf and the price
}

const (
	// patience is how often a buyer looks at an empty shelf before he leaves.
	patience = 20
	// One of so many does not pay in the end.
	waverers = 10
)

// Run opens the shop to all buyers at once, and returns when the last one has left. The
// error is the first one that no buyer expects.
func (s *Sale) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var opened = make(chan struct{})
	var buyers sync.WaitGroup
	for n := range s.Buyers {
		draw := mathrand.New(mathrand.NewPCG(s.Seed, uint64(n)))
		buyers.Go(func() {
			<-opened
			if err := s.buy(ctx, draw); err != nil {
				stop(err)
			}
		})
	}
	close(opened)
	buyers.Wait()
	return context.Cause(ctx)
}

func (s *Sale) buy(ctx context.Context, draw *mathrand.Rand) error {
	order := rand.Text()
	for range patience {
		s.Looks.Add(1)
		var available int
		err := again(ctx, func() (err error) {
			if available, err = s.Shop.Available(ctx, s.Item); err == nil {
				_, err = s.Shop.Price(ctx, s.Item)
			}
			return err
		})
		if err != nil {
			return err
		}
		if available > 0 {
			err := again(ctx, func() error { _, err := s.Reserve(ctx, order, s.Item, 1); return err })
			if err == nil {
				return s.pay(ctx, order, draw)
			}
			if !errors.Is(err, ErrSoldOut) {
				return err
			}
		}
		select {
		case <-time.After(time.Duration(draw.Int64N(int64(20 * time.Millisecond)))):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.TooLate.Add(1)
	return nil
}

func (s *Sale) pay(ctx context.Context, order string, draw *mathrand.Rand) error {
	if draw.IntN(waverers) == 0 {
		s.Waived.Add(1)
		return again(ctx, func() error { return s.Shop.Release(ctx, order, s.Item) })
	}
	err := again(ctx, func() error { _, err := s.Shop.Checkout(ctx, order, s.Item); return err })
	if err == nil {
		s.Sold.Add(1)
	}
	return err
}

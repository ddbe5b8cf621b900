package main

import (
	"context"
	"errors"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Price is a row of the price list, which another program writes.
type Price struct {
	Cents Cents `db:"cents"`
}

// priceTTL is how old a price may be that a buyer is shown.
const priceTTL = 500 * time.Millisecond

// newPriceList is a cache in front of a table that others change. It is not told of their
// changes, so the age of its copies is bounded: no copy answers for longer than its TTL
// after its load has begun.
func newPriceList(store lockstep.Store[string, Price]) (*lockstep.Cache[string, Price], error) {
	return lockstep.New(store, lockstep.Options[string, Price]{
		Mode: lockstep.ReadOnly,
		TTL:  priceTTL,
		// A price that people look at is loaded anew before its time is over, in the
		// background: none of them waits for it. One that nobody looks at is not.
		RefreshAhead: priceTTL / 2,
	})
}

// Price is what one unit costs: the list's price, or what it was priceTTL ago at most.
func (s *Shop) Price(ctx context.Context, item string) (Cents, error) {
	price, err := s.prices.Get(ctx, item)
	if errors.Is(err, lockstep.ErrNotFound) {
		return 0, ErrNoSuchItem
	}
	return price.Cents, err
}

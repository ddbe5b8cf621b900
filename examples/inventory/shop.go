package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Cents is an amount of money.
type Cents int64

func (c Cents) String() string { return fmt.Sprintf("%d.%02d", c/100, c%100) }

// Order is something that was sold.
type Order struct {
	Item  string `json:"item"`
	Units int    `json:"units"`
	Price Cents  `json:"price"` // of one
}

// Shop has three caches. Stock and orders are the shop's own, and it is the only one that
// writes them. The price list is a table of somebody else's.
type Shop struct {
	stock  *lockstep.Cache[string, Stock]
	orders *lockstep.Cache[string, Order]
	prices *lockstep.Cache[string, Price]
}

// holdFor is how long a buyer has to pay.
const holdFor = 15 * time.Minute

// NewShop returns a shop on the tables of a database. It does no I/O.
func NewShop(tables *Tables) (_ *Shop, err error) {
	s := &Shop{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(context.Background()))
		}
	}()
	if s.stock, err = lockstep.New(tables.stock, lockstep.Options[string, Stock]{}); err != nil {
		return nil, fmt.Errorf("stock: %w", err)
	}
	if s.orders, err = lockstep.New(tables.orders, lockstep.Options[string, Order]{}); err != nil {
		return nil, fmt.Errorf("orders: %w", err)
	}
	if s.prices, err = newPriceList(tables.prices); err != nil {
		return nil, fmt.Errorf("prices: %w", err)
	}
	return s, nil
}

// Close waits for what was accepted. It leaves the tables open.
func (s *Shop) Close(ctx context.Context) error {
	var errs []error
	if s.stock != nil {
		errs = append(errs, s.stock.Close(ctx))
	}
	if s.orders != nil {
		errs = append(errs, s.orders.Close(ctx))
	}
	if s.prices != nil {
		errs = append(errs, s.prices.Close(ctx))
	}
	return errors.Join(errs...)
}

// Available is how many units of an item can be promised now. It is answered from memory,
// for all who look and do not buy; what is promised is decided by Reserve.
func (s *Shop) Available(ctx context.Context, item string) (int, error) {
	stock, err := s.stock.Get(ctx, item)
	if errors.Is(err, lockstep.ErrNotFound) {
		return 0, ErrNoSuchItem
	}
	return stock.Available(time.Now()), err
}

package main

import (
	"context"
	"errors"

	"github.com/lockstep-cache/lockstep"
)

// Checkout sells what is held for the order: the units leave the shelf, the hold is over,
// and there is an order, in one transaction. An order that was sold before is returned as
// it is, so a caller who does not know may ask again.
func (s *Shop) Checkout(ctx context.Context, order, item string) (sold Order, err error) {
	err = lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		shelf, orders := s.stock.In(tx), s.orders.In(tx)
		switch before, err := orders.Get(ctx, order); {
		case err == nil:
			sold = before
			return nil
		case !errors.Is(err, lockstep.ErrNotFound):
			return err
		}
		stock, err := shelf.Get(ctx, item)
		if errors.Is(err, lockstep.ErrNotFound) {
			return ErrNoSuchItem
		} else if err != nil {
			return err
		}
		// A hold counts as long as it is in the row, whatever the clock says: that it is
		// there means that nobody else was promised its units.
		h, ok := stock.Holds[order]
		if !ok {
			return ErrNoHold
		}
		stock = stock.without(order)
		stock.OnHand -= h.Units
		if err := shelf.Set(ctx, item, stock); err != nil {
			return err
		}
		sold = Order{Item: item, Units: h.Units, Price: h.Price}
		return orders.Set(ctx, order, sold)
	})
	return sold, err
}

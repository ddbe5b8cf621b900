package main

import (
	"context"
	"fmt"
	"time"
)

// Inventory is what the tables say of one item.
type Inventory struct {
	OnHand int // on the shelf
	Held   int // of those, for buyers who have not paid yet
	Sold   int
	Orders int
	Earned Cents
}

// Inventory counts an item in the tables. Scan reads the table and not memory. It is for
// when the shop is closed: the two scans are of two moments.
func (s *Shop) Inventory(ctx context.Context, item string) (v Inventory, err error) {
	for e, err := range s.stock.Scan(ctx) {
		if err != nil {
			return v, err
		}
		if e.Key == item {
			v.OnHand, v.Held = e.Value.OnHand, e.Value.Held(time.Now())
		}
	}
	for e, err := range s.orders.Scan(ctx) {
		if err != nil {
			return v, err
		}
		if e.Value.Item == item {
			v.Orders++
			v.Sold += e.Value.Units
			v.Earned += Cents(e.Value.Units) * e.Value.Price
		}
	}
	return v, nil
}

// Faults says what is wrong with an item of which there were so many units.
func (v Inventory) Faults(supplied int) (faults []string) {
	if v.OnHand < 0 {
		faults = append(faults, fmt.Sprintf("oversold: %d units on hand", v.OnHand))
	}
	if v.Held > v.OnHand {
		faults = append(faults, fmt.Sprintf("oversold: %d units are promised, and %d are on hand", v.Held, v.OnHand))
	}
	if v.OnHand+v.Sold != supplied {
		faults = append(faults, fmt.Sprintf("%d units on hand and %d sold are not the %d that there were", v.OnHand, v.Sold, supplied))
	}
	return faults
}

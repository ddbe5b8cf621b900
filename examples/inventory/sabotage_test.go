package main

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Each counter of this file lacks one protection, and has everything else. The day has to
// find out.
func TestADayFindsOutWhatAShopLacks(t *testing.T) {
	for _, c := range []struct {
		lacks string
		at    func(shop *Shop) counter
		finds string
	}{
		{"the version: the row is read, and then written", func(shop *Shop) counter {
			meet := meeting(buyers)
			return counter{checkout: shop.Checkout, reserve: func(ctx context.Context, order, item string, units int) (Hold, error) {
				h, err := shop.offer(ctx, item, units)
				if err != nil {
					return h, err
				}
				seen, err := shop.stock.Get(ctx, item)
				if err != nil {
					return h, err
				}
				meet()
				next, err := seen.hold(order, h, time.Now())
				if errors.Is(err, lockstep.Keep) {
					return h, nil
				} else if err != nil {
					return h, err
				}
				_, err = shop.stock.Set(ctx, item, next)
				return h, err
			}}
		}, "units, and has {Units:0"},

		{"the database's word on the version, which is compared before the write", func(shop *Shop) counter {
			meet := meeting(buyers)
			return counter{checkout: shop.Checkout, reserve: func(ctx context.Context, order, item string, units int) (Hold, error) {
				h, err := shop.offer(ctx, item, units)
				if err != nil {
					return h, err
				}
				for {
					seen, err := shop.stock.GetEntry(ctx, item)
					if err != nil {
						return h, err
					}
					next, err := seen.Value.hold(order, h, time.Now())
					if errors.Is(err, lockstep.Keep) {
						return h, nil
					} else if err != nil {
						return h, err
					}
					now, err := shop.stock.GetEntry(ctx, item)
					if err != nil {
						return h, err
					}
					if now.Version != seen.Version {
						continue
					}
					meet()
					_, err = shop.stock.Set(ctx, item, next)
					return h, err
				}
			}}
		}, "units, and has {Units:0"},

		{"the rule inside Update: availability is looked at before", func(shop *Shop) counter {
			meet := meeting(buyers)
			return counter{checkout: shop.Checkout, reserve: func(ctx context.Context, order, item string, units int) (Hold, error) {
				h, err := shop.offer(ctx, item, units)
				if err != nil {
					return h, err
				}
				available, err := shop.Available(ctx, item)
				if err != nil {
					return h, err
				}
				meet()
				if available < units {
					return h, ErrSoldOut
				}
				_, err = shop.stock.Update(ctx, item, func(old Stock, _ bool) (Stock, error) {
					if old.Holds == nil {
						old.Holds = map[string]Hold{}
					}
					old.Holds[order] = h
					return old, nil
				})
				return h, err
			}}
		}, "oversold"},

		{"the order's name, which is another one for each try", func(shop *Shop) counter {
			at := asTheShopDoes(shop)
			at.reserve = func(ctx context.Context, _, item string, units int) (Hold, error) {
				return shop.ReserveByUpdate(ctx, rand.Text(), item, units)
			}
			return at
		}, "held for nobody"},

		{"one transaction at the till: the shelf first, and then the order", func(shop *Shop) counter {
			at := asTheShopDoes(shop)
			var calls atomic.Int64
			at.checkout = func(ctx context.Context, order, item string) (sold Order, err error) {
				_, err = shop.stock.Update(ctx, item, func(old Stock, _ bool) (Stock, error) {
					h, ok := old.Holds[order]
					if !ok {
						return old, ErrNoHold
					}
					sold = Order{item, h.Units, h.Price}
					old = old.without(order)
					old.OnHand -= h.Units
					return old, nil
				})
				if err != nil {
					return sold, err
				}
				if calls.Add(1) == 1 {
					return sold, errors.New("a program that ends here")
				}
				_, err = shop.orders.Set(ctx, order, sold)
				return sold, err
			}
			return at
		}, "are not the 20 that there were"},
	} {
		t.Run(c.lacks, func(t *testing.T) {
			t.Parallel() // most of a day is waiting
			tables := openTables(t, filepath.Join(t.TempDir(), "inventory.db"))
			seed := aSeed(t)
			play := tables.inject(seed)
			shop := openShop(t, tables)
			priced(t, tables, 20_00)
			faults := strings.Join(day(t, shop, c.at(shop), seed, play), "\n")
			if !strings.Contains(faults, c.finds) {
				t.Errorf("%q is not among what was found:\n%s", c.finds, faults)
			}
		})
	}
}

// meeting returns a function whose first n callers wait for each other: all have read
// before any of them writes.
func meeting(n int) (meet func()) {
	var calls atomic.Int64
	var here sync.WaitGroup
	here.Add(n)
	return func() {
		if calls.Add(1) <= int64(n) {
			here.Done()
			here.Wait()
		}
	}
}

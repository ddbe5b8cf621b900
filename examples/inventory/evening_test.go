package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A day in the shop: more buyers than units, and a database that fails. In the evening
// somebody compares what each buyer was told with the tables. The same day is lived by the
// shop as it is (inventory_test.go), and by shops that lack a protection
// (sabotage_test.go).

// everyDatabase runs f on tables in SQLite and in PostgreSQL.
func everyDatabase(t *testing.T, f func(t *testing.T, tables *Tables)) {
	t.Run("SQLite", func(t *testing.T) { f(t, openTables(t, filepath.Join(t.TempDir(), "inventory.db"))) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, openTables(t, dbtest.Postgres(t))) })
}

func openTables(t *testing.T, store string) *Tables {
	t.Helper()
	tables, err := OpenTables(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tables.Close(); err != nil {
			t.Error(err)
		}
	})
	return tables
}

// inject puts faults into the shop's own tables; play changes them.
func (tables *Tables) inject(seed uint64) (play func(script string)) {
	stock := fault.Inject(tables.stock, fault.Script{}, seed)
	orders := fault.Inject(tables.orders, fault.Script{}, seed+1)
	tables.stock, tables.orders = stock, orders
	return func(script string) {
		stock.Play(fault.MustParse(script))
		orders.Play(fault.MustParse(script))
	}
}

func openShop(t *testing.T, tables *Tables) *Shop {
	t.Helper()
	shop, err := NewShop(tables)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shop.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return shop
}

const (
	buyers = 32
	units  = 20 // of which each buyer wants one or two
	lamp   = "lamp"
	// storm is what the database does to those who commit.
	storm = "commit 1: lose reply; commit 3: lose reply; commit 10%: lose reply; commit 5%: lose reply, late; commit 5%: lose request; commit 10%: fail; begin 10%: fail"
)

// counter is who serves the buyers: the shop, or one that lacks something.
type counter struct {
	reserve  reserving
	checkout func(ctx context.Context, order, item string) (Order, error)
}

// buyer is what one of them was told in the end.
type buyer struct {
	units                int
	held, bought, unsure bool
}

// day lets the buyers in, and returns what is wrong in the evening. Of those who were
// promised something, some pay, some give it back, some are still on their way to the
// till in the evening, and some walk away from it at the first error.
func day(t *testing.T, shop *Shop, at counter, seed uint64, play func(string)) (faults []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := shop.Stock(ctx, lamp, units); err != nil {
		t.Fatal(err)
	}

	play(storm)
	told := make([]buyer, buyers)
	errs := make([]error, buyers)
	var promises atomic.Int64
	orderOf := func(n int) string { return fmt.Sprint("order ", n) }
	var all sync.WaitGroup
	for n := range buyers {
		draw := rand.New(rand.NewPCG(seed, uint64(n)))
		b, order := &told[n], orderOf(n)
		b.units = 1 + draw.IntN(2)
		all.Go(func() {
			err := again(ctx, func() error { _, err := at.reserve(ctx, order, lamp, b.units); return err })
			if err != nil {
				if !errors.Is(err, ErrSoldOut) {
					errs[n] = err
				}
				return
			}
			b.held = true
			switch promises.Add(1) % 4 {
			case 3: // not yet at the till
			case 2:
				errs[n] = again(ctx, func() error { return shop.Release(ctx, order, lamp) })
				b.held = false
			case 1:
				_, err := at.checkout(ctx, order, lamp)
				b.bought, b.unsure = err == nil, err != nil
				// In the evening the tables stand still.
				if lost := (*lockstep.WriteError)(nil); errors.As(err, &lost) {
					_, _, errs[n] = lost.Wait(ctx)
				}
			default:
				errs[n] = again(ctx, func() error { _, err := at.checkout(ctx, order, lamp); return err })
				b.bought = true
			}
		})
	}
	all.Wait()
	play("")

	found := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	stock, orders := evening(ctx, t, shop)
	promised := 0
	for n, b := range told {
		order := orderOf(n)
		h, held := stock.Holds[order]
		o, sold := orders[order]
		delete(stock.Holds, order)
		delete(orders, order)
		if b.held {
			promised += b.units
		}
		switch {
		case errs[n] != nil:
			found("%s: %v", order, errs[n])
		case b.unsure && held == sold:
			found("%s was promised %d units, and had trouble at the till; held: %t, sold: %t", order, b.units, held, sold)
		case b.bought && (held || !sold || o.Units != b.units):
			found("%s has paid for %d units, and has %+v", order, b.units, o)
		case b.held && !b.bought && !b.unsure && (sold || h.Units != b.units):
			found("%s was promised %d units, and has %+v", order, b.units, h)
		case !b.held && (held || sold):
			found("%s was promised nothing, or gave it back; held: %t, sold: %t", order, held, sold)
		}
	}
	if promised > units {
		found("oversold: %d units were promised, of %d", promised, units)
	}
	for order := range stock.Holds {
		found("units are held for nobody, %s", order)
	}
	for order := range orders {
		found("units are sold to nobody, %s", order)
	}
	inventory, err := shop.Inventory(ctx, lamp)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(faults, inventory.Faults(units)...), memory(ctx, t, shop)...)
}

// evening is what the tables say.
func evening(ctx context.Context, t *testing.T, shop *Shop) (stock Stock, orders map[string]Order) {
	for e, err := range shop.stock.Scan(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		stock = e.Value
	}
	orders = map[string]Order{}
	for e, err := range shop.orders.Scan(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		orders[e.Key] = e.Value
	}
	return stock, orders
}

// memory is what memory has that the tables have not.
func memory(ctx context.Context, t *testing.T, shop *Shop) (faults []string) {
	stock, err := shop.stock.Audit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	orders, err := shop.orders.Audit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range stock.Differences {
		faults = append(faults, d.String())
	}
	for _, d := range orders.Differences {
		faults = append(faults, d.String())
	}
	return faults
}

// asTheShopDoes is the counter of a shop that lacks nothing.
func asTheShopDoes(shop *Shop) counter {
	return counter{reserve: shop.ReserveByUpdate, checkout: shop.Checkout}
}

// priced gives the lamp a price.
func priced(t *testing.T, tables *Tables, price Cents) {
	t.Helper()
	if err := tables.setPrice(t.Context(), lamp, price); err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// shownPrices reads the price, and between reads another program changes it, and returns what was wrong
// with what was shown. The first change that was committed before a read, by more than the
// TTL, has to show in it: no copy is older. That is said by the order of things and not
// by how fast they are.
func shownPrices(t *testing.T, tables *Tables, shop *Shop) (faults []string) {
	t.Helper()
	const changes = 6
	ctx := t.Context()
	var committed []time.Time // [i]: when price i+1 was on the list
	for {
		asked := time.Now()
		if n := len(committed); n < changes && (n == 0 || asked.Sub(committed[n-1]) > priceTTL/4) {
			if err := tables.setPrice(ctx, lamp, Cents(n+1)); err != nil {
				t.Fatal(err)
			}
			committed = append(committed, time.Now())
			continue
		}
		price, err := shop.Price(ctx, lamp)
		if err != nil {
			t.Fatal(err)
		}
		for i, at := range committed {
			if asked.Sub(at) > priceTTL && price < Cents(i+1) {
				faults = append(faults, fmt.Sprintf("a buyer was shown price %d, which was replaced %v before", price, asked.Sub(at)))
			}
		}
		if len(committed) == changes && asked.Sub(committed[changes-1]) > priceTTL {
			return faults // this read was one in which the last change had to show
		}
	}
}

func TestNoPriceIsOlderThanItsTTL(t *testing.T) {
	everyDatabase(t, func(t *testing.T, tables *Tables) {
		t.Parallel() // it lasts, and does little
		shop := openShop(t, tables)
		for _, f := range shownPrices(t, tables, shop) {
			t.Error(f)
		}
		// Some loads for each TTL, and not one for each of the thousands of looks.
		if s := shop.prices.Stats(); s.Hits < 100*s.Loads {
			t.Errorf("%d loads for %d hits", s.Loads, s.Hits)
		}
		// And sooner or later there is one for which nobody waits.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for shop.prices.Stats().RefreshesAhead == 0 {
			if _, err := shop.Price(ctx, lamp); err != nil {
				t.Fatalf("no price was loaded ahead of its end: %v", err)
			}
		}
	})
}

// The protection of the price list is its TTL.
func TestPricesWithoutATTLAreFoundOut(t *testing.T) {
	t.Parallel() // it lasts, and does little
	tables := openTables(t, filepath.Join(t.TempDir(), "inventory.db"))
	shop := openShop(t, tables)
	forever, err := lockstep.New(tables.prices, lockstep.Options[string, Price]{})
	if err != nil {
		t.Fatal(err)
	}
	if err := shop.prices.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	shop.prices = forever
	if faults := shownPrices(t, tables, shop); len(faults) == 0 {
		t.Error("old prices were shown for ever, and nobody has noticed")
	}
}

// The list is somebody else's.
func TestTheShopDoesNotWritePrices(t *testing.T) {
	for name, store := range map[string]string{"SQLite": filepath.Join(t.TempDir(), "inventory.db"), "PostgreSQL": dbtest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			shop := openShop(t, openTables(t, store))
			if _, err := shop.prices.Set(t.Context(), lamp, Price{1}); !errors.Is(err, lockstep.ErrUnsupported) {
				t.Errorf("a price was written: %v", err)
			}
			if _, err := shop.Price(t.Context(), "lump"); !errors.Is(err, ErrNoSuchItem) || strings.Contains(err.Error(), "lockstep") {
				t.Errorf("what is not on the list: %v", err)
			}
		})
	}
}

package main

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

var seedFlag = flag.Uint64("inventory.seed", 0, "the seed of the days in the shop; 0 draws one")

// aSeed is printed when the test fails.
func aSeed(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("again: go test -race -run '%s' ./examples/inventory -inventory.seed %d", t.Name(), seed)
	return seed
}

func TestNothingIsOversoldOnADayOfFaults(t *testing.T) {
	for name, way := range map[string]func(*Shop) reserving{
		"by Update":    func(s *Shop) reserving { return s.ReserveByUpdate },
		"by IfVersion": func(s *Shop) reserving { return s.ReserveByVersion },
	} {
		t.Run(name, func(t *testing.T) {
			everyDatabase(t, func(t *testing.T, tables *Tables) {
				seed := aSeed(t)
				play := tables.inject(seed)
				shop := openShop(t, tables)
				priced(t, tables, 20_00)
				for _, f := range day(t, shop, counter{way(shop), shop.Checkout}, seed, play) {
					t.Error(f)
				}
				if shop.stock.Stats().Unknown == 0 {
					t.Error("no outcome was unknown: the day has tested nothing")
				}
			})
		})
	}
}

func TestAFlashSaleToAThousandBuyers(t *testing.T) {
	everyDatabase(t, func(t *testing.T, tables *Tables) {
		shop := openShop(t, tables)
		priced(t, tables, 20_00)
		if err := shop.Stock(t.Context(), lamp, 50); err != nil {
			t.Fatal(err)
		}
		sale := &Sale{Shop: shop, Item: lamp, Units: 50, Buyers: 1000, Reserve: shop.ReserveByUpdate, Seed: aSeed(t)}
		if err := sale.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		v, err := shop.Inventory(t.Context(), lamp)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range append(v.Faults(50), memory(t.Context(), t, shop)...) {
			t.Error(f)
		}
		if sold := int(sale.Sold.Load()); v.Sold != sold || v.Orders != sold || v.Held != 0 || v.Earned != Cents(sold)*20_00 {
			t.Errorf("%d have bought a lamp for 20.00 each, and the inventory is %+v", sold, v)
		}
		if v.Sold < 40 {
			t.Errorf("only %d of 50 were sold to 1000 buyers", v.Sold)
		}
	})
}

func TestHolds(t *testing.T) {
	now := time.Now()
	hold := func(units int, left time.Duration) Hold { return Hold{Units: units, Until: now.Add(left)} }
	s := Stock{OnHand: 5, Holds: map[string]Hold{"a": hold(2, time.Minute), "b": hold(2, -time.Second)}}
	if got := s.Available(now); got != 3 {
		t.Errorf("%d are available; want 3, as the hold of b is over", got)
	}
	if _, err := s.hold("c", hold(4, time.Minute), now); !errors.Is(err, ErrSoldOut) {
		t.Errorf("4 of 3: %v; want ErrSoldOut", err)
	}
	if _, err := s.hold("a", hold(1, time.Minute), now); !errors.Is(err, lockstep.Keep) {
		t.Errorf("a asks again: %v; want Keep", err)
	}
	next, err := s.hold("c", hold(3, time.Minute), now)
	if err != nil || next.Available(now) != 0 || len(next.Holds) != 2 {
		t.Errorf("3 of 3: %+v, %v", next, err)
	}
	if len(s.Holds) != 2 || len(s.without("a").Holds) != 1 || len(s.Holds) != 2 {
		t.Errorf("the rule has changed what it was given: %+v", s)
	}
}

func TestAHoldThatMadeRoomIsNotSold(t *testing.T) {
	everyDatabase(t, func(t *testing.T, tables *Tables) {
		shop := openShop(t, tables)
		ctx := t.Context()
		priced(t, tables, 20_00)
		over := Hold{Units: 1, Price: 10_00, Until: time.Now().Add(-time.Second)}
		if _, err := shop.stock.Set(ctx, lamp, Stock{OnHand: 1, Holds: map[string]Hold{"slow": over}}); err != nil {
			t.Fatal(err)
		}
		if _, err := shop.ReserveByUpdate(ctx, "quick", lamp, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := shop.Checkout(ctx, "slow", lamp); !errors.Is(err, ErrNoHold) {
			t.Errorf("the slow one pays: %v; want ErrNoHold", err)
		}
		for range 2 { // the second time nothing happens
			if o, err := shop.Checkout(ctx, "quick", lamp); err != nil || o != (Order{lamp, 1, 20_00}) {
				t.Errorf("the quick one pays: %+v, %v", o, err)
			}
		}
		if v, err := shop.Inventory(ctx, lamp); err != nil || v != (Inventory{Sold: 1, Orders: 1, Earned: 20_00}) {
			t.Errorf("%+v, %v", v, err)
		}
		for _, reserve := range []reserving{shop.ReserveByUpdate, shop.ReserveByVersion} {
			if _, err := reserve(ctx, "late", lamp, 1); !errors.Is(err, ErrSoldOut) {
				t.Errorf("late: %v; want ErrSoldOut", err)
			}
			if _, err := reserve(ctx, "wrong", "lump", 1); !errors.Is(err, ErrNoSuchItem) {
				t.Errorf("lump: %v; want ErrNoSuchItem", err)
			}
			if _, err := reserve(ctx, "none", lamp, 0); err == nil {
				t.Error("0 units were reserved")
			}
		}
	})
}

func TestACountIsWorthNothingOnceSomethingWasPromised(t *testing.T) {
	everyDatabase(t, func(t *testing.T, tables *Tables) {
		shop := openShop(t, tables)
		ctx := t.Context()
		priced(t, tables, 20_00)
		if err := shop.Stock(ctx, lamp, 3); err != nil {
			t.Fatal(err)
		}
		if err := shop.Stock(ctx, lamp, 5); !errors.Is(err, lockstep.ErrConflict) {
			t.Errorf("a shelf that is there: %v; want ErrConflict", err)
		}
		seen, err := shop.Look(ctx, lamp)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := shop.ReserveByVersion(ctx, "a", lamp, 2); err != nil {
			t.Fatal(err)
		}
		if err := shop.Recount(ctx, seen, 7); !errors.Is(err, lockstep.ErrConflict) {
			t.Errorf("a count from before the promise: %v; want ErrConflict", err)
		}
		if seen, err = shop.Look(ctx, lamp); err != nil {
			t.Fatal(err)
		}
		if err := shop.Recount(ctx, seen, 1); err == nil || !strings.Contains(err.Error(), "2 units of lamp are held") {
			t.Errorf("less than what is promised: %v", err)
		}
		if err := shop.Recount(ctx, seen, 7); err != nil {
			t.Fatal(err)
		}
		if left, err := shop.Available(ctx, lamp); left != 5 || err != nil {
			t.Errorf("%d are available, %v; want 5", left, err)
		}
	})
}

// The program as it is run, twice on the same tables.
func TestProgram(t *testing.T) {
	for name, store := range map[string]string{"SQLite": filepath.Join(t.TempDir(), "inventory.db"), "PostgreSQL": dbtest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				var out bytes.Buffer
				if err := run(t.Context(), []string{"-store", store, "-buyers", "20", "-units", "4"}, &out); err != nil {
					t.Fatalf("%v\n%s", err, out.String())
				}
				for _, want := range []string{"seed ", "20 buyers, 4 units", "Nothing was oversold"} {
					if !strings.Contains(out.String(), want) {
						t.Errorf("%q is not in what it says:\n%s", want, out.String())
					}
				}
				for line := range strings.Lines(out.String()) {
					if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
						t.Errorf("%d columns: %s", n, line)
					}
				}
			}
		})
	}
	for args, want := range map[string]string{
		"-units 0":          "-units",
		"-buyers -5":        "-buyers",
		"inventory.db":      `"inventory.db" is no flag`,
		"-store /no/where/": "/no/where",
		"-store mysql://x":  "mysql://",
	} {
		if err := run(t.Context(), strings.Fields(args), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", args, err, want)
		}
	}
}

// Inventory is an example of Lockstep: a shop in which nothing is sold that is not there,
// while a thousand people want the same thing, and with a price list that another program
// writes. See README.md.
//
//	go run ./examples/inventory
//	go run ./examples/inventory -store postgres://localhost/test
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "inventory:", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("inventory", flag.ContinueOnError)
	store := flags.String("store", "", "a SQLite file, which stays, or a postgres:// `URL` (tables inventory_…); a temporary file if empty")
	buyers := flags.Int("buyers", 1000, "how many come to each sale")
	units := flags.Int("units", 100, "how many units there are in each sale")
	seed := flags.Uint64("seed", 0, "what the buyers do; 0 draws one")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("%q is no flag; -help lists them", flags.Arg(0))
	case *buyers < 1 || *units < 1:
		return errors.New("-buyers and -units have to be above zero")
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	if *store == "" {
		dir, err := os.MkdirTemp("", "inventory-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		*store = filepath.Join(dir, "inventory.db")
	}

	tables, err := OpenTables(ctx, *store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tables.Close()) }()
	shop, err := NewShop(tables)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shop.Close(context.WithoutCancel(ctx))) }()

	fmt.Fprintf(out, "seed %d\n", *seed)
	page := &page{out: out, terminal: isTerminal(out)}
	var results []result
	for _, way := range []struct {
		name    string
		reserve reserving
	}{{"by Update", shop.ReserveByUpdate}, {"by IfVersion", shop.ReserveByVersion}} {
		// A store that stays has the items of other runs.
		item := fmt.Sprintf("lamp %d", time.Now().UnixNano())
		sale := &Sale{Shop: shop, Item: item, Units: *units, Buyers: *buyers, Reserve: way.reserve, Seed: *seed}
		r, err := open(ctx, tables, sale, way.name, page)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	return page.results(results)
}

// open is one sale from the first unit on the shelf to the inventory in the evening.
func open(ctx context.Context, tables *Tables, sale *Sale, name string, page *page) (result, error) {
	erp := &priceWriter{set: tables.setPrice, item: sale.Item}
	if err := erp.change(ctx); err != nil {
		return result{}, err
	}
	if err := sale.Shop.Stock(ctx, sale.Item, sale.Units); err != nil {
		return result{}, err
	}
	before, prices, began := sale.Shop.stock.Stats(), sale.Shop.prices.Stats(), time.Now()
	stopChanges := erp.keepChanging(ctx)
	stopProgress := page.progress(name, sale)
	err := sale.Run(ctx)
	took := time.Since(began)
	stopProgress()
	stopChanges()
	if err != nil {
		return result{}, err
	}
	inventory, err := sale.Shop.Inventory(ctx, sale.Item)
	if err != nil {
		return result{}, err
	}
	faults := inventory.Faults(sale.Units)
	if sold := int(sale.Sold.Load()); sold != inventory.Sold || inventory.Held > 0 {
		faults = append(faults, fmt.Sprintf("%d buyers have paid, %d units are sold, and %d held for nobody", sold, inventory.Sold, inventory.Held))
	}
	after, pricesAfter := sale.Shop.stock.Stats(), sale.Shop.prices.Stats()
	ahead := int64(pricesAfter.RefreshesAhead - prices.RefreshesAhead)
	return result{
		name: name, sale: sale, inventory: inventory, faults: faults, took: took,
		conflicts: after.Conflicts - before.Conflicts,
		writes:    after.Writes - before.Writes,
		hits:      100 * float64(after.Hits-before.Hits) / max(1, float64(after.Hits-before.Hits+after.Misses-before.Misses)),
		prices:    erp.changes,
		ahead:     ahead,
		waited:    max(0, int64(pricesAfter.Loads-prices.Loads)-ahead), // one load may be under way
	}, nil
}

// priceWriter is the other program, which changes the price of an item by SQL.
type priceWriter struct {
	set     func(ctx context.Context, item string, price Cents) error
	item    string
	changes int
}

func (w *priceWriter) change(ctx context.Context) error {
	err := w.set(ctx, w.item, 20_00-Cents(w.changes+1))
	if err == nil {
		w.changes++
	}
	return err
}

// keepChanging changes the price every tenth of a second until stop is called.
func (w *priceWriter) keepChanging(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var changing sync.WaitGroup
	changing.Go(func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			// What cannot be changed now is changed the next time.
			_ = w.change(ctx)
		}
	})
	return func() {
		cancel()
		changing.Wait()
	}
}

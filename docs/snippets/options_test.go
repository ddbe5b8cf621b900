package snippets

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/journal"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

var alone = lockstep.Options[string, User]{} // 100,000 entries, for as long as there is room

var besideOthers = lockstep.Options[string, User]{
	TTL:          30 * time.Second, // what others write is seen after that long
	StaleIfError: 10 * time.Minute, // GetEntry may tell what it was, while the database is away
}

var money = lockstep.Options[string, int64]{
	AuditInterval: 100 * time.Millisecond, // 2,560 copies a second are compared with their rows
	CommitTimeout: 3 * time.Second,        // a customer does not wait longer to be told that it is not known
	QueueLimit:    2_000,                  // beyond it a write fails at once
}

var uploads = lockstep.Options[string, Photo]{Mode: lockstep.WriteAround}

var reporting = lockstep.Options[int64, Account]{Mode: lockstep.ReadOnly, TTL: time.Minute}

var viewCounts = lockstep.Options[string, int64]{
	Mode: lockstep.WriteBehind,
	Behind: lockstep.Behind[string, int64]{
		MaxWrites: 10_000,      // what a crash may lose, at most
		MaxDelay:  time.Second, // the longer, the more writes of one key become one
	},
	Hooks: lockstep.Hooks[string]{
		Rejected: func(e lockstep.RejectedEvent[string]) { log.Print("acknowledged, and refused: ", e) },
	},
}

func openKept(ctx context.Context, db *sqlitestore.Database, dir string) (*lockstep.Cache[string, int64], *journal.Journal[string, int64], error) {
	rows, err := sqlitestore.OpenIn[string, int64](ctx, db, sqlitestore.Options{Table: "views"})
	if err != nil {
		return nil, nil, err
	}
	positions, err := sqlitestore.OpenIn[string, int64](ctx, db, sqlitestore.Options{Table: "journal_positions"})
	if err != nil {
		return nil, nil, err
	}
	kept, err := journal.Open(ctx, dir, journal.Options[string, int64]{Positions: positions})
	if err != nil {
		return nil, nil, err
	}
	cache, err := lockstep.New(rows, lockstep.Options[string, int64]{
		Mode:   lockstep.WriteBehind,
		Behind: lockstep.Behind[string, int64]{Journal: kept},
	})
	if err != nil {
		return nil, nil, errors.Join(err, kept.Close())
	}
	return cache, kept, nil
}

type prices struct {
	db    *sql.DB
	cache *lockstep.Cache[string, int64]
}

func openPrices(db *sql.DB) (*prices, error) {
	cache, err := lockstep.New(lockstep.ByHand[string, int64](), lockstep.Options[string, int64]{
		Mode: lockstep.CacheAside,
		TTL:  time.Minute,
	})
	return &prices{db, cache}, err
}

func (p *prices) of(ctx context.Context, item string) (int64, error) {
	return p.cache.GetWith(ctx, item, func(ctx context.Context) (cents int64, err error) {
		err = p.db.QueryRowContext(ctx, "SELECT cents FROM prices WHERE item = ?", item).Scan(&cents)
		if errors.Is(err, sql.ErrNoRows) {
			err = lockstep.ErrNotFound
		}
		return cents, err
	})
}

func (p *prices) set(ctx context.Context, item string, cents int64) error {
	return p.cache.WriteWith(ctx, []string{item}, func(ctx context.Context) error {
		_, err := p.db.ExecContext(ctx, "INSERT OR REPLACE INTO prices VALUES (?, ?)", item, cents)
		return err
	})
}

func TestCacheAside(t *testing.T) {
	ctx := t.Context()
	db := database(t)
	execute(t, db, "CREATE TABLE prices (item TEXT PRIMARY KEY, cents INTEGER NOT NULL)")
	program, err := sql.Open("sqlite", db.Path())
	check(t, err)
	defer program.Close()
	p, err := openPrices(program)
	check(t, err)
	defer p.cache.Close(ctx)
	_, err = p.of(ctx, "lamp")
	equal(t, errors.Is(err, lockstep.ErrNotFound), true)
	for _, want := range []int64{1200, 1300} {
		check(t, p.set(ctx, "lamp", want))
		got, err := p.of(ctx, "lamp")
		check(t, err)
		equal(t, got, want)
	}
}

func TestJournal(t *testing.T) {
	ctx := t.Context()
	db := database(t)
	views, kept, err := openKept(ctx, db, t.TempDir())
	check(t, err)
	_, err = views.Set(ctx, "page", 1)
	check(t, err)
	check(t, views.Close(ctx))
	check(t, kept.Close())
	page, err := cached(t, db, "views", lockstep.Options[string, int64]{}).Get(ctx, "page")
	check(t, err)
	equal(t, page, 1)
}

func TestModes(t *testing.T) {
	ctx := t.Context()
	photos := open(t, memstore.New(memstore.Options[string, Photo]{}), uploads)
	_, err := photos.Set(ctx, "cat", Photo{Title: "a cat"})
	check(t, err)
	_, ok := photos.Peek("cat")
	equal(t, ok, false)

	accounts := open(t, memstore.New(memstore.Options[int64, Account]{}), reporting)
	_, err = accounts.Set(ctx, 1, Account{})
	equal(t, errors.Is(err, lockstep.ErrUnsupported), true)

	store := memstore.New(memstore.Options[string, int64]{})
	counts := open(t, store, viewCounts)
	_, err = counts.Set(ctx, "page", 1)
	check(t, err)
	views, err := counts.Get(ctx, "page")
	check(t, err)
	equal(t, views, 1)
	check(t, counts.Flush(ctx))
	rows, err := store.Load(ctx, []string{"page"})
	check(t, err)
	equal(t, rows["page"].Value, 1)
	_, err = counts.Update(ctx, "page", func(n int64, exists bool) (int64, error) { return n + 1, nil })
	equal(t, errors.Is(err, lockstep.ErrUnsupported), true)
}

func TestOptions(t *testing.T) {
	open(t, memstore.New(memstore.Options[string, User]{}), alone)
	open(t, memstore.New(memstore.Options[string, User]{}), besideOthers)
	open(t, memstore.New(memstore.Options[string, int64]{}), money)
}

package snippets

import (
	"errors"
	"log"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
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

package pgstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// A cache is not told of its own changes, of whatever kind they are, so that what it
// has written stays in memory. It is told of all others, of those of another cache of
// the same process too.
func TestAChangeOfOurOwnIsNotTold(t *testing.T) {
	url := dbtest.Postgres(t)
	db := openPool(t, url)
	execute(t, url, `CREATE TABLE people `+people)
	execute(t, url, `CREATE TABLE plain (id int PRIMARY KEY, name text NOT NULL, n bigint NOT NULL)`)
	install(t, db, "people", pgstore.WatchOptions{VersionColumn: "version"})
	install(t, db, "plain", pgstore.WatchOptions{})
	rows := func() lockstep.Store[int, person] {
		s, err := pgstore.OpenIn[int, person](t.Context(), db, pgstore.Options{Table: "rows"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	rows()
	install(t, db, "rows", pgstore.WatchOptions{})
	t.Run("KeyValue", func(t *testing.T) {
		ownChanges(t, rows(), rows(), func(n int64) person { return person{"ours", n} })
	})
	t.Run("WithVersion", func(t *testing.T) {
		ownChanges(t, openPeople[versioned](t, db, "people"), openPeople[versioned](t, db, "people"),
			func(n int64) versioned { return versioned{Name: "ours", N: n} })
	})
	t.Run("WithoutVersion", func(t *testing.T) {
		ownChanges(t, openPeople[person](t, db, "plain"), openPeople[person](t, db, "plain"), func(n int64) person { return person{"ours", n} })
	})
}

func ownChanges[V comparable](t *testing.T, s, other lockstep.Store[int, V], value func(n int64) V) {
	cache, another := watchedCache(t, s), watchedCache(t, other)
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(cache.Set(ctx, 1, value(1)))
	if s.Capabilities().Versions {
		must(cache.Set(ctx, 2, value(2), lockstep.IfAbsent()))
	} else {
		must(cache.Set(ctx, 2, value(2)))
	}
	must(cache.Set(ctx, 1, value(3)))
	must(cache.Update(ctx, 2, func(V, bool) (V, error) { return value(4), nil }))
	must(cache.Delete(ctx, 1))
	must(cache.Delete(ctx, 1))
	must(cache.Set(ctx, 1, value(5)))
	must(nil, cache.SetMany(ctx, map[int]V{3: value(6), 4: value(7)}))
	must(nil, lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		c := cache.In(tx)
		if _, err := c.Get(ctx, 2); err != nil {
			return err
		}
		return errors.Join(c.Set(ctx, 5, value(8)), c.Delete(ctx, 3))
	}))
	for _, key := range []int{1, 2, 4, 5} {
		if _, ok := cache.Peek(key); !ok {
			t.Errorf("key %d, which the cache has written, has left memory", key)
		}
	}
	// One of two caches, by Begin and Apply.
	must(nil, lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		return errors.Join(cache.In(tx).Set(ctx, 6, value(6)), another.In(tx).Set(ctx, 7, value(7)))
	}))
	must(another.Set(ctx, 9, value(9)))
	warm(t, cache, 9, got(t, another, 9))
	must(another.Set(ctx, 9, value(10)))
	told(t, cache, 9, got(t, another, 9))
	// Of 7, twice of 9 and twice of 10. They are told in order: the last one comes behind
	// any that ought not to be told.
	must(another.Set(ctx, 10, value(11)))
	must(another.Set(ctx, 10, value(12)))
	eventually(t, "all changes have been told", func() bool { return cache.Stats().OutsideChanges >= 5 })
	if n := cache.Stats().OutsideChanges; n != 5 {
		t.Errorf("the cache was told of %d changes, and five were made by others", n)
	}
}

func got[V any](t testing.TB, cache *lockstep.Cache[int, V], key int) V {
	t.Helper()
	v, err := cache.Get(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

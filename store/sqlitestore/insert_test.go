package sqlitestore_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// Serial keys, with what the schema makes of a new row.
func TestInsertIntoASerialTable(t *testing.T) {
	type User struct {
		ID    int64  `db:"id"`
		Email string `db:"email"`
		Made  string `db:"made,readonly"`
		Upper string `db:"upper,readonly"`
		Seen  int64  `db:"seen,readonly"`
	}
	for _, kind := range []string{"INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"} {
		t.Run(kind, func(t *testing.T) {
			db := openDatabase(t, newFile(t))
			execute(t, db.Path(), `CREATE TABLE users (id `+kind+`, email TEXT NOT NULL UNIQUE, made TEXT NOT NULL DEFAULT 'today',
				upper TEXT GENERATED ALWAYS AS (upper(email)) VIRTUAL, seen INTEGER NOT NULL DEFAULT 0)`)
			execute(t, db.Path(), `CREATE TRIGGER seeing AFTER INSERT ON users BEGIN UPDATE users SET seen = new.id * 10 WHERE id = new.id; END`)
			store, err := sqlitestore.NewTable[int64, User](t.Context(), db, "users", sqlitestore.TableOptions{})
			if err != nil {
				t.Fatal(err)
			}
			cache := cachetest.Open(t, store, lockstep.Options[int64, User]{})
			if _, err := cache.Get(t.Context(), 1); !errors.Is(err, lockstep.ErrNotFound) {
				t.Fatal(err)
			}
			key, _, err := cache.Insert(t.Context(), User{Email: "a@x"})
			want := User{ID: 1, Email: "a@x", Made: "today", Upper: "A@X", Seen: 10}
			if got, ok := cache.Peek(key); err != nil || key != 1 || !ok || got != want {
				t.Fatalf("Insert = %d, %v, and memory has %+v, %t", key, err, got, ok)
			}
			// Refused: what another row has, and a key that the caller would give.
			if _, _, err := cache.Insert(t.Context(), User{Email: "a@x"}); !errors.Is(err, lockstep.ErrInvalid) {
				t.Errorf("a second row with that email: %v", err)
			}
			if _, _, err := cache.Insert(t.Context(), User{ID: 7, Email: "b@x"}); !errors.Is(err, lockstep.ErrInvalid) {
				t.Errorf("a row with a key of the caller's: %v", err)
			}
			// Many at once, of which some have the same email.
			var all sync.WaitGroup
			var mu sync.Mutex
			keys := map[int64]string{}
			for i := range 30 {
				all.Go(func() {
					email := fmt.Sprint(i % 20)
					key, _, err := cache.Insert(t.Context(), User{Email: email})
					if err != nil && !errors.Is(err, lockstep.ErrInvalid) {
						t.Error(err)
					}
					if err == nil {
						mu.Lock()
						defer mu.Unlock()
						keys[key] = email
					}
				})
			}
			all.Wait()
			if len(keys) != 20 {
				t.Errorf("%d of 20 rows were inserted", len(keys))
			}
			for key, email := range keys {
				if got, err := cache.Get(t.Context(), key); err != nil || got.Email != email || got.ID != key || got.Seen != 10*key {
					t.Errorf("key %d = %+v, %v, want %s", key, got, err, email)
				}
			}
		})
	}
}

// SQLite gives the key of the last row again when that is gone.
func TestAKeyIsGivenAgain(t *testing.T) {
	type V struct {
		N int `db:"n"`
	}
	db := openDatabase(t, newFile(t))
	execute(t, db.Path(), `CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, version INTEGER NOT NULL)`)
	store, err := sqlitestore.NewTable[int64, V](t.Context(), db, "t", sqlitestore.TableOptions{VersionColumn: "version"})
	if err != nil {
		t.Fatal(err)
	}
	cache := cachetest.Open(t, store, lockstep.Options[int64, V]{})
	last := lockstep.Version(0)
	for n := range 20 {
		key, version, err := cache.Insert(t.Context(), V{n})
		if err != nil || key != 1 || version <= last {
			t.Fatalf("Insert = %d, %d, %v after version %d", key, version, err, last)
		}
		if got, err := cache.Get(t.Context(), 1); err != nil || got.N != n {
			t.Errorf("Get = %+v, %v, want %d", got, err, n)
		}
		if existed, err := cache.Delete(t.Context(), 1); err != nil || !existed {
			t.Fatal(existed, err)
		}
		if _, err := cache.Get(t.Context(), 1); !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("after the deletion: %v", err)
		}
		last = version
	}
}

func TestATableWhoseKeysTheCallerGives(t *testing.T) {
	type V struct {
		N int `db:"n"`
	}
	for _, key := range []string{"id INTEGER PRIMARY KEY DESC NOT NULL, n INTEGER", "id INTEGER, n INTEGER, PRIMARY KEY (id)) WITHOUT ROWID", "id INT PRIMARY KEY NOT NULL, n INTEGER"} {
		db := openDatabase(t, newFile(t))
		if key[len(key)-1] != 'D' {
			key += ")"
		}
		execute(t, db.Path(), "CREATE TABLE t ("+key)
		store, err := sqlitestore.NewTable[int64, V](t.Context(), db, "t", sqlitestore.TableOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cache := cachetest.Open(t, store, lockstep.Options[int64, V]{})
		if _, _, err := cache.Insert(t.Context(), V{1}); !errors.Is(err, lockstep.ErrUnsupported) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

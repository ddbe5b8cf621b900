package snippets

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/rows"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

func ownTables(ctx context.Context, path string) error {
	db, err := sqlitestore.OpenDatabase(ctx, path, sqlitestore.DatabaseOptions{})
	if err != nil {
		return err
	}
	defer db.Close()
	users, err := sqlitestore.OpenIn[string, User](ctx, db, sqlitestore.Options{Table: "users"})
	if err != nil {
		return err
	}
	sessions, err := sqlitestore.OpenIn[string, Session](ctx, db, sqlitestore.Options{
		Table: "sessions",
		Codec: codec.CBOR[Session](),
	})
	if err != nil {
		return err
	}
	if users.Database() != sessions.Database() {
		return errors.New("they are in two databases")
	}
	return nil
}

type Session struct {
	User  string    `json:"user"`
	Began time.Time `json:"began"`
}

type Account struct {
	Owner   string           `db:"owner"`
	Balance int64            `db:"balance"`
	Version lockstep.Version `db:"version,version"`
}

type Place struct {
	Shelf string `db:"shelf"`
	Bin   int64  `db:"bin"`
}

type Stored struct {
	Item   string            `db:"item"`
	Count  int64             `db:"count"`
	Labels map[string]string `db:"labels,json"`
	Seen   *time.Time        `db:"seen,unixmilli"` // may be NULL
	Made   string            `db:"made,readonly"`  // read, and never written
}

func mapped(ctx context.Context, db *sqlitestore.Database) error {
	table, err := sqlitestore.NewTable[int64, Account](ctx, db, "accounts", sqlitestore.TableOptions{})
	if err != nil {
		return err // every column that does not fit is named
	}
	accounts, err := lockstep.New(table, lockstep.Options[int64, Account]{})
	if err != nil {
		return err
	}
	defer accounts.Close(ctx)
	version, err := accounts.Set(ctx, 1, Account{Owner: "ada", Balance: 100})
	if err != nil {
		return err
	}
	ada, err := accounts.Get(ctx, 1)
	if err == nil && (ada.Version != version || ada.Balance != 100) {
		return fmt.Errorf("%+v", ada)
	}
	return err
}

func severalColumns(ctx context.Context, db *sqlitestore.Database) error {
	table, err := sqlitestore.NewTable[Place, Stored](ctx, db, "places", sqlitestore.TableOptions{})
	if err != nil {
		return err
	}
	places, err := lockstep.New(table, lockstep.Options[Place, Stored]{})
	if err != nil {
		return err
	}
	defer places.Close(ctx)
	at := Place{Shelf: "A", Bin: 7}
	if _, err = places.Set(ctx, at, Stored{Item: "lamp", Count: 3, Labels: map[string]string{"color": "red"}}); err != nil {
		return err
	}
	stored, err := places.Get(ctx, at)
	if err == nil && (stored.Made == "" || stored.Labels["color"] != "red") {
		return fmt.Errorf("%+v", stored)
	}
	// Without a version, and so without conditions by version.
	if _, err := places.Set(ctx, at, stored, lockstep.IfVersion(1)); !errors.Is(err, lockstep.ErrUnsupported) {
		return fmt.Errorf("IfVersion: %w", err)
	}
	_, err = places.Update(ctx, at, func(s Stored, exists bool) (Stored, error) {
		s.Count--
		return s, nil
	})
	return err
}

func unknownColumns(ctx context.Context, db *sqlitestore.Database) error {
	table, err := sqlitestore.NewTable[rows.Key, rows.Row](ctx, db, "places", sqlitestore.TableOptions{})
	if err != nil {
		return err
	}
	places, err := lockstep.New(table, lockstep.Options[rows.Key, rows.Row]{})
	if err != nil {
		return err
	}
	defer places.Close(ctx)
	row, err := places.Get(ctx, rows.JoinKey("A", "7")) // the text of each column of the key
	if err != nil {
		return err
	}
	fields, err := row.Fields()
	if err != nil {
		return err
	}
	for _, f := range fields { // columns that are NULL are not among them
		fmt.Println(f.Name, "=", f.Text)
	}
	return nil
}

func TestStores(t *testing.T) {
	ctx := t.Context()
	db := database(t)
	makeAccounts(t, db)
	execute(t, db, `CREATE TABLE places (shelf TEXT NOT NULL, bin INTEGER NOT NULL, item TEXT NOT NULL, count INTEGER NOT NULL,
		labels TEXT NOT NULL, seen INTEGER, made TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (shelf, bin))`)
	check(t, ownTables(ctx, db.Path()+"2"))
	check(t, mapped(ctx, db))
	check(t, severalColumns(ctx, db))
	check(t, unknownColumns(ctx, db))
}

type files struct {
	mu   sync.Mutex
	text map[string]string
}

func (f *files) Read(ctx context.Context, name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text, ok := f.text[name]
	if !ok {
		return "", lockstep.ErrNotFound
	}
	return text, nil
}

func (f *files) Write(ctx context.Context, name, text string) error {
	return f.WriteBatch(ctx, map[string]string{name: text})
}

func (f *files) WriteBatch(ctx context.Context, texts map[string]string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, text := range texts {
		f.text[name] = text
	}
	return nil
}

func (f *files) Delete(ctx context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.text, name)
	return nil
}

func cacheFiles(f *files) (*lockstep.Cache[string, string], error) {
	return lockstep.New(lockstep.FromDataStore(f), lockstep.Options[string, string]{})
}

func TestDataStore(t *testing.T) {
	ctx := t.Context()
	cache, err := cacheFiles(&files{text: map[string]string{}})
	check(t, err)
	defer cache.Close(ctx)
	_, err = cache.Set(ctx, "a", "b")
	check(t, err)
	text, err := cache.Get(ctx, "a")
	check(t, err)
	equal(t, text, "b")
	_, err = cache.Update(ctx, "a", func(text string, exists bool) (string, error) { return text, nil })
	equal(t, errors.Is(err, lockstep.ErrUnsupported), true)
}

package snippets

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

type oldAccounts struct {
	db    *sql.DB
	mu    sync.Mutex
	cache map[int64]int64
}

func (a *oldAccounts) balance(ctx context.Context, id int64) (int64, error) {
	a.mu.Lock()
	balance, ok := a.cache[id]
	a.mu.Unlock()
	if ok {
		return balance, nil
	}
	err := a.db.QueryRowContext(ctx, "SELECT balance FROM accounts WHERE id = ?", id).Scan(&balance)
	if err != nil {
		return 0, err
	}
	a.mu.Lock()
	a.cache[id] = balance // perhaps from before a write that has deleted the entry meanwhile
	a.mu.Unlock()
	return balance, nil
}

func (a *oldAccounts) deposit(ctx context.Context, id, amount int64) error {
	_, err := a.db.ExecContext(ctx, "UPDATE accounts SET balance = balance + ? WHERE id = ?", amount, id)
	if err != nil {
		return err // perhaps it was committed; then the cache is wrong from now on
	}
	a.mu.Lock()
	delete(a.cache, id)
	a.mu.Unlock()
	return nil
}

type newAccounts struct {
	cache *lockstep.Cache[int64, Account]
}

func (a *newAccounts) balance(ctx context.Context, id int64) (int64, error) {
	account, err := a.cache.Get(ctx, id)
	return account.Balance, err
}

func (a *newAccounts) deposit(ctx context.Context, id, amount int64) error {
	_, err := a.cache.Update(ctx, id, func(account Account, exists bool) (Account, error) {
		if !exists {
			return account, lockstep.ErrNotFound
		}
		account.Balance += amount
		return account, nil
	})
	return err
}

func TestMigrating(t *testing.T) {
	ctx := t.Context()
	db := database(t)
	makeAccounts(t, db)
	execute(t, db, "INSERT INTO accounts (id, owner, balance) VALUES (1, 'ada', 100)")
	program, err := sql.Open("sqlite", db.Path())
	check(t, err)
	defer program.Close()
	before := &oldAccounts{db: program, cache: map[int64]int64{}}
	table, err := sqlitestore.NewTable[int64, Account](ctx, db, "accounts", sqlitestore.TableOptions{})
	check(t, err)
	after := &newAccounts{open(t, table, lockstep.Options[int64, Account]{})}
	type accounts interface {
		balance(ctx context.Context, id int64) (int64, error)
		deposit(ctx context.Context, id, amount int64) error
	}
	for _, a := range []accounts{before, after} {
		was, err := a.balance(ctx, 1)
		check(t, err)
		check(t, a.deposit(ctx, 1, 10))
		is, err := a.balance(ctx, 1)
		check(t, err)
		equal(t, is, was+10)
	}
	equal(t, errors.Is(after.deposit(ctx, 2, 1), lockstep.ErrNotFound), true)
	check(t, halfWay(ctx, after.cache, program))
}

func halfWay(ctx context.Context, accounts *lockstep.Cache[int64, Account], db *sql.DB) error {
	id := int64(1)
	_, err := db.ExecContext(ctx, "UPDATE accounts SET balance = 0, version = version + 1 WHERE id = ?", id)
	accounts.Invalidate(id) // whatever the error is
	if err != nil {
		return err
	}
	account, err := accounts.Get(ctx, id)
	if err == nil && account.Balance != 0 {
		return errors.New("the old balance")
	}
	return err
}

type sessionStore struct {
	sessions *lockstep.Cache[string, Session]
}

func (s *sessionStore) begin(ctx context.Context, token, user string) error { // SET token … EX 1800
	_, err := s.sessions.Set(ctx, token, Session{User: user, Began: time.Now()}, lockstep.Lifetime(30*time.Minute))
	return err
}

func (s *sessionStore) user(ctx context.Context, token string) (string, error) { // GET token
	session, err := s.sessions.Get(ctx, token)
	if errors.Is(err, lockstep.ErrNotFound) {
		return "", nil // nobody is signed in
	}
	return session.User, err
}

func (s *sessionStore) end(ctx context.Context, token string) error { // DEL token
	_, err := s.sessions.Delete(ctx, token)
	return err
}

func TestSessions(t *testing.T) {
	ctx := t.Context()
	s := &sessionStore{cached(t, database(t), "sessions", lockstep.Options[string, Session]{})}
	check(t, s.begin(ctx, "token", "ada"))
	user, err := s.user(ctx, "token")
	check(t, err)
	equal(t, user, "ada")
	check(t, s.end(ctx, "token"))
	user, err = s.user(ctx, "token")
	check(t, err)
	equal(t, user, "")
}

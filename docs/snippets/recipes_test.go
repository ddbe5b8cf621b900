package snippets

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

type Person struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

type directory struct {
	people *lockstep.Cache[string, Person] // by id
	emails *lockstep.Cache[string, string] // the id, by email; its store shares the Database of the other
}

var errTaken = errors.New("this address has an account already")

func (d *directory) put(ctx context.Context, id string, person Person) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		people, emails := d.people.In(tx), d.emails.In(tx)
		old, err := people.Get(ctx, id)
		if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
			return err
		}
		if old.Email != person.Email {
			if old.Email != "" {
				if err := emails.Delete(ctx, old.Email); err != nil {
					return err
				}
			}
			if err := emails.Set(ctx, person.Email, id, lockstep.IfAbsent()); errors.Is(err, lockstep.ErrConflict) {
				return errTaken
			} else if err != nil {
				return err
			}
		}
		return people.Set(ctx, id, person)
	})
}

func (d *directory) byEmail(ctx context.Context, email string) (Person, error) {
	id, err := d.emails.Get(ctx, email)
	if err != nil {
		return Person{}, err // ErrNotFound: nobody has this address
	}
	person, err := d.people.Get(ctx, id)
	if err == nil && person.Email != email {
		return Person{}, lockstep.ErrNotFound // it was given up between the two reads
	}
	return person, err
}

type Member struct {
	Name  string `db:"name"`
	Email string `db:"email"`
}

type members struct {
	byID    *lockstep.Cache[int64, Member] // over the table
	byEmail *lockstep.Cache[string, int64] // over a query
}

func openMembers(table lockstep.Store[int64, Member], db *sql.DB) (*members, error) {
	var m members
	var err error
	if m.byID, err = lockstep.New(table, lockstep.Options[int64, Member]{}); err != nil {
		return nil, err
	}
	m.byEmail, err = lockstep.New(lockstep.FromFunc(func(ctx context.Context, email string) (id int64, err error) {
		err = db.QueryRowContext(ctx, "SELECT id FROM members WHERE email = ?", email).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			err = lockstep.ErrNotFound
		}
		return id, err
	}), lockstep.Options[string, int64]{NegativeTTL: -1}) // that nobody has it is asked each time
	return &m, err
}

func (m *members) find(ctx context.Context, email string) (Member, error) {
	for {
		id, err := m.byEmail.Get(ctx, email)
		if err != nil {
			return Member{}, err
		}
		member, err := m.byID.Get(ctx, id)
		if err == nil && member.Email == email {
			return member, nil
		}
		if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
			return Member{}, err
		}
		m.byEmail.Invalidate(email) // one of the two is out of date
		m.byID.Invalidate(id)
	}
}

func (m *members) put(ctx context.Context, id int64, member Member) error {
	_, err := m.byID.Set(ctx, id, member)
	m.byEmail.Invalidate(member.Email) // whatever the error is; it also defeats a query that is under way
	return err
}

func (s *shop) orderAndShip(ctx context.Context, number, item string) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		if err := s.orders.In(tx).Set(ctx, number, item, lockstep.IfAbsent()); err != nil {
			return err
		}
		sqlTx, err := sqlitestore.Tx(tx)
		if err != nil {
			return err
		}
		_, err = sqlTx.ExecContext(ctx, "INSERT INTO outbox (id, item) VALUES (?, ?)", number, item)
		return err
	})
}

// relay carries what is in the outbox of one database into the other, and returns when it is empty.
func relay(ctx context.Context, from *sql.DB, parcels, carried *lockstep.Cache[string, string]) error {
	for {
		var id, item string
		err := from.QueryRowContext(ctx, "SELECT id, item FROM outbox ORDER BY rowid LIMIT 1").Scan(&id, &item)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		err = lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			_, err := carried.In(tx).Get(ctx, id)
			if !errors.Is(err, lockstep.ErrNotFound) {
				return err // nil: it was carried before, and only the DELETE below was not reached
			}
			if err := carried.In(tx).Set(ctx, id, item, lockstep.Lifetime(30*24*time.Hour)); err != nil {
				return err
			}
			return parcels.In(tx).Set(ctx, id, "to be packed: "+item)
		})
		if err != nil {
			return err // unknown, too: the next call finds out by the mark
		}
		if _, err := from.ExecContext(ctx, "DELETE FROM outbox WHERE id = ?", id); err != nil {
			return err
		}
	}
}

// pay does what is asked once, however often the request is made. request is the client's
// own number for it, the same each time.
func pay(ctx context.Context, balances *lockstep.Cache[string, int64], done *lockstep.Cache[string, int64],
	request, account string, amount int64) (balance int64, err error) {
	err = lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		var err error
		balance, err = done.In(tx).Get(ctx, request)
		if !errors.Is(err, lockstep.ErrNotFound) {
			return err // nil: it was done before, and this was the answer
		}
		if balance, err = balances.In(tx).Get(ctx, account); err != nil {
			return err
		}
		if balance < amount {
			return errInsufficient
		}
		balance -= amount
		if err := balances.In(tx).Set(ctx, account, balance); err != nil {
			return err
		}
		return done.In(tx).Set(ctx, request, balance, lockstep.Lifetime(7*24*time.Hour))
	})
	return balance, err
}

type newest struct {
	orders *lockstep.Cache[string, string]
	ten    *lockstep.Cache[string, []string] // by customer
}

func openNewest(orders *lockstep.Cache[string, string], query func(ctx context.Context, customer string) ([]string, error)) (*newest, error) {
	ten, err := lockstep.New(lockstep.FromFunc(query), lockstep.Options[string, []string]{TTL: 10 * time.Second})
	return &newest{orders, ten}, err
}

func (n *newest) order(ctx context.Context, customer, number, item string) error {
	_, err := n.orders.Set(ctx, number, item)
	n.ten.Invalidate(customer) // whatever the error is: the order may be there
	return err
}

func status(err error) int {
	switch {
	case err == nil:
		return http.StatusOK
	case errors.Is(err, lockstep.ErrUnknownOutcome): // first: what has caused it is in the error, too
		return http.StatusAccepted // it may have been done; the client looks again
	case errors.Is(err, lockstep.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, lockstep.ErrConflict):
		return http.StatusConflict
	case errors.Is(err, lockstep.ErrInvalid):
		return http.StatusUnprocessableEntity
	case errors.Is(err, lockstep.ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, lockstep.ErrUnavailable), errors.Is(err, lockstep.ErrClosed),
		errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable // it was not done; the client may try again
	}
	return http.StatusInternalServerError
}

func stop(server *http.Server, cache *lockstep.Cache[string, User], store *sqlitestore.Store[string, User]) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return errors.Join(
		server.Shutdown(ctx), // nobody asks any more
		cache.Close(ctx),     // what was accepted is committed, and what is in doubt is settled
		store.Close(),
	)
}

func TestLookingUpByAnotherColumn(t *testing.T) {
	ctx := t.Context()
	db := database(t)
	d := &directory{
		people: cached(t, db, "people", lockstep.Options[string, Person]{}),
		emails: cached(t, db, "emails", lockstep.Options[string, string]{}),
	}
	check(t, d.put(ctx, "1", Person{"Ada", "ada@example.org"}))
	equal(t, errors.Is(d.put(ctx, "2", Person{"Eve", "ada@example.org"}), errTaken), true)
	check(t, d.put(ctx, "1", Person{"Ada", "lovelace@example.org"}))
	check(t, d.put(ctx, "2", Person{"Eve", "ada@example.org"}))
	check(t, d.put(ctx, "2", Person{"Eva", "ada@example.org"}))
	eve, err := d.byEmail(ctx, "ada@example.org")
	check(t, err)
	equal(t, eve.Name, "Eva")
	_, err = d.byEmail(ctx, "nobody@example.org")
	equal(t, errors.Is(err, lockstep.ErrNotFound), true)
}

func TestLookingUpByAColumnOfTheTable(t *testing.T) {
	ctx := t.Context()
	db := database(t)
	execute(t, db, "CREATE TABLE members (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE)")
	table, err := sqlitestore.NewTable[int64, Member](ctx, db, "members", sqlitestore.TableOptions{})
	check(t, err)
	queries, err := sql.Open("sqlite", db.Path())
	check(t, err)
	defer queries.Close()
	m, err := openMembers(table, queries)
	check(t, err)
	defer m.byID.Close(ctx)
	defer m.byEmail.Close(ctx)

	_, err = m.find(ctx, "ada@example.org")
	equal(t, errors.Is(err, lockstep.ErrNotFound), true)
	check(t, m.put(ctx, 1, Member{"Ada", "ada@example.org"}))
	ada, err := m.find(ctx, "ada@example.org")
	check(t, err)
	equal(t, ada.Name, "Ada")
	check(t, m.put(ctx, 1, Member{"Ada", "lovelace@example.org"}))
	check(t, m.put(ctx, 2, Member{"Eve", "ada@example.org"}))
	eve, err := m.find(ctx, "ada@example.org")
	check(t, err)
	equal(t, eve.Name, "Eve")
	execute(t, db, "UPDATE members SET email = 'eve@example.org' WHERE id = 2") // by another program
	eve, err = m.find(ctx, "eve@example.org")
	check(t, err)
	equal(t, eve.Name, "Eve")
	_, err = m.byID.Delete(ctx, 2)
	check(t, err)
	for _, email := range []string{"ada@example.org", "eve@example.org"} {
		_, err = m.find(ctx, email)
		equal(t, errors.Is(err, lockstep.ErrNotFound), true)
	}
}

func TestTwoDatabases(t *testing.T) {
	ctx := t.Context()
	here, there := database(t), database(t)
	execute(t, here, "CREATE TABLE outbox (id TEXT NOT NULL UNIQUE, item TEXT NOT NULL)")
	s, err := openShop(ctx, here)
	check(t, err)
	defer s.stock.Close(ctx)
	defer s.orders.Close(ctx)
	parcels := cached(t, there, "parcels", lockstep.Options[string, string]{})
	carried := cached(t, there, "carried", lockstep.Options[string, string]{})
	from, err := sql.Open("sqlite", here.Path())
	check(t, err)
	defer from.Close()

	check(t, s.orderAndShip(ctx, "1", "lamp"))
	check(t, relay(ctx, from, parcels, carried))
	execute(t, here, "INSERT INTO outbox VALUES ('1', 'lamp')") // as after a crash before the deletion
	_, err = parcels.Set(ctx, "1", "packed: lamp")
	check(t, err)
	check(t, relay(ctx, from, parcels, carried))
	parcel, err := parcels.Get(ctx, "1")
	check(t, err)
	equal(t, parcel, "packed: lamp")

	err = lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		if err := s.orders.In(tx).Set(ctx, "2", "lamp"); err != nil {
			return err
		}
		return parcels.In(tx).Set(ctx, "2", "lamp")
	})
	equal(t, errors.Is(err, lockstep.ErrUnsupported), true)
}

func TestOnceAndOnlyOnce(t *testing.T) {
	ctx := t.Context()
	db := database(t)
	balances := cached(t, db, "balances", lockstep.Options[string, int64]{})
	done := cached(t, db, "done", lockstep.Options[string, int64]{})
	_, err := balances.Set(ctx, "ada", 100)
	check(t, err)
	for range 3 {
		balance, err := pay(ctx, balances, done, "request 1", "ada", 60)
		check(t, err)
		equal(t, balance, 40)
	}
	_, err = pay(ctx, balances, done, "request 2", "ada", 60)
	equal(t, errors.Is(err, errInsufficient), true)
}

func TestQueries(t *testing.T) {
	ctx := t.Context()
	orders := cached(t, database(t), "orders", lockstep.Options[string, string]{})
	n, err := openNewest(orders, func(ctx context.Context, customer string) (numbers []string, err error) {
		for entry, err := range orders.Scan(ctx) {
			if err != nil {
				return nil, err
			}
			numbers = append(numbers, entry.Key)
		}
		return numbers, nil
	})
	check(t, err)
	defer n.ten.Close(ctx)
	check(t, n.order(ctx, "ada", "1", "lamp"))
	for range 2 {
		ten, err := n.ten.Get(ctx, "ada")
		check(t, err)
		equal(t, fmt.Sprint(ten), "[1]")
	}
	check(t, n.order(ctx, "ada", "2", "lamp"))
	ten, err := n.ten.Get(ctx, "ada")
	check(t, err)
	equal(t, fmt.Sprint(ten), "[1 2]")
}

func TestStatus(t *testing.T) {
	ctx := t.Context()
	db := database(t)
	store, err := sqlitestore.OpenIn[string, User](ctx, db, sqlitestore.Options{})
	check(t, err)
	users, err := lockstep.New(store, lockstep.Options[string, User]{})
	check(t, err)
	_, err = users.Get(ctx, "ada")
	equal(t, status(err), http.StatusNotFound)
	_, err = users.Set(ctx, "ada", User{}, lockstep.IfVersion(1))
	equal(t, status(err), http.StatusConflict)
	check(t, stop(new(http.Server), users, store))
	_, err = users.Set(ctx, "ada", User{})
	equal(t, status(err), http.StatusServiceUnavailable)
}

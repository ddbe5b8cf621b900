package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// mixture is what the clients of the last scene do, and what they have to agree
// about afterwards.
type mixture struct {
	accounts *table[Account]
	// told has the highest version of each row that anybody was told, by a read or
	// by a write: a read that begins later must not find an older one.
	told map[string]*atomic.Int64

	reads, readErrors, stale atomic.Int64
	money                    atomic.Int64 // what the accounts must hold together

	mu      sync.Mutex
	figures *TogetherFigures // its tallies are guarded by mu
	tills   []Account        // what each client has last written into its till
}

func tillKey(i int) string { return fmt.Sprintf("till:%02d", i) }

func newMixture(f *TogetherFigures, accounts *table[Account], initial func(int) Account) *mixture {
	m := &mixture{accounts: accounts, figures: f, told: make(map[string]*atomic.Int64)}
	for i := range f.Rows {
		m.told[accountKey(i)] = new(atomic.Int64)
		m.money.Add(initial(i).Balance)
	}
	for i := range f.Clients {
		m.told[tillKey(i)] = new(atomic.Int64)
		m.tills = append(m.tills, initial(i))
	}
	return m
}

// client does a little of everything until the end.
func (m *mixture) client(ctx context.Context, i int, end time.Time) error {
	random := rand.New(rand.NewPCG(uint64(i), 7))
	next := popular(m.figures.Rows, uint64(i))
	anybody := func() string { return accountKey(random.IntN(m.figures.Rows)) }
	for time.Now().Before(end) {
		var err error
		switch n := random.IntN(100); {
		case n < 60:
			for range 20 {
				m.read(ctx, accountKey(next()))
			}
			m.read(ctx, tillKey(random.IntN(m.figures.Clients)))
		case n < 75:
			err = m.set(ctx, i)
		case n < 85:
			err = m.deposit(ctx, accountKey(next()), random.Int64N(10_00))
		case n < 95:
			err = m.transfer(ctx, accountKey(next()), anybody(), random.Int64N(30_00))
		default:
			err = m.charge(ctx, accountKey(next()))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read reads a row that exists.
func (m *mixture) read(ctx context.Context, key string) {
	told := m.told[key].Load()
	e, err := m.accounts.cache.GetEntry(ctx, key)
	m.reads.Add(1)
	switch {
	case err == nil && int64(e.Version) >= told:
		m.tell(key, e.Version)
	case err == nil, errors.Is(err, lockstep.ErrNotFound):
		m.stale.Add(1)
	default:
		m.readErrors.Add(1)
	}
}

func (m *mixture) tell(key string, version lockstep.Version) {
	told := m.told[key]
	for old := told.Load(); old < int64(version) && !told.CompareAndSwap(old, int64(version)); {
		old = told.Load()
	}
}

// set writes the client's own till, blindly, and reads it: nobody else writes it.
func (m *mixture) set(ctx context.Context, i int) error {
	till := m.tills[i]
	till.Balance++
	version, err := m.accounts.cache.Set(ctx, tillKey(i), till)
	applied, err := m.ended(ctx, &m.figures.Sets, err)
	if err != nil {
		return err
	}
	if applied {
		m.tell(tillKey(i), version)
		m.tills[i] = till
	}
	got, err := m.accounts.cache.Get(ctx, tillKey(i))
	m.reads.Add(1)
	switch {
	case err != nil:
		m.readErrors.Add(1)
	case got != m.tills[i]:
		m.stale.Add(1)
	}
	return nil
}

func (m *mixture) deposit(ctx context.Context, key string, amount int64) error {
	_, err := m.accounts.cache.Update(ctx, key, func(a Account, _ bool) (Account, error) {
		a.Balance += amount
		return a, nil
	})
	applied, err := m.ended(ctx, &m.figures.Updates, err)
	if applied {
		m.money.Add(amount)
	}
	return err
}

func (m *mixture) transfer(ctx context.Context, from, to string, amount int64) error {
	if from == to {
		return nil
	}
	err := lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		accounts := m.accounts.cache.In(tx)
		payer, err := accounts.Get(ctx, from)
		if err != nil {
			return err
		}
		payee, err := accounts.Get(ctx, to)
		if err != nil {
			return err
		}
		payer.Balance -= amount
		payee.Balance += amount
		if payer.Balance < 0 {
			return errFunds
		}
		return errors.Join(accounts.Set(ctx, from, payer), accounts.Set(ctx, to, payee))
	})
	_, err = m.ended(ctx, &m.figures.Transfers, err)
	return err
}

// charge takes a fee, if the account is still what it was read to be.
func (m *mixture) charge(ctx context.Context, key string) error {
	const fee = 50
	e, err := m.accounts.cache.GetEntry(ctx, key)
	if err != nil || e.Value.Balance < fee {
		return nil
	}
	e.Value.Balance -= fee
	version, err := m.accounts.cache.Set(ctx, key, e.Value, lockstep.IfVersion(e.Version))
	applied, err := m.ended(ctx, &m.figures.Charges, err)
	if applied {
		m.tell(key, version)
		m.money.Add(-fee)
	}
	return err
}

// ended counts how a write has ended, and tells whether it was applied. One in
// doubt it waits for.
func (m *mixture) ended(ctx context.Context, t *Tally, err error) (applied bool, _ error) {
	var lost *lockstep.WriteError
	doubted := errors.Is(err, lockstep.ErrUnknownOutcome) && errors.As(err, &lost)
	if doubted {
		var unsettled error
		if applied, _, unsettled = lost.Wait(ctx); unsettled != nil {
			return false, unsettled
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		t.Committed++
		return true, nil
	case doubted:
		t.Unknown++
		if applied {
			t.Applied++
		}
	case errors.Is(err, errFunds):
		t.Refused++
	case errors.Is(err, lockstep.ErrConflict):
		t.Conflicts++
	case errors.Is(err, lockstep.ErrUnavailable):
		t.Unavailable++
	default:
		return false, err
	}
	return applied, nil
}

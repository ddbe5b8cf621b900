package lockstep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep/internal/turn"
)

// maxAttempts ends an Update or a transaction that collides for ever, as one does
// whose function writes, past the transaction, what it reads in it.
const maxAttempts = 100

// openTransactions counts the functions given to Transact that are running. Hits
// look for a transaction in their context only while there is one.
var openTransactions atomic.Int64

type transactionKey struct{}

func inTransaction(ctx context.Context) bool {
	if openTransactions.Load() == 0 {
		return false
	}
	tx, ok := ctx.Value(transactionKey{}).(*Tx)
	return ok && !tx.done.Load()
}

// Tx is a transaction under way. It belongs to the goroutine that runs the
// function given to Transact.
type Tx struct {
	parts []part // one a cache, in the order of first use
	done  atomic.Bool
	ctx   context.Context
	// txn is the database's transaction, where the program wanted it before the end.
	txn Txn
}

// part is one cache's share of a transaction: what it has read and will write.
type part interface {
	cache() (id uint64, database any)
	reads() int
	writes() int
	// outdated is a row that memory knows to have changed since it was read, or nil.
	outdated() *ConflictError
	// confirm loads again what was not loaded for the transaction. A row that is not
	// the same any more is a conflict.
	confirm(ctx context.Context) error
	turns(all bool) []uint64
	discardWrites()

	// countRerun counts that the function runs again.
	countRerun()

	host() host
	// begin begins a transaction of the cache's database.
	begin(ctx context.Context) (Txn, error)
	// doubted tells whether a key that it writes is in doubt; await waits until none is.
	doubted() bool
	await(ctx context.Context) error
	// commit is for a transaction of one cache.
	commit(ctx context.Context, purpose purpose) error
	// joint is for one of several.
	joint() jointPart
}

// Transact runs f and commits what it wrote, in one transaction of the database.
// Several caches over one database may take part. With nil, everything that f
// read was true at one moment, that of the commit, and everything that it wrote
// is committed and visible.
//
// f reads and writes through In(tx). What it reads comes from memory or the
// database, and is checked by the database at the end; if any of it has changed,
// f runs again, so it should do nothing that cannot be done twice. Until then
// the rows it has read may be of different moments. When f returns an error,
// nothing is written, and the error is returned, in a *WriteError, after what f
// had read has been checked too: "insufficient funds" is said of a balance that
// was there.
//
// A transaction that has run a hundred times, and found each time that a row had
// changed, is given up: the error is a *ConflictError that f has not returned. An
// answer that hangs on which condition did not hold is best made by f, of Set's error.
//
// The context that f is given carries the transaction. Using a cache directly
// with it is ErrInTransaction.
//
// What f writes through In(tx) reaches the database when f has returned. In(tx).Get sees
// it before; SQL of the program's own does not, nor may it refer to such a row by a
// foreign key that is not deferred. A transaction that the program began (Join) writes at
// once.
//
// A transaction of one cache shares its commit with other writes. One of several
// caches, or with SQL of the program's own (the function Tx of the store's package),
// opens a transaction of its own.
func Transact(ctx context.Context, f func(ctx context.Context, tx *Tx) error) error {
	if inTransaction(ctx) {
		return notApplied(ErrInTransaction)
	}
	var held []uint64
	defer func() { turns.Give(held) }()
	tx := &Tx{}
	defer func() { tx.undo() }() // also when f panics
	for attempt := 1; ; attempt++ {
		if ctx.Err() != nil {
			return notApplied(ended(ctx))
		}
		if attempt > 1 {
			tx.involved()[0].countRerun() // it has read something, or it would not run again
		}
		tx = &Tx{ctx: ctx}
		result := tx.run(ctx, f)
		err := tx.end(ctx, result, &held)
		var again rerun
		if !errors.As(err, &again) {
			return err
		}
		tx.undo()
		if attempt == maxAttempts {
			return notApplied(fmt.Errorf("the transaction collided %d times: %w", attempt, again.conflict))
		}
		// Those that collided take turns from here on. In sorted order, and none of
		// them while holding another: there is no deadlock.
		turns.Give(held)
		wanted := tx.turns(attempt >= 3)
		if held, err = takeTurns(ctx, wanted); err != nil {
			return notApplied(err)
		}
		turn.Yield(ctx, attempt)
	}
}

// run calls f.
func (tx *Tx) run(ctx context.Context, f func(context.Context, *Tx) error) error {
	openTransactions.Add(1)
	defer func() {
		tx.done.Store(true)
		openTransactions.Add(-1)
	}()
	return f(context.WithValue(ctx, transactionKey{}, tx), tx)
}

// rerun says that what the function has read is not true any more.
type rerun struct{ conflict *ConflictError }

func (rerun) Error() string { return "lockstep: what the transaction read has changed" }

// rerunAfter is a rerun because of the database's verdict.
func rerunAfter(err error) rerun {
	var conflict *ConflictError
	if !errors.As(err, &conflict) {
		conflict = &ConflictError{} // a store that breaks the contract
	}
	return rerun{conflict}
}

// end validates and commits. result is what the function returned.
func (tx *Tx) end(ctx context.Context, result error, held *[]uint64) error {
	if result != nil {
		if err := tx.undo(); err != nil {
			return notApplied(errors.Join(result, err))
		}
		for _, p := range tx.parts {
			p.discardWrites()
		}
	}
	reads, writes := 0, 0
	for _, p := range tx.parts {
		reads, writes = reads+p.reads(), writes+p.writes()
	}
	var err error
	if writes == 0 && reads <= 1 && tx.txn == nil {
		err = tx.confirm(ctx)
	} else {
		// One that is begun has locks, for which those who have the turns may be waiting.
		if writes > 0 && len(*held) == 0 && tx.txn == nil {
			if *held, err = takeTurns(ctx, tx.turns(false)); err != nil {
				return notApplied(err)
			}
		}
		for _, p := range tx.parts {
			if conflict := p.outdated(); conflict != nil {
				return rerun{conflict}
			}
		}
		if again, err := tx.makeWay(ctx); again || err != nil {
			if err == nil {
				err = rerun{&ConflictError{}}
			}
			return err
		}
		err = tx.commit(ctx, purposeOf(result))
	}
	switch {
	case conflicted(err):
		return rerunAfter(err)
	case err != nil && result != nil:
		return notApplied(fmt.Errorf("%w; the function's own error is not validated: %v", err, result))
	case err != nil:
		return err
	}
	return finished(result)
}

// confirm validates the only read of a transaction that writes nothing. One that
// was loaded for it was true at that moment.
func (tx *Tx) confirm(ctx context.Context) error {
	for _, p := range tx.parts {
		if err := p.confirm(ctx); err != nil {
			return notApplied(err)
		}
	}
	return nil
}

func purposeOf(result error) purpose {
	if result != nil {
		return validation
	}
	return transaction
}

// finished is the end of a transaction whose function returned result.
func finished(result error) error {
	if result == nil {
		return nil
	}
	return notApplied(result)
}

// involved are the parts that have done something, or else one of them, in one order for all
// transactions, so that two of them do not wait for each other inside the
// database.
func (tx *Tx) involved() []part {
	var involved []part
	for _, p := range tx.parts {
		if p.reads() > 0 || p.writes() > 0 {
			involved = append(involved, p)
		}
	}
	if len(involved) == 0 {
		return tx.parts[:min(1, len(tx.parts))]
	}
	slices.SortFunc(involved, func(a, b part) int {
		i, _ := a.cache()
		j, _ := b.cache()
		return int(i) - int(j)
	})
	return involved
}

func (tx *Tx) commit(ctx context.Context, purpose purpose) error {
	involved := tx.involved()
	if len(involved) == 1 && tx.txn == nil {
		return involved[0].commit(ctx, purpose)
	}
	parts := make([]jointPart, len(involved))
	for i, p := range involved {
		parts[i] = p.joint()
	}
	txn := tx.txn
	tx.txn = nil // it is commitJointly's to end
	return commitJointly(ctx, parts, purpose, txn)
}

// turns are the turns of the keys that the transaction writes, or of all its
// keys.
func (tx *Tx) turns(all bool) []uint64 {
	var ids []uint64
	for _, p := range tx.parts {
		ids = append(ids, p.turns(all)...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// turnPatience is how long a turn is waited for. A turn decides nothing, and a
// function that updates one key inside the update of another would otherwise wait
// for ever for one that does so in the other order.
const turnPatience = time.Second

// takeTurns returns the turns it took: all of them, or none when they could not be
// had in time. The error is that of ctx.
func takeTurns(ctx context.Context, ids []uint64) (held []uint64, err error) {
	patience, cancel := context.WithTimeout(ctx, turnPatience)
	defer cancel()
	if turns.Take(patience, ids) == nil {
		return ids, nil
	}
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	return nil, nil
}

// join returns the cache's part, adding it when the cache is new here.
func (tx *Tx) join(id uint64, database any, add func() part) (part, error) {
	for _, p := range tx.parts {
		if other, _ := p.cache(); other == id {
			return p, nil
		}
	}
	for _, p := range tx.parts {
		if _, other := p.cache(); database == nil || other != database {
			return nil, fmt.Errorf("%w: the caches' stores do not share a database handle. Open those of one SQLite file with OpenIn or NewTable on one Database; of two databases, write to one, and an outbox row with it", ErrUnsupported)
		}
	}
	p := add()
	tx.parts = append(tx.parts, p)
	return p, nil
}

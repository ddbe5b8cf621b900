package lockstep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A transaction of several caches does not travel in their batches. It opens a
// transaction of the database, in which each cache applies its own set, and the
// caches' keys are busy meanwhile. Writes of the same keys may be under way in
// batches at the same time: the database orders them, and since neither knows
// which came last, memory keeps neither. Waiting for the keys in each cache's
// queue, one cache after the other, would give the same promise with less to
// reload, and was rejected: a batch that waits for the database's write lock
// would wait for a transaction that waits for the batch.
//
// Keys in doubt are waited for, before anything is begun: what is in doubt may
// arrive late, and would undo what has passed it. For the same reason others wait
// for the transaction's keys once it is in doubt itself.
//
// Until its commit is sent it can be called off, as a write can that is queued.

// jointPart is one cache's share of a joint transaction, its types forgotten.
type jointPart interface {
	stake
	changes() bool

	// enter counts the transaction with the cache, and with those that wait until
	// begun; leave ends it.
	enter() error
	begun()

	// await waits until none of the keys is in doubt.
	await(ctx context.Context) error
	begin(ctx context.Context) (Txn, error)
	apply(ctx context.Context, txn Txn) error
	// lapsed is a conflict if the lifetime of a row that was read may be over.
	lapsed() error

	hold()
	pending()
}

// joint is a joint transaction under way.
type joint struct {
	ending
	parts   []jointPart
	txn     Txn // the database's transaction, if it is begun already
	started time.Time
}

// commitJointly commits the parts in one transaction, in txn where it is begun
// already. The parts are in the order in which every joint transaction takes them.
func commitJointly(ctx context.Context, parts []jointPart, purpose purpose, txn Txn) error {
	stakes := make([]stake, len(parts))
	for i, p := range parts {
		stakes[i] = p
	}
	j := &joint{ending: newEnding(stakes, purpose), parts: parts, txn: txn, started: time.Now()}
	j.changes = txn != nil || slices.ContainsFunc(parts, jointPart.changes)
	if ctx.Err() != nil {
		return notApplied(errors.Join(ended(ctx), rollbackFor(ctx, j.lead, txn)))
	}
	for i, p := range parts {
		if err := p.enter(); err != nil {
			for _, q := range parts[:i] { // first, for the rollback may end this goroutine
				q.begun()
				q.leave()
			}
			j.lead.counts.outcome(err, false)
			return notApplied(errors.Join(err, rollbackFor(ctx, j.lead, txn)))
		}
	}
	j.ctx, j.cancel = context.WithCancel(j.lead.commits)
	for _, p := range parts {
		p.pending()
		p.hold() // before anybody can be told that the outcome is unknown
	}
	go j.run()
	select {
	case <-j.answered():
	case <-ctx.Done():
		j.doubt(fmt.Errorf("the caller left during the commit: %w", ended(ctx)), ended(ctx))
	}
	j.lead.counts.writeLatency.Record(time.Since(j.started))
	_, err := j.answer()
	return err
}

func (j *joint) run() {
	defer j.cancel()
	if err := j.await(); err != nil {
		j.begun()
		j.conclude(nil, err)
		return
	}
	began := time.Now()
	j.lead.counts.queueWait.Record(began.Sub(j.started))
	ctx := j.supervise()
	err := fmt.Errorf("%w: the store ended the transaction's goroutine (runtime.Goexit)", ErrUnavailable)
	var txn Txn
	returned := false
	defer func() {
		ctx.stop()
		j.lead.counts.commitLatency.Record(time.Since(began))
		if returned {
			j.conclude(txn, err)
		} else {
			go j.conclude(txn, err)
		}
	}()
	if open, refusal := j.prepare(ctx); refusal != nil {
		err = refusal
	} else {
		txn, err = open, errCommitExited // unless Commit returns, or panics
		err = guarded("Commit", ErrUnknownOutcome, func() error { return txn.Commit(ctx) })
	}
	returned = true
}

// await waits for the keys in doubt, for as long as a write waits in the queue.
func (j *joint) await() error {
	if j.txn != nil {
		return nil // see Tx.makeWay
	}
	ctx := j.supervise()
	defer ctx.stop()
	for _, p := range j.parts {
		if err := p.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// begun says that the transaction does not wait any more.
func (j *joint) begun() {
	for _, p := range j.parts {
		p.begun()
	}
}

// prepare does all but the commit, of which it says that it is sent. On error the
// transaction is gone, and was not applied.
func (j *joint) prepare(ctx context.Context) (txn Txn, err error) {
	if txn, err = j.begin(ctx); err != nil {
		return nil, certain(err)
	}
	open, applied := txn, false
	defer func() {
		if applied {
			return
		}
		err = certain(errors.Join(err, rollback(j.lead, open))) // deferred, because Apply may be ending the goroutine
	}()
	for _, p := range j.parts {
		if err = guarded("Apply", nil, func() error { return p.apply(ctx, txn) }); err != nil {
			return nil, err
		}
	}
	// The checks were made one cache after the other, each with waits of its own. A
	// row that has ended meanwhile was not changed by anybody: no lock of the
	// database's has kept it.
	for _, p := range j.parts {
		if err = p.lapsed(); err != nil {
			return nil, err
		}
	}
	if !j.send() {
		return nil, errCalledOff
	}
	applied = true
	return txn, nil
}

// errCalledOff is told to nobody: the verdict is final.
var errCalledOff = fmt.Errorf("%w: the transaction was called off", ErrUnavailable)

// rollback ends a transaction without effect. It has a deadline of its own: the
// commit's may be the reason.
func rollback(of host, txn Txn) error {
	if txn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(of.commits), of.limits.timeout)
	defer cancel()
	return guarded("Rollback", nil, func() error { return txn.Rollback(ctx) })
}

// rollbackFor is rollback for somebody who waits for it as long as ctx lasts. Nothing was
// sent that could be committed, so his answer does not depend on it. It goes on without
// him, and Close waits for it, if it has not waited already.
func rollbackFor(ctx context.Context, of host, txn Txn) (err error) {
	if txn == nil {
		return nil
	}
	counted := of.tasks.begin()
	done := make(chan error, 1)
	go func() {
		if counted {
			defer of.tasks.end()
		}
		defer close(done) // also where the rollback ends the goroutine
		done <- rollback(of, txn)
	}()
	select {
	case err, returned := <-done:
		if !returned {
			err = fmt.Errorf("%w: Rollback ended its goroutine instead of returning (runtime.Goexit)", ErrUnavailable)
		}
		return err
	case <-ctx.Done():
		return nil
	}
}

func (j *joint) begin(ctx context.Context) (txn Txn, err error) {
	defer j.begun()
	if j.txn != nil {
		return j.txn, nil
	}
	err = guarded("Begin", nil, func() (err error) {
		txn, err = j.parts[0].begin(ctx)
		return err
	})
	return txn, err
}

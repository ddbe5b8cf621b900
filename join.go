package lockstep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A transaction that the program began is not ours: it may have been committed or
// rolled back by anybody, at any time, and nobody has to tell. So memory never takes
// anything from it, and what makes it safe is the gate alone: a key is busy from
// before its first statement is sent until the transaction is known to be over.
//
// It cannot be waited for either. What waits for its keys in a queue of ours would
// wait for the program, which may be waiting for that very write. Others write
// beside it; the database keeps them apart by its locks, and memory keeps nothing of
// what they publish meanwhile, as beside a joint transaction.
//
// The end is the same as a joint transaction's: see transact_end.go.

// DefaultJoinTimeout is how long a transaction may be joined: see JoinTimeout.
const DefaultJoinTimeout = 30 * time.Second

// JoinOption is an option of Join.
type JoinOption struct {
	timeout time.Duration
	given   bool
}

// JoinTimeout is how long, from Join on, the transaction may take. One that is not
// ended by then through Joined is taken for forgotten: Joined refuses every further
// call, the transaction is ended in the database, without being committed, or found
// to have been ended, and its keys are free again. Without it that is
// DefaultJoinTimeout.
func JoinTimeout(d time.Duration) JoinOption { return JoinOption{timeout: d, given: true} }

// Joined is a transaction that the program began, and in which caches write. The
// package of each store has a function Join that makes one of the driver's own type.
//
// It is committed by Commit, and not by the driver's: until then, or until Rollback,
// the keys that were written in it are not in memory, every read of them asks the
// database, and nothing of it is ever put into memory. Other writers do not wait for
// it in their caches; in the database they wait for its rows, as they do for any other
// transaction's, and fail with their CommitTimeout. So whoever waits, inside the
// transaction, for a write past it to a key that it has written, waits in vain until then.
//
// It belongs to one goroutine, as the transaction does.
type Joined struct {
	txn      Txn
	database any
	timeout  time.Duration

	// calls is the context of the calls under way in it, and ends with them.
	calls   context.Context
	refuse  context.CancelCauseFunc
	overdue *time.Timer
	// turn holds a token, which belongs to whoever calls txn.
	turn chan struct{}

	mu     sync.Mutex
	stakes []joinedStake // one a cache; guarded by mu, as what follows
	failed error         // why it is fit for nothing but Rollback
	end    *joinedEnd    // nil while it is open
}

// joinedStake is a cache's stake while the transaction is open.
type joinedStake interface {
	stake
	cache() (id uint64)
	// enter counts the end of the transaction with the cache, unless that is closed;
	// leave ends it. withdraw is for a cache that is closed before, or instead.
	enter() bool
	withdraw()
}

// joinedEnd is the transaction's end, from when it has begun.
type joinedEnd struct {
	ending
	// forgotten: it was not the program that began it.
	forgotten bool
}

// Join makes a Joined of a transaction that the program began, for packages of
// stores, whose function Join programs call. database is the store's
// Capabilities.Database. The error is about the options.
//
// Of txn it asks more than Store's law does. Commit may find that the transaction has
// been ended already: where it cannot tell which way, the outcome is unknown, and
// Settle finds out. Rollback that cannot tell that the transaction is over, without
// effect, returns an error, and Settle finds out, too. Settle ends a transaction that
// nobody has ended; it may be called while the program uses the transaction, and before
// Commit and Rollback, which are not. None of the three waits for the program's own
// statements for longer than its context lasts. They and Apply and Read are not called
// at the same time.
func Join(database any, txn Txn, options ...JoinOption) (*Joined, error) {
	j := &Joined{txn: txn, database: database, timeout: DefaultJoinTimeout, turn: make(chan struct{}, 1)}
	seen := false
	for _, o := range options {
		switch {
		case !o.given:
			return nil, fmt.Errorf("%w option: the zero JoinOption", ErrInvalid)
		case seen:
			return nil, fmt.Errorf("%w option: JoinTimeout is given twice", ErrInvalid)
		case o.timeout <= 0:
			return nil, fmt.Errorf("%w option: JoinTimeout(%v) is not above zero", ErrInvalid, o.timeout)
		}
		seen, j.timeout = true, o.timeout
	}
	j.calls, j.refuse = context.WithCancelCause(context.Background())
	j.turn <- struct{}{}
	j.mu.Lock() // expire, which may come at once, stops the timer
	defer j.mu.Unlock()
	j.overdue = time.AfterFunc(j.timeout, j.expire)
	return j, nil
}

var errJoinedOver = fmt.Errorf("%w: the joined transaction is over", ErrInvalid)

// errUndone is the outcome of a transaction that its program has rolled back.
var errUndone = errors.New("lockstep: the program rolled the joined transaction back")

// errForgotten is the outcome of one that nobody has ended.
func (j *Joined) errForgotten() error {
	return fmt.Errorf("%w: the joined transaction was not ended within %v (JoinTimeout)", ErrUnavailable, j.timeout)
}

// enter gives the transaction to a call, until leave. The call's context ends with
// ctx, and when the transaction is being ended.
func (j *Joined) enter(ctx context.Context) (under context.Context, leave func(), err error) {
	if ctx.Err() != nil {
		return nil, nil, ended(ctx)
	}
	select {
	case <-j.turn:
	case <-j.calls.Done():
		return nil, nil, context.Cause(j.calls)
	case <-ctx.Done():
		return nil, nil, ended(ctx)
	}
	if j.calls.Err() != nil {
		j.turn <- struct{}{}
		return nil, nil, context.Cause(j.calls)
	}
	under, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(j.calls, func() { cancel(context.Cause(j.calls)) })
	return under, func() {
		stop()
		cancel(nil)
		j.turn <- struct{}{}
	}, nil
}

// because is the error of a call that the transaction's end may have interrupted.
func (j *Joined) because(err error) error {
	if j.calls.Err() == nil {
		return err
	}
	return fmt.Errorf("%w: %v", context.Cause(j.calls), err)
}

// usable is for a write: it fails when an earlier one has.
func (j *Joined) usable() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil {
		return fmt.Errorf("%w: an earlier call in the joined transaction has failed, and it can only be rolled back: %v", ErrInvalid, j.failed)
	}
	return nil
}

// fail leaves the transaction fit for nothing but Rollback.
func (j *Joined) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed == nil {
		j.failed = err
	}
}

func (j *Joined) failure() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failed
}

// Commit commits the transaction. With nil, no read that starts afterwards sees
// anything older than what was written in it. Otherwise the error is a *WriteError:
// not applied, and rolled back, as when an earlier write in it had failed or ctx had ended
// before; or unknown, which is settled in the background (WriteError.Wait tells how),
// as it is when somebody has ended the transaction by the driver's own Commit or
// Rollback. What caches had written it in stays out of memory until that is known. The
// caller may leave, by ctx, and the commit goes on.
//
// After Commit or Rollback it is ErrInvalid, and says nothing of how they ended. After
// the deadline of JoinTimeout it says what has become of the transaction: nil if the program
// had committed it.
func (j *Joined) Commit(ctx context.Context) error {
	began := time.Now()
	_, leave, err := j.enter(context.WithoutCancel(ctx))
	if err != nil {
		return j.refused(ctx, err)
	}
	leave = sync.OnceFunc(leave)
	defer leave()
	why := j.failure()
	if why == nil && ctx.Err() != nil {
		why = ended(ctx)
	}
	e := j.begin(errJoinedOver, false)
	if e == nil {
		leave() // the deadline has begun the end, and waits for its turn to go on
		return j.refused(ctx, errJoinedOver)
	}
	if len(e.stakes) == 0 {
		return j.alone(ctx, why)
	}
	call := j.txn.Commit
	if why != nil {
		call, ctx = nil, context.WithoutCancel(ctx)
	}
	e.start(j.txn, call, why)
	e.await(ctx)
	e.lead.counts.writeLatency.Record(time.Since(began))
	_, err = e.answer()
	return err
}

// Rollback ends the transaction without effect. It does so also when ctx has ended, as
// that of a deferred call often has, and takes no longer than CommitTimeout. An error
// that is ErrUnknownOutcome says that this could not be made sure of, or that somebody
// has ended the transaction by the driver's own Commit or Rollback; it is then settled in
// the background. After Commit it changes nothing, and is ErrInvalid.
func (j *Joined) Rollback(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	_, leave, err := j.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	e := j.begin(errJoinedOver, false)
	if e == nil {
		return errJoinedOver
	}
	if len(e.stakes) == 0 {
		err = j.alone(ctx, errUndone)
	} else {
		e.start(j.txn, nil, errUndone)
		e.await(ctx)
		_, err = e.answer()
	}
	if errors.Is(err, errUndone) && !errors.Is(err, ErrUnknownOutcome) {
		return nil
	}
	return err
}

// refused is Commit's answer when the end has begun without it.
func (j *Joined) refused(ctx context.Context, err error) error {
	j.mu.Lock()
	e := j.end
	j.mu.Unlock()
	if e == nil || !e.forgotten {
		return err
	}
	if len(e.stakes) == 0 {
		return notApplied(j.errForgotten())
	}
	select {
	case <-e.answered():
		_, err := e.answer()
		return err
	case <-ctx.Done():
		return &WriteError{Outcome: Unknown, Err: fmt.Errorf("%w, and is being ended: %w", j.errForgotten(), ended(ctx)), pending: &e.verdict}
	}
}

// expire is the deadline of a transaction that nobody has ended.
func (j *Joined) expire() {
	e := j.begin(j.errForgotten(), true)
	if e == nil {
		return
	}
	<-j.turn // the call under way, whose context has ended
	defer func() { j.turn <- struct{}{} }()
	if len(e.stakes) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), DefaultCommitTimeout)
		defer cancel()
		found(ctx, j.txn, j.errForgotten())
		return
	}
	e.lead.logger.Warn("lockstep: a joined transaction was forgotten, and is being ended", "after", j.timeout)
	e.run(j.txn, nil, j.errForgotten())
}

// begin begins the end, from when the caches count it and no call is admitted, because
// of why. It returns nil if the end has begun already.
func (j *Joined) begin(why error, forgotten bool) *joinedEnd {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.end != nil {
		return nil
	}
	j.refuse(why)
	j.overdue.Stop()
	var stakes []stake
	for _, s := range j.stakes {
		if s.enter() {
			stakes = append(stakes, s)
		} else {
			s.withdraw()
		}
	}
	j.stakes = nil
	j.end = &joinedEnd{forgotten: forgotten}
	if len(stakes) > 0 {
		j.end.ending = newEnding(stakes, transaction)
		j.end.ctx, j.end.cancel = context.WithCancel(j.end.lead.commits)
		j.end.send() // whatever follows is not called off
	}
	return j.end
}

// start runs the end on a goroutine of its own.
func (e *joinedEnd) start(txn Txn, commit func(context.Context) error, why error) {
	go e.run(txn, commit, why)
}

func (e *joinedEnd) await(ctx context.Context) {
	select {
	case <-e.answered():
	case <-ctx.Done():
		e.doubt(fmt.Errorf("the caller left during the commit: %w", ended(ctx)), ended(ctx))
	}
}

// run commits, or without commit rolls back, because of why, which is then the
// outcome.
func (e *joinedEnd) run(txn Txn, commit func(context.Context) error, why error) {
	defer e.cancel()
	began := time.Now()
	ctx := e.supervise()
	err := errCommitExited // unless it returns, or panics
	returned := false
	defer func() {
		ctx.stop()
		e.lead.counts.commitLatency.Record(time.Since(began))
		if returned {
			e.conclude(txn, err)
		} else {
			go e.conclude(txn, err)
		}
	}()
	switch {
	case commit != nil:
		err = guarded("Commit", ErrUnknownOutcome, func() error { return commit(ctx) })
	case e.forgotten:
		err = found(ctx, txn, why)
	default:
		err = undo(ctx, txn, why)
	}
	returned = true
}

// undo rolls back because of why, which it returns, unless it cannot be told that the
// transaction is over.
func undo(ctx context.Context, txn Txn, why error) error {
	err := guarded("Rollback", nil, func() error { return txn.Rollback(ctx) })
	if err != nil {
		return fmt.Errorf("%w: %w; the rollback: %w", ErrUnknownOutcome, why, err)
	}
	return why
}

// found finds out how a transaction ended that nobody has told us of, or ends it because
// of why, which it then returns.
func found(ctx context.Context, txn Txn, why error) error {
	applied := false
	err := guarded("Settle", nil, func() (err error) {
		applied, err = txn.Settle(ctx)
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w: %w", ErrUnknownOutcome, why, err)
	case !applied:
		return why
	}
	return nil // the program has committed it
}

// alone ends a transaction in which no cache has anything at stake: none has joined it,
// or all were closed. Nobody waits for a settlement.
func (j *Joined) alone(ctx context.Context, why error) error {
	ctx, cancel := context.WithTimeout(ctx, DefaultCommitTimeout)
	defer cancel()
	var err error
	if why != nil {
		err = undo(ctx, j.txn, why)
	} else {
		err = guarded("Commit", ErrUnknownOutcome, func() error { return j.txn.Commit(ctx) })
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrUnknownOutcome):
		return &WriteError{Outcome: Unknown, Err: err}
	}
	return notApplied(err)
}

// join adds a cache's stake, if it is new here.
func (j *Joined) join(id uint64, add func() joinedStake) (joinedStake, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.end != nil {
		return nil, context.Cause(j.calls)
	}
	for _, s := range j.stakes {
		if s.cache() == id {
			return s, nil
		}
	}
	s := add()
	if s == nil {
		return nil, ErrClosed
	}
	j.stakes = append(j.stakes, s)
	return s, nil
}

// leave takes out a cache that is closed. A transaction that is being ended goes on
// with it.
func (j *Joined) leave(s joinedStake) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if i := slices.Index(j.stakes, s); i >= 0 {
		j.stakes = slices.Delete(j.stakes, i, i+1)
		s.withdraw()
	}
}

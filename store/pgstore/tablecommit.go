package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockstep-cache/lockstep"
)

// Commit implements lockstep.Store: in two round trips, three where a set relies on
// the absence of a row or deletes one that is not there, and more where a row is written
// more than once. A set that
// the database refuses (a constraint, a deferred one included, a trigger, a value)
// and one that has a row which somebody else holds locked are found out and left
// out, in further round trips.
func (t *Table[K, V]) Commit(ctx context.Context, sets []lockstep.ChangeSet[K, V]) ([]lockstep.Outcome[V], error) {
	if t.opts.ReadOnly {
		return nil, unsupported("table %s was opened with ReadOnly", t.shape)
	}
	b := t.newBatch(sets)
	if len(b.active()) == 0 {
		if err := t.db.enter(); err != nil {
			return nil, err
		}
		t.db.leave()
		return b.outcomes, nil
	}
	return b.commit(ctx)
}

func (b *tableBatch[K, V]) commit(ctx context.Context) ([]lockstep.Outcome[V], error) {
	divide := false
	for try := 1; ; try++ {
		a, err := b.t.db.attempt(ctx)
		if err != nil {
			return nil, err
		}
		out, f, err := b.once(ctx, a, divide)
		if err == nil {
			return out, nil
		}
		switch active := b.active(); {
		case f == fateUnknown:
			return nil, err
		case try == tries || ctx.Err() != nil:
			return nil, notApplied(f, err)
		case f == fateAgain:
			if b.t.keyTaken(err) {
				b.taken++
			}
			if err := pauseFor(ctx, try); err != nil {
				return nil, err
			}
		case f == fateBlocked && leavesLocked(ctx, len(b.sets)):
			some, lerr := b.leaveLocked(ctx, err)
			if lerr != nil {
				return nil, lerr
			}
			// Where nothing was found, the one who blocks is inserting a row.
			divide = divide || !some
		case f == fateRefused && len(active) > 1:
			divide = true
		case f == fateRefused:
			b.outcomes[active[0]] = lockstep.Outcome[V]{Err: b.refusal(active[0], err)}
		default:
			return nil, notApplied(f, err)
		}
		if len(b.active()) == 0 {
			return b.outcomes, nil
		}
	}
}

func (b *tableBatch[K, V]) once(ctx context.Context, a *attempt, divide bool) ([]lockstep.Outcome[V], fate, error) {
	defer a.session.forsake()
	if divide {
		return b.divided(ctx, a)
	}
	return b.together(ctx, a)
}

// refusal is the error of a set that the database, or a limit, has refused.
func (b *tableBatch[K, V]) refusal(set int, err error) error {
	if named(err) {
		return err
	}
	at := fmt.Sprintf("table %s", b.t.shape)
	// Of several rows the server does not say which one it speaks of.
	switch changes := b.sets[set].changes; {
	case len(changes) != 1:
	case changes[0].Insert:
		at += ": the new row"
	default:
		at += fmt.Sprintf(": key %v", changes[0].Key)
	}
	if why := changesOthers(err); why != "" {
		return invalid("%s: %s; write those before it, or in one set with it (DeleteMany, Transact)", at, why)
	}
	return invalid("%s: %w", at, err)
}

// tableFate is fateOf, where a schema of the user's own refuses rows by codes of its
// own.
func tableFate(err error) fate {
	if errors.Is(err, lockstep.ErrInvalid) {
		return fateRefused
	}
	f := fateOf(err)
	var pg *pgconn.PgError
	if f == fateGone && errors.As(err, &pg) && len(pg.Code) == 5 && !slices.Contains(servers, pg.Code[:2]) {
		return fateRefused
	}
	return f
}

// servers are the classes of errors that say nothing of a row.
var servers = strings.Fields("01 02 03 08 0A 25 26 28 34 3B 3D 3F 40 42 53 55 57 58 72 F0 HV XX")

// fate is tableFate, where the row of a key may have been inserted since it was
// looked for: then it is looked for again. A partition that was added since the table
// was opened has an index of another name; a commit is refused there.
func (b *tableBatch[K, V]) fate(err error) fate {
	if b.taken < rivals && b.t.keyTaken(err) || errors.Is(err, errReplaced) {
		return fateAgain
	}
	return tableFate(err)
}

// rivals is how often a row may appear where there was none, before it is taken for
// the work of a trigger, which will not stop. From the second time on it is none of
// this package's: see guard.
var rivals = 10 // fewer in a test

func (t *Table[K, V]) keyTaken(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, new(notGiven)) {
		return false // it has not been looked for
	}
	return errors.As(err, &pg) && pg.Code == "23505" && slices.Contains(t.shape.keyIndexes, pg.SchemaName+"."+pg.ConstraintName)
}

// together commits the batch as one transaction.
func (b *tableBatch[K, V]) together(ctx context.Context, a *attempt) ([]lockstep.Outcome[V], fate, error) {
	out := slices.Clone(b.outcomes)
	waits := patience(ctx, leavesLocked(ctx, len(b.sets)))
	w, err := b.decide(ctx, a.session, b.active(), out, &waits, command{sql: beginSQL})
	if err != nil {
		a.abandon(ctx)
		return nil, b.before(ctx, a, err), err
	}
	commands := w.commands()
	if len(commands) == 0 && !w.wrote {
		a.abandon(ctx) // everything was decided under the locks, and there is nothing to commit
		return out, 0, nil
	}
	a.xact, a.result = w.xact, w.withoutRows()
	a.verify = func(ctx context.Context, s *session) (bool, error) { return b.found(ctx, s, w) }
	f, err := a.decisive(ctx, append(commands, commitCommand)...)
	if err != nil {
		if f != fateUnknown && fateOf(err) != fateUnknown { // the server has said why
			f = b.fate(err)
		}
		return nil, f, err
	}
	w.finish()
	return out, 0, nil
}

// before is the fate of an attempt whose COMMIT was not sent.
func (b *tableBatch[K, V]) before(ctx context.Context, a *attempt, err error) fate {
	if f := b.fate(err); f != fateUnknown {
		return f
	}
	return a.before(ctx, err)
}

// divided commits the batch as one transaction, of whose sets one has made an
// earlier attempt fail and nobody knows which; see batch.divided.
func (b *tableBatch[K, V]) divided(ctx context.Context, a *attempt) ([]lockstep.Outcome[V], fate, error) {
	out := slices.Clone(b.outcomes)
	var done []*tableWork[K, V]
	err := a.session.run(ctx, command{sql: beginSQL})
	if err == nil {
		err = b.part(ctx, a.session, b.active(), out, &done)
	}
	if err != nil {
		a.abandon(ctx)
		return nil, b.before(ctx, a, err), err
	}
	if len(done) == 0 {
		a.abandon(ctx)
		return out, 0, nil
	}
	a.xact, a.result = done[0].xact, out
	slices.Reverse(done) // a row that a later part has written again says nothing of an earlier one
	a.verify = func(ctx context.Context, s *session) (bool, error) { return b.found(ctx, s, done...) }
	f, err := a.decisive(ctx, commitCommand)
	return out, f, err
}

// part makes some of the sets inside the transaction, or finds out which of them
// cannot be made.
func (b *tableBatch[K, V]) part(ctx context.Context, s *session, sets []int, out []lockstep.Outcome[V], done *[]*tableWork[K, V]) error {
	var err error
	var f fate
	for try := 1; ; try++ {
		waits := impatient
		var w *tableWork[K, V]
		w, err = b.decide(ctx, s, sets, out, &waits, command{sql: savepointSQL})
		if err == nil {
			err = w.send(ctx, s)
		}
		if err == nil {
			err = s.run(ctx, command{sql: immediateSQL}, command{sql: deferredSQL}, command{sql: releaseSQL})
		}
		if err == nil {
			if w.wrote {
				*done = append(*done, w)
			}
			return nil
		}
		if f = b.fate(err); f != fateBlocked && f != fateRefused {
			return err
		}
		if err := s.takeBack(ctx); err != nil {
			return err
		}
		for _, i := range sets {
			out[i] = lockstep.Outcome[V]{}
		}
		if len(sets) > 1 || !b.t.keyTaken(err) || try == rivals {
			break
		}
		if err := pauseFor(ctx, try); err != nil {
			return err
		}
	}
	if len(sets) > 1 {
		for _, half := range [][]int{sets[:len(sets)/2], sets[len(sets)/2:]} {
			if err := b.part(ctx, s, half, out, done); err != nil {
				return err
			}
		}
		return nil
	}
	if f == fateBlocked {
		out[sets[0]] = lockstep.Outcome[V]{Err: unavailable("table %s: a row is locked by somebody else: %w", b.t.shape, err), Blocked: true}
	} else {
		out[sets[0]] = lockstep.Outcome[V]{Err: b.refusal(sets[0], err)}
	}
	return nil
}

// takeBack goes back to the savepoint. It sends one statement after the other: the
// driver could not prepare the second while the transaction is aborted.
func (s *session) takeBack(ctx context.Context) error {
	for _, query := range []string{returnSQL, releaseSQL} {
		if err := s.run(ctx, command{sql: query}); err != nil {
			return err
		}
	}
	return nil
}

// leaveLocked leaves out the sets of which somebody else holds a row locked at the
// moment, and tells whether there are any. Looking takes the rows that are free, and
// lets them go at once.
func (b *tableBatch[K, V]) leaveLocked(ctx context.Context, cause error) (some bool, err error) {
	s, err := b.t.db.session(ctx)
	if err != nil {
		return false, notApplied(fateGone, err)
	}
	active := b.active()
	keys, texts := b.named(active)
	locked := map[string]bool{}
	if len(keys) > 0 {
		err = s.run(ctx, command{sql: b.t.sql.locked, args: b.t.keyArgs(keys), row: func(scan func(...any) error) error {
			var place int64
			if err := scan(&place); err != nil {
				return err
			}
			locked[texts[place-1]] = true
			return nil
		}})
	}
	if err != nil {
		b.t.db.drop(s)
		return false, notApplied(fateGone, err)
	}
	b.t.db.release(s)
	for _, i := range active {
		set := &b.sets[i]
		for k := range set.index {
			if locked[set.text(k)] {
				b.outcomes[i] = blocked[V](k, cause)
				some = true
				break
			}
		}
	}
	return some, nil
}

// apply implements Capabilities.Apply. It waits for a row that is locked by
// somebody else as long as ctx, or the session's own lock_timeout, allows.
func (t *Table[K, V]) apply(ctx context.Context, tx lockstep.Txn, set lockstep.ChangeSet[K, V]) (lockstep.Outcome[V], error) {
	x, err := t.db.open(ctx, tx)
	if err != nil {
		return lockstep.Outcome[V]{}, err
	}
	b := t.newBatch([]lockstep.ChangeSet[K, V]{set})
	out := b.outcomes
	if b.sets[0].inserts && out[0].Err == nil {
		out[0].Err = unsupported("table %s: an insertion in a transaction", t.shape)
	}
	for try := 1; out[0].Err == nil; try++ {
		w, err := b.decide(ctx, x.a.session, []int{0}, out, nil, command{sql: savepointSQL})
		if err == nil {
			err = w.send(ctx, x.a.session)
		}
		if err == nil {
			err = x.a.session.run(ctx, append(t.outside.unmark(), command{sql: releaseSQL})...)
		}
		if err == nil {
			if err := x.in(w.xact); err != nil {
				return lockstep.Outcome[V]{}, err
			}
			x.wrote = x.wrote || w.wrote
			x.found = append(x.found, func(ctx context.Context, s *session) (bool, error) { return b.found(ctx, s, w) })
			break
		}
		if (t.keyTaken(err) || errors.Is(err, errReplaced)) && try < tries {
			b.taken++
			if err = x.a.session.takeBack(ctx); err == nil {
				err = pauseFor(ctx, try)
			}
			if err == nil {
				out[0] = lockstep.Outcome[V]{}
				continue
			}
		}
		if tableFate(err) != fateRefused {
			x.over = notApplied(fateGone, err)
			return lockstep.Outcome[V]{}, x.over
		}
		out[0] = lockstep.Outcome[V]{Err: b.refusal(0, err)}
	}
	if err := out[0].Err; err != nil {
		x.over = err
	}
	return out[0], nil
}

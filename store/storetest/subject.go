package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// The shapes of the contract, for a store under test.
type (
	row       = lockstep.Row[Doc]
	change    = lockstep.Change[string, Doc]
	changeSet = lockstep.ChangeSet[string, Doc]
	check     = lockstep.Check[string]
	outcome   = lockstep.Outcome[Doc]
)

// subject is a store under test and the vocabulary of the tests: put, erase and
// their like build sets; commit and load fail the test when the store fails.
type subject struct {
	testing.TB
	harness Harness
	store   Store
	caps    lockstep.Capabilities[string, Doc]
	ctx     context.Context
}

func (h Harness) open(t testing.TB) *subject {
	store := h.Open(t)
	return &subject{TB: t, harness: h, store: store, caps: store.Capabilities(), ctx: context.Background()}
}

func (s *subject) has(f Feature) bool {
	return s.harness.features(s.caps)[f]
}

// reopen goes on as the program's next run would.
func (s *subject) reopen() {
	s.Helper()
	s.store = s.harness.Reopen(s, s.store)
	s.caps = s.store.Capabilities()
}

func put(key string, d Doc) change    { return change{Key: key, Value: d} }
func insert(d Doc) change             { return change{Insert: true, Value: d} }
func erase(key string) change         { return change{Key: key, Delete: true} }
func set(changes ...change) changeSet { return changeSet{Changes: changes} }

func ifVersion(v lockstep.Version, c change) change {
	c.Expect = lockstep.Expect{Kind: lockstep.ExpectVersion, Version: v}
	return c
}

func ifAbsent(c change) change {
	c.Expect = lockstep.Expect{Kind: lockstep.ExpectAbsent}
	return c
}

// seen is the check of a row that was read.
func seen(key string, r row) check {
	return check{Key: key, Version: r.Version, Absent: !r.Exists, Value: r.Value}
}

// prepared does what the cache does with every change before it queues it.
func (s *subject) prepared(set changeSet) (changeSet, error) {
	if s.caps.Prepare == nil {
		return set, nil
	}
	ready := set
	ready.Changes = make([]change, len(set.Changes))
	for i, c := range set.Changes {
		p, _, err := s.caps.Prepare(c)
		if err != nil {
			return set, err
		}
		ready.Changes[i] = p
	}
	return ready, nil
}

// try commits a batch; the error is Prepare's or Commit's. It asks again for what
// was unavailable, as long as that can change nothing else.
func (s *subject) try(ctx context.Context, sets ...changeSet) ([]outcome, error) {
	ready := make([]changeSet, len(sets))
	for i, set := range sets {
		var err error
		if ready[i], err = s.prepared(set); err != nil {
			return nil, err
		}
	}
	outcomes, err := s.store.Commit(ctx, ready)
	for range repeats {
		if !unavailable(err) || ctx.Err() != nil {
			break
		}
		outcomes, err = s.store.Commit(ctx, ready)
	}
	if err == nil && len(outcomes) != len(sets) {
		s.Errorf("Commit of %d sets returned %d outcomes", len(sets), len(outcomes))
		return outcomes, err
	}
	for i := range outcomes {
		for range repeats {
			if !unavailable(outcomes[i].Err) || ctx.Err() != nil || overtaken(ready, i) {
				break
			}
			again, err := s.store.Commit(ctx, ready[i:i+1])
			switch {
			case errors.Is(err, lockstep.ErrUnknownOutcome):
				return nil, err
			case err != nil:
				outcomes[i] = outcome{Err: err}
			case len(again) == 1:
				outcomes[i] = again[0]
			}
		}
	}
	return outcomes, err
}

// unavailable tells whether something was left undone that may be asked for again:
// a store may have been kept from a row for too long.
func unavailable(err error) bool {
	return errors.Is(err, lockstep.ErrUnavailable) && !errors.Is(err, lockstep.ErrUnknownOutcome)
}

// overtaken tells whether a later set of a batch names a key of this one: made
// again, it would come after it.
func overtaken(sets []changeSet, i int) bool {
	named := make(map[string]bool)
	for _, key := range keysOf(sets[i]) {
		named[key] = true
	}
	return slices.ContainsFunc(sets[i+1:], func(later changeSet) bool {
		return later.DeleteAll || sets[i].DeleteAll || slices.ContainsFunc(keysOf(later), func(key string) bool { return named[key] })
	})
}

func keysOf(sets ...changeSet) (keys []string) {
	for _, set := range sets {
		for _, c := range set.Changes {
			if !c.Insert {
				keys = append(keys, c.Key)
			}
		}
		for _, c := range set.Checks {
			keys = append(keys, c.Key)
		}
	}
	return keys
}

// commit is try for batches that the store has to accept.
func (s *subject) commit(sets ...changeSet) []outcome {
	s.Helper()
	var before map[string]row
	if len(sets) > 1 {
		before = s.load(keysOf(sets...)...)
	}
	outcomes, err := s.try(s.ctx, sets...)
	for range repeats {
		// What is left of a batch whose sets depend on each other says nothing: it
		// begins again, with the rows as they were.
		if err != nil || !slices.ContainsFunc(outcomes, func(o outcome) bool { return unavailable(o.Err) }) {
			break
		}
		for _, key := range keysOf(sets...) {
			if r := before[key]; r.Exists {
				s.write(put(key, r.Value))
			} else {
				s.write(erase(key))
			}
		}
		outcomes, err = s.try(s.ctx, sets...)
	}
	if err != nil {
		s.Fatalf("Commit: %v", err)
	}
	for i, o := range outcomes {
		s.wellFormed(sets[i], o)
	}
	return outcomes
}

// write commits one set, which has to be applied.
func (s *subject) write(changes ...change) outcome {
	s.Helper()
	o := s.commit(set(changes...))[0]
	if o.Err != nil {
		s.Fatalf("a set of %d changes was left out: %v", len(changes), o.Err)
	}
	return o
}

// put writes one document and returns its row, as Load has it.
func (s *subject) put(key string, d Doc) row {
	s.Helper()
	s.write(put(key, d))
	return s.load1(key)
}

// wellFormed checks what holds for every outcome.
func (s *subject) wellFormed(set changeSet, o outcome) {
	s.Helper()
	if errors.Is(o.Err, lockstep.ErrUnknownOutcome) {
		s.Errorf("an Outcome says unknown, which only Commit's error may: %v", o.Err)
	}
	if o.Err != nil {
		return
	}
	if o.Rows != nil && len(o.Rows) != len(set.Changes) {
		s.Errorf("a set of %d changes has %d rows in its outcome", len(set.Changes), len(o.Rows))
	}
	if o.Existed != nil && len(o.Existed) != len(set.Changes) {
		s.Errorf("a set of %d changes has %d Existed in its outcome", len(set.Changes), len(o.Existed))
	}
	for _, c := range set.Changes {
		if c.Insert && len(o.Keys) != 1 {
			s.Errorf("the outcome of an insertion has the keys %v", o.Keys)
		}
		if c.Delete && o.Existed == nil {
			s.Error("the outcome of a set with a deletion has no Existed")
		}
	}
}

func (s *subject) load(keys ...string) map[string]row {
	s.Helper()
	rows, err := s.store.Load(s.ctx, keys)
	if err != nil {
		s.Fatalf("Load: %v", err)
	}
	return rows
}

func (s *subject) load1(key string) row {
	s.Helper()
	return s.load(key)[key]
}

// holds checks that key has a row with that document.
func (s *subject) holds(key string, want Doc) row {
	s.Helper()
	r := s.load1(key)
	if !r.Exists || !r.Value.Equal(want) {
		s.Errorf("key %q: the store holds %s, want %v", key, show(r), want)
	}
	return r
}

// absent checks that keys have no row.
func (s *subject) absent(keys ...string) {
	s.Helper()
	rows := s.load(keys...)
	for _, key := range keys {
		if r := rows[key]; r.Exists {
			s.Errorf("key %q: the store holds %s, want no row", key, show(r))
		}
	}
}

// refused checks that a set is left out for want, and leaves no trace on the
// keys.
func (s *subject) refused(want error, set changeSet, keys ...string) {
	s.Helper()
	before := s.load(keys...)
	outcomes, err := s.try(s.ctx, set)
	if err == nil {
		err = outcomes[0].Err
	}
	if !errors.Is(err, want) {
		s.Errorf("the set was answered with %v, want an error that is %v", err, want)
	}
	after := s.load(keys...)
	for _, key := range keys {
		if !same(before[key], after[key]) {
			s.Errorf("key %q: a refused set changed %s into %s", key, show(before[key]), show(after[key]))
		}
	}
}

// conflicts checks that a set was left out because of key, and that the error
// tells what is there.
func (s *subject) conflicts(o outcome, key string) {
	s.Helper()
	var conflict *lockstep.ConflictError
	if !errors.As(o.Err, &conflict) || !errors.Is(o.Err, lockstep.ErrConflict) {
		s.Errorf("outcome is %v, want a *ConflictError", o.Err)
		return
	}
	if conflict.Key != any(key) {
		s.Errorf("the conflict names key %v, want %q", conflict.Key, key)
	}
	if r := s.load1(key); conflict.Exists != r.Exists || conflict.Exists && conflict.Version != r.Version {
		s.Errorf("the conflict says exists=%t version=%d, Load says %s", conflict.Exists, conflict.Version, show(r))
	}
}

// expect fails the test unless ok.
func (s *subject) expect(ok bool, format string, args ...any) {
	s.Helper()
	if !ok {
		s.Errorf(format, args...)
	}
}

// repeats is how often the suite asks again for what was unavailable.
const repeats = 50

// patience is how long the suite waits for something that has to happen. It is
// no measurement: whatever takes as long as this has hung.
const patience = 30 * time.Second

// await fails the test if done is not closed in time.
func (s *subject) await(done <-chan struct{}, what string) {
	s.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
		s.Fatalf("%s: still waiting after %v", what, patience)
	}
}

// same compares rows in everything but what the clock moves.
func same(a, b row) bool {
	return a.Exists == b.Exists && a.Version == b.Version && a.ExpiresAt.Equal(b.ExpiresAt) && a.Value.Equal(b.Value)
}

// show is a row as failures print it.
func show(r row) string {
	switch {
	case !r.Exists && r.Version == 0:
		return "no row"
	case !r.Exists:
		return fmt.Sprintf("no row (version %d)", r.Version)
	default:
		return fmt.Sprintf("%v (version %d)", r.Value, r.Version)
	}
}

package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// txnLaws: transactions that several stores of one database share.
var txnLaws = []law{
	{"TransactionCommits", txnCommits},
	{"TransactionRollsBack", txnRollsBack},
	{"TransactionFailsAsAWhole", txnFails},
	{"TransactionChecks", txnChecks},
	{"TransactionSpansStores", txnSpans},
	{"TransactionWaitsNoLongerThanItsContext", txnWaits},
	{"TransactionsExcludeEachOther", txnSkew},
	{"TransactionReadsWhatItWrites", txnReads},
	{"TransactionEndsRows", txnEnds},
}

// begin opens a transaction, which is rolled back at the end if it is still open.
func (s *subject) begin() lockstep.Txn {
	s.Helper()
	txn, err := s.caps.Begin(s.ctx)
	if err != nil {
		s.Fatalf("Begin: %v", err)
	}
	return txn
}

// apply makes changes that the transaction has to accept.
func (s *subject) apply(txn lockstep.Txn, set changeSet) outcome {
	s.Helper()
	ready, err := s.prepared(set)
	if err != nil {
		s.Fatalf("Prepare: %v", err)
	}
	o, err := s.caps.Apply(s.ctx, txn, ready)
	if err != nil || o.Err != nil {
		_ = txn.Rollback(s.ctx)
		s.Fatalf("Apply: %v, %v", err, o.Err)
	}
	s.wellFormed(set, o)
	return o
}

// applyErr is what Apply says against a set, in either place.
func (s *subject) applyErr(txn lockstep.Txn, set changeSet) error {
	ready, err := s.prepared(set)
	if err != nil {
		return err
	}
	o, err := s.caps.Apply(s.ctx, txn, ready)
	return errors.Join(err, o.Err)
}

func txnCommits(s *subject) {
	if !s.has(Transactions) {
		return // declared: there is nothing to call
	}
	s.put("b", doc(1))
	before := s.load1("b")
	txn := s.begin()
	first := s.apply(txn, set(put("a", doc(2)), erase("b")))
	s.absent("a")
	s.holds("b", doc(1))
	second := s.apply(txn, set(put("a", doc(3)), put("c", doc(4))))
	s.absent("a", "c")
	if err := txn.Commit(s.ctx); err != nil {
		s.Fatalf("Commit: %v", err)
	}
	s.holds("a", doc(3))
	s.absent("b")
	s.holds("c", doc(4))
	s.expect(txn.Rollback(s.ctx) == nil, "Rollback after Commit fails")
	s.holds("a", doc(3))

	if s.has(Versions) && first.Rows != nil && second.Rows != nil {
		s.expect(second.Rows[0].Version > first.Rows[0].Version, "two changes of a row have versions %d and %d", first.Rows[0].Version, second.Rows[0].Version)
		s.expect(first.Rows[1].Version > before.Version, "a deletion has version %d, the row had %d", first.Rows[1].Version, before.Version)
		s.expect(same(second.Rows[0], s.load1("a")), "Apply returned %s, Load has %s", show(second.Rows[0]), show(s.load1("a")))
	}
}

// txnEnds: what a transaction writes, by Commit or by Apply, has each row's own end.
func txnEnds(s *subject) {
	if !s.has(Lifetimes) || !s.has(Atomic) {
		return // declared: a lifetime is refused, and so are changes that are mixed
	}
	write := map[string]func(changeSet){"commit": func(set changeSet) {
		if o := s.commit(set)[0]; o.Err != nil {
			s.Fatalf("Commit: %v", o.Err)
		}
	}}
	if s.has(Transactions) {
		write["apply"] = func(set changeSet) {
			txn := s.begin()
			s.apply(txn, set)
			if err := txn.Commit(s.ctx); err != nil {
				s.Fatalf("Commit: %v", err)
			}
		}
	}
	for name, write := range write {
		key := func(k string) string { return name + " " + k }
		for _, k := range []string{"had", "kept"} {
			s.write(lives(time.Hour, put(key(k), doc(1))))
		}
		at := time.Now().Add(2 * time.Hour)
		set := set(
			lives(time.Hour, put(key("after"), doc(2))), put(key("stays"), doc(3)), until(at, put(key("at"), doc(4))),
			until(longAgo(), put(key("past"), doc(5))), lives(300*time.Millisecond, put(key("short"), doc(6))), put(key("had"), doc(7)),
		)
		if s.has(Checks) {
			r := s.load1(key("kept"))
			set.Checks = []check{{Key: key("kept"), Version: r.Version, Value: r.Value}, {Key: key("at"), Absent: true}}
		}
		write(set)
		for k, want := range map[string]time.Duration{"after": time.Hour, "at": 2 * time.Hour, "kept": time.Hour} {
			r := s.load1(key(k))
			s.expect(r.Exists && !r.ExpiresAt.IsZero() && r.Remaining > want-time.Minute && r.Remaining <= want,
				"%s: of %v remain %v: %s", key(k), want, r.Remaining, show(r))
		}
		r := s.load1(key("at"))
		s.expect(r.ExpiresAt.Sub(at).Abs() <= time.Millisecond, "%s was to expire at %v, and expires at %v", key("at"), at, r.ExpiresAt)
		for _, k := range []string{"stays", "had"} {
			r := s.load1(key(k))
			s.expect(r.Exists && r.ExpiresAt.IsZero(), "%s, which stays, expires: %s", key(k), show(r))
		}
		s.absent(key("past"))
		s.expires(key("short"))
	}
}

// txnReads: a transaction sees its own changes and what is committed, and nobody else
// sees them before.
func txnReads(s *subject) {
	if !s.has(Read) {
		return // declared: there is nothing to call
	}
	a, b := s.put("a", doc(1)), s.put("b", doc(2))
	for _, commits := range []bool{false, true} {
		txn := s.begin()
		read := func(keys ...string) map[string]row {
			s.Helper()
			rows, err := s.caps.Read(s.ctx, txn, keys)
			if err != nil {
				_ = txn.Rollback(s.ctx)
				s.Fatalf("Read: %v", err)
			}
			return rows
		}
		s.expect(len(read()) == 0, "Read of no keys returns some")
		rows := read("a", "b", "c")
		s.expect(same(rows["a"], a) && same(rows["b"], b) && !rows["c"].Exists,
			"Read returns %s, %s, %s of rows that are %s, %s and absent", show(rows["a"]), show(rows["b"]), show(rows["c"]), show(a), show(b))
		s.apply(txn, set(put("c", doc(3)), erase("b")))
		o := s.apply(txn, set(put("c", doc(4))))
		rows = read("a", "b", "c")
		s.expect(same(rows["a"], a), "beside its changes the transaction reads %s, want %s", show(rows["a"]), show(a))
		s.expect(!rows["b"].Exists, "a row that the transaction has deleted is %s to itself", show(rows["b"]))
		s.expect(rows["c"].Exists && rows["c"].Value.Equal(doc(4)), "a row that the transaction has written is %s to itself", show(rows["c"]))
		if o.Rows != nil {
			s.expect(same(rows["c"], o.Rows[0]), "Apply returned %s, Read %s", show(o.Rows[0]), show(rows["c"]))
		}
		s.holds("b", doc(2))
		s.absent("c")
		end, name := txn.Rollback, "Rollback"
		if commits {
			end, name = txn.Commit, "Commit"
		}
		if err := end(s.ctx); err != nil {
			s.Fatalf("%s: %v", name, err)
		}
		if _, err := s.caps.Read(s.ctx, txn, []string{"a"}); err == nil {
			s.Errorf("Read succeeds after %s", name)
		}
		if commits {
			s.holds("c", doc(4))
			s.absent("b")
		}
	}
}

func txnRollsBack(s *subject) {
	if !s.has(Transactions) {
		return // declared: there is nothing to call
	}
	before := s.put("b", doc(1))
	for range 2 { // a transaction that is over is in nobody's way
		txn := s.begin()
		s.apply(txn, set(put("a", doc(2)), erase("b")))
		if err := txn.Rollback(s.ctx); err != nil {
			s.Fatalf("Rollback: %v", err)
		}
		s.absent("a")
		s.expect(same(before, s.load1("b")), "after Rollback the row is %s, it was %s", show(s.load1("b")), show(before))
		s.expect(txn.Rollback(s.ctx) == nil, "a second Rollback fails")
	}
	s.write(put("a", doc(3)))
}

func txnFails(s *subject) {
	if !s.has(Transactions) || !s.has(Versions) {
		return // declared: no Apply, or none that can fail by a condition
	}
	b := s.put("b", doc(1))
	for _, end := range []string{"Commit", "Rollback"} {
		txn := s.begin()
		s.apply(txn, set(put("a", doc(2))))
		err := s.applyErr(txn, set(put("c", doc(3)), ifVersion(b.Version-1, put("b", doc(4)))))
		s.expect(errors.Is(err, lockstep.ErrConflict), "Apply of a set whose expectation fails: %v, want a conflict", err)
		if end == "Commit" {
			err := txn.Commit(s.ctx)
			s.expect(err != nil, "a transaction with a failed Apply has committed")
			s.expect(!errors.Is(err, lockstep.ErrUnknownOutcome), "Commit after a failed Apply is unknown: %v", err)
		}
		s.expect(txn.Rollback(s.ctx) == nil, "Rollback after a failed Apply and %s fails", end)
		s.absent("a", "c")
		s.expect(same(b, s.load1("b")), "the row is %s, it was %s", show(s.load1("b")), show(b))
	}
}

func txnChecks(s *subject) {
	if !s.has(Transactions) || !s.has(Checks) {
		return // declared: no Apply, or none that checks
	}
	a := s.put("a", doc(1))
	txn := s.begin()
	s.apply(txn, changeSet{Changes: []change{put("b", doc(2))}, Checks: []check{seen("a", a), {Key: "b", Absent: true}}})
	if err := txn.Commit(s.ctx); err != nil {
		s.Fatalf("Commit: %v", err)
	}
	s.holds("b", doc(2))

	s.put("a", doc(3))
	txn = s.begin()
	err := s.applyErr(txn, changeSet{Changes: []change{put("b", doc(4))}, Checks: []check{seen("a", a)}})
	s.expect(errors.Is(err, lockstep.ErrConflict), "a check of a row that has changed: %v, want a conflict", err)
	s.expect(txn.Rollback(s.ctx) == nil, "Rollback fails")
	s.holds("b", doc(2))
}

func txnSpans(s *subject) {
	if !s.has(Transactions) {
		return // declared: there is nothing to call
	}
	one, two := s.harness.OpenTwo(s)
	a, b := *s, *s
	a.store, a.caps = one, one.Capabilities()
	b.store, b.caps = two, two.Capabilities()
	if a.caps.Database != b.caps.Database {
		s.Fatal("two stores of one database name different ones")
	}
	for n, commit := range []bool{true, false} {
		before := a.load1("k")
		txn := a.begin()
		a.apply(txn, set(put("k", doc(int64(n)))))
		b.apply(txn, set(put("k", doc(int64(n+10)))))
		if !commit {
			s.expect(txn.Rollback(s.ctx) == nil, "Rollback fails")
			s.expect(same(before, a.load1("k")), "the rolled back row is %s", show(a.load1("k")))
			b.holds("k", doc(10))
			continue
		}
		if err := txn.Commit(s.ctx); err != nil {
			s.Fatalf("Commit: %v", err)
		}
		a.holds("k", doc(0))
		b.holds("k", doc(10))
	}

	// A transaction of another database is refused, and neither is touched.
	if a.caps.Database == s.caps.Database {
		return // the harness has one database for everything
	}
	txn := a.begin()
	err := s.applyErr(txn, set(put("k", doc(1))))
	s.expect(errors.Is(err, lockstep.ErrInvalid), "Apply of another database's transaction: %v, want ErrInvalid", err)
	s.expect(txn.Rollback(s.ctx) == nil, "Rollback fails")
	s.absent("k")
}

// txnWaits: while a transaction has written a row, whoever wants to write it too
// may have to wait, and can leave.
func txnWaits(s *subject) {
	if !s.has(Transactions) {
		return // declared: there is nothing to call
	}
	s.put("k", doc(1))
	txn := s.begin()
	s.apply(txn, set(put("k", doc(2))))

	ctx, cancel := context.WithCancel(s.ctx)
	returned := make(chan struct{})
	var err error
	go func() {
		defer close(returned)
		var outcomes []outcome
		if outcomes, err = s.try(ctx, set(put("k", doc(3)))); err == nil {
			err = outcomes[0].Err
		}
	}()
	// A bubble's clock moves when Commit waits. Outside it this is time enough for
	// most stores; one that is slower is asked for less, and not failed.
	select {
	case <-returned:
	case <-time.After(100 * time.Millisecond):
	}
	cancel()
	s.await(returned, "Commit whose context has ended, beside an open transaction")
	s.expect(err != nil, "Commit has changed a row that an open transaction had written")
	if errors.Is(err, lockstep.ErrUnknownOutcome) {
		applied, known := s.settle(err)
		s.expect(!applied || !known, "Settle says that it has changed the row nevertheless")
	}
	if err := txn.Commit(s.ctx); err != nil {
		s.Fatalf("Commit: %v", err)
	}
	s.holds("k", doc(2))
}

// txnSkew: of two transactions that each check what the other writes, at most
// one commits; one of them is a batch with checks. Both may be left out, for those
// who wait for each other in a database may both be turned away, but not always.
func txnSkew(s *subject) {
	if !s.has(Transactions) || !s.has(Checks) {
		return // declared: no Apply, or none that checks
	}
	const rounds = 10
	committed := 0
	for round := range int64(rounds) {
		a, b := s.put("a", doc(10*round)), s.put("b", doc(10*round+1))
		read := []check{seen("a", a), seen("b", b)}
		sets := []changeSet{
			{Changes: []change{put("a", doc(10*round+2))}, Checks: read},
			{Changes: []change{put("b", doc(10*round+3))}, Checks: read},
		}
		errs := make([]error, len(sets))
		var group sync.WaitGroup
		both := []func(){
			func() { errs[0] = s.alone(sets[0]) },
			func() { errs[1] = s.inTxn(sets[1]) },
		}
		if round%2 == 1 {
			slices.Reverse(both) // or one of them would come first as a rule
		}
		for _, one := range both {
			group.Go(one)
		}
		group.Wait()
		s.expect(errs[0] != nil || errs[1] != nil, "two transactions that exclude each other have both committed")
		rows := s.load("a", "b")
		for i, before := range []row{a, b} {
			key, err := sets[i].Changes[0].Key, errs[i]
			want := before.Value
			switch {
			case err == nil:
				committed++
				want = sets[i].Changes[0].Value
			case !errors.Is(err, lockstep.ErrConflict) && !errors.Is(err, lockstep.ErrUnavailable):
				s.Errorf("outcome: %v, want success, a conflict or ErrUnavailable", err)
			}
			s.expect(rows[key].Value.Equal(want), "outcome: %v, and key %q is %s, want %v", err, key, show(rows[key]), want)
		}
	}
	s.expect(committed >= rounds/2, "in %d rounds %d transactions have committed", rounds, committed)
}

// alone commits one set as a batch.
func (s *subject) alone(set changeSet) error {
	outcomes, err := s.try(s.ctx, set)
	if err == nil {
		err = outcomes[0].Err
	}
	return err
}

// inTxn commits one set as a transaction.
func (s *subject) inTxn(set changeSet) error {
	txn, err := s.caps.Begin(s.ctx)
	if err != nil {
		return err
	}
	if err := s.applyErr(txn, set); err != nil {
		_ = txn.Rollback(s.ctx)
		return err
	}
	return txn.Commit(s.ctx)
}

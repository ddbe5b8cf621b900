package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// mutant is a store that breaks the contract in one way: what it does not
// replace is memstore's.
type mutant struct {
	Store
	load   func(ctx context.Context, keys []string) (map[string]row, error)
	commit func(ctx context.Context, sets []changeSet) ([]outcome, error)
	caps   func(c *lockstep.Capabilities[string, Doc])
}

func (m *mutant) Load(ctx context.Context, keys []string) (map[string]row, error) {
	if m.load != nil {
		return m.load(ctx, keys)
	}
	return m.Store.Load(ctx, keys)
}

func (m *mutant) Commit(ctx context.Context, sets []changeSet) ([]outcome, error) {
	if m.commit != nil {
		return m.commit(ctx, sets)
	}
	return m.Store.Commit(ctx, sets)
}

func (m *mutant) Capabilities() lockstep.Capabilities[string, Doc] {
	c := m.Store.Capabilities()
	if m.caps != nil {
		m.caps(&c)
	}
	return c
}

// eachSet commits sets as edit changes them.
func (m *mutant) eachSet(edit func(*changeSet)) {
	m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
		edited := slices.Clone(sets)
		for i := range edited {
			edited[i].Changes = slices.Clone(edited[i].Changes)
			edit(&edited[i])
		}
		return m.Store.Commit(ctx, edited)
	}
}

// mutants has the law that each of them breaks. One that nobody notices is a
// hole in the suite.
var mutants = []struct {
	name, law string
	mutate    func(m *mutant)
}{
	{"reads a lagging replica", "Law1_LoadSeesWhatWasAcknowledged", lagging},
	{"acknowledges what it has not written", "Law2_CommittedIsVisible", func(m *mutant) {
		m.commit = func(_ context.Context, sets []changeSet) ([]outcome, error) { return make([]outcome, len(sets)), nil }
	}},
	{"writes sets change by change", "Law3_ASetIsAllOrNothing", func(m *mutant) { m.commit = m.piecemeal }},
	{"lets one set fail the batch", "Law3_AFailingSetSparesItsNeighbours", func(m *mutant) {
		m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			var all changeSet
			for _, set := range sets {
				all.Changes = append(all.Changes, set.Changes...)
			}
			outcomes, err := m.Store.Commit(ctx, []changeSet{all})
			return slices.Repeat(outcomes, len(sets)), err
		}
	}},
	{"publishes keys one by one", "Law3_SeveralKeysBecomeVisibleAtOnce", func(m *mutant) { m.commit = m.piecemeal }},
	{"applies batches backwards", "Law4_SetsTakeEffectInOrder", func(m *mutant) {
		m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			backwards := slices.Clone(sets)
			slices.Reverse(backwards)
			outcomes, err := m.Store.Commit(ctx, backwards)
			slices.Reverse(outcomes)
			return outcomes, err
		}
	}},
	{"says not applied, and applies", "Law5_AnErrorMeansThatNothingWasApplied", func(m *mutant) {
		m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			outcomes, err := m.Store.Commit(context.WithoutCancel(ctx), sets)
			return outcomes, errors.Join(err, ctx.Err())
		}
	}},
	{"settles by guessing", "Law6_WhatIsSettledStaysSo", func(m *mutant) {
		m.caps = func(c *lockstep.Capabilities[string, Doc]) {
			c.Settle = func(context.Context, error) (lockstep.Settlement[Doc], error) {
				return lockstep.Settlement[Doc]{Applied: false}, nil
			}
		}
	}},
	{"settles without ever telling", "Law6_WhatIsSettledStaysSo", func(m *mutant) {
		m.caps = func(c *lockstep.Capabilities[string, Doc]) {
			c.Settle = func(_ context.Context, err error) (lockstep.Settlement[Doc], error) {
				return lockstep.Settlement[Doc]{Err: err}, nil
			}
		}
	}},
	{"returns what it was given", "Law7_RowsAreWhatLoadReturns", func(m *mutant) {
		m.load = func(ctx context.Context, keys []string) (map[string]row, error) {
			rows, err := m.Store.Load(ctx, keys)
			for key, r := range rows {
				r.Value.Title = strings.TrimRight(r.Value.Title, " ")
				rows[key] = r
			}
			return rows, err
		}
	}},
	{"starts versions anew", "Law8_VersionsGrow", func(m *mutant) {
		m.load = func(ctx context.Context, keys []string) (map[string]row, error) {
			rows, err := m.Store.Load(ctx, keys)
			for key, r := range rows {
				r.Version = 1
				rows[key] = r
			}
			return rows, err
		}
	}},
	{"compares keys without case", "Law9_KeysDifferAsInGo", func(m *mutant) {
		m.eachSet(func(set *changeSet) {
			for i := range set.Changes {
				set.Changes[i].Key = strings.ToLower(set.Changes[i].Key)
			}
		})
	}},
	{"forgets lifetimes", "Law10_LifetimeEnds", func(m *mutant) {
		m.eachSet(func(set *changeSet) {
			for i := range set.Changes {
				set.Changes[i].Lifetime, set.Changes[i].ExpiresAt = 0, time.Time{}
			}
		})
	}},
	{"ends a set's rows with its first", "TransactionEndsRows", func(m *mutant) {
		m.eachSet(func(set *changeSet) {
			for i := range set.Changes {
				set.Changes[i].Lifetime, set.Changes[i].ExpiresAt = set.Changes[0].Lifetime, set.Changes[0].ExpiresAt
			}
		})
	}},
	{"forgets lifetimes in transactions", "TransactionEndsRows", func(m *mutant) {
		m.caps = func(c *lockstep.Capabilities[string, Doc]) {
			apply := c.Apply
			c.Apply = func(ctx context.Context, txn lockstep.Txn, set changeSet) (outcome, error) {
				set.Changes = slices.Clone(set.Changes)
				for i := range set.Changes {
					set.Changes[i].Lifetime, set.Changes[i].ExpiresAt = 0, time.Time{}
				}
				return apply(ctx, txn, set)
			}
		}
	}},
	{"takes deleting an expired row for nothing", "Law10_DeletingAnExpiredRowIsAChange", func(m *mutant) {
		m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			edited, at := slices.Clone(sets), make(map[int]row)
			for i, set := range sets {
				if len(set.Changes) == 1 && set.Changes[0].Delete {
					key := set.Changes[0].Key
					rows, _ := m.Store.Load(ctx, []string{key})
					if r := rows[key]; !r.Exists {
						edited[i], at[i] = changeSet{}, r
					}
				}
			}
			outcomes, err := m.Store.Commit(ctx, edited)
			for i, r := range at {
				outcomes[i] = outcome{Rows: []row{r}, Existed: []bool{false}}
			}
			return outcomes, err
		}
	}},
	{"ignores contexts", "Law11_AnEndedContextIsNoticed", func(m *mutant) {
		m.load = func(_ context.Context, keys []string) (map[string]row, error) {
			return m.Store.Load(context.Background(), keys)
		}
	}},
	{"shares values", "ValuesAreNotShared", func(m *mutant) {
		m.Store = memstore.New(memstore.Options[string, Doc]{Clone: func(d Doc) Doc { return d }})
	}},
	{"checks, then acts", "ExpectAbsentIsWonByOne", checkThenAct},
	{"checks, then acts", "IncrementsAreNotLost", checkThenAct},
	{"checks, then acts", "HistoriesAreLinearizable", checkThenAct},
	{"takes a tombstone for a row", "ExpectVersion", func(m *mutant) {
		m.eachSet(func(set *changeSet) {
			for i, c := range set.Changes {
				rows, _ := m.Store.Load(context.Background(), []string{c.Key})
				if r := rows[c.Key]; !r.Exists && c.Expect.Version == r.Version {
					set.Changes[i].Expect = lockstep.Expect{}
				}
			}
		})
	}},
	{"ignores checks", "ChecksOfRows", func(m *mutant) { m.eachSet(func(set *changeSet) { set.Checks = nil }) }},
	{"ignores checks", "TransfersKeepTheSum", func(m *mutant) { m.eachSet(func(set *changeSet) { set.Checks = nil }) }},
	{"ignores checks of absent rows", "ChecksOfAbsentPreventWriteSkew", func(m *mutant) {
		m.eachSet(func(set *changeSet) {
			set.Checks = slices.DeleteFunc(slices.Clone(set.Checks), func(c check) bool { return c.Absent })
		})
	}},
	{"ends a scan early", "ScanCoversEachRowOnce", func(m *mutant) {
		m.caps = func(c *lockstep.Capabilities[string, Doc]) {
			scan := c.Scan
			c.Scan = func(ctx context.Context, cursor any, limit int) (lockstep.Page[string, Doc], error) {
				page, err := scan(ctx, cursor, limit)
				if cursor != nil {
					page.Next = nil
				}
				return page, err
			}
		}
	}},
	{"does not delete all", "DeleteAllEmptiesTheTable", func(m *mutant) {
		m.eachSet(func(set *changeSet) { set.DeleteAll = false })
	}},
	{"makes the changes beside DeleteAll", "DeleteAllIsAlone", func(m *mutant) {
		m.eachSet(func(set *changeSet) {
			if set.DeleteAll && len(set.Changes) > 0 {
				set.DeleteAll = false
			}
		})
	}},
	{"forgets what is beside DeleteAll", "DeleteAllIsAlone", func(m *mutant) {
		m.eachSet(func(set *changeSet) {
			if set.DeleteAll {
				set.Changes, set.Checks = nil, nil
			}
		})
	}},
	{"commits as it applies", "TransactionRollsBack", func(m *mutant) {
		m.caps = func(c *lockstep.Capabilities[string, Doc]) {
			c.Begin = func(context.Context) (lockstep.Txn, error) { return idleTxn{}, nil }
			c.Apply = func(ctx context.Context, _ lockstep.Txn, set changeSet) (outcome, error) {
				outcomes, err := m.Store.Commit(ctx, []changeSet{set})
				return outcomes[0], err
			}
		}
	}},
	{"honours half of what it does not declare", "Law12_WhatIsLackingIsRefused", func(m *mutant) {
		m.caps = func(c *lockstep.Capabilities[string, Doc]) { c.DeleteAll, c.Lifetimes = false, false }
	}},
	{"ignores what it does not declare", "Law12_WhatIsLackingIsRefused", func(m *mutant) {
		m.caps = func(c *lockstep.Capabilities[string, Doc]) { c.Lifetimes = false }
		m.eachSet(func(set *changeSet) {
			for i := range set.Changes {
				set.Changes[i].Lifetime, set.Changes[i].ExpiresAt = 0, time.Time{}
			}
		})
	}},
	{"mends strange texts", "StrangeValues", func(m *mutant) {
		m.eachSet(func(set *changeSet) {
			for i := range set.Changes {
				set.Changes[i].Value.Title = strings.ReplaceAll(set.Changes[i].Value.Title, "\x00", "")
			}
		})
	}},
	{"refuses plain texts", "StrangeValues", func(m *mutant) {
		m.refuses(func(set changeSet) bool { return strings.Contains(set.Changes[0].Value.Title, "'") })
	}},
	{"lets a constraint fail the batch", "Law3_WhatTheDatabaseRefusesIsLeftOutAlone", func(m *mutant) {
		m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			if slices.ContainsFunc(sets, breaksConstraint) {
				return slices.Repeat([]outcome{{Err: lockstep.ErrInvalid}}, len(sets)), nil
			}
			return m.Store.Commit(ctx, sets)
		}
	}},
	{"commits what a constraint leaves of a set", "Law3_WhatTheDatabaseRefusesIsLeftOutAlone", func(m *mutant) { m.commit = m.piecemeal }},
	{"takes a constraint for a conflict", "Law3_WhatTheDatabaseRefusesIsLeftOutAlone", func(m *mutant) {
		m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			outcomes, err := m.Store.Commit(ctx, sets)
			for i := range outcomes {
				if errors.Is(outcomes[i].Err, lockstep.ErrInvalid) {
					outcomes[i].Err = &lockstep.ConflictError{Key: sets[i].Changes[0].Key}
				}
			}
			return outcomes, err
		}
	}},
	{"reads past a transaction", "TransactionReadsWhatItWrites", func(m *mutant) {
		m.caps = func(c *lockstep.Capabilities[string, Doc]) {
			c.Read = func(ctx context.Context, _ lockstep.Txn, keys []string) (map[string]row, error) {
				return m.Store.Load(ctx, keys)
			}
		}
	}},
	{"reads in a transaction that is over", "TransactionReadsWhatItWrites", func(m *mutant) {
		m.caps = func(c *lockstep.Capabilities[string, Doc]) {
			read := c.Read
			c.Read = func(ctx context.Context, txn lockstep.Txn, keys []string) (map[string]row, error) {
				rows, err := read(ctx, txn, keys)
				if err != nil {
					return nil, nil
				}
				return rows, nil
			}
		}
	}},
	{"commits a transaction without it", "TransactionCommits", func(m *mutant) {
		m.txns(func(txn lockstep.Txn) lockstep.Txn { return swapped{txn, txn.Rollback} }, nil)
	}},
	{"forgets a failed Apply", "TransactionFailsAsAWhole", func(m *mutant) {
		m.txns(nil, func(apply applying) applying {
			return func(ctx context.Context, txn lockstep.Txn, set changeSet) (outcome, error) {
				for i := range set.Changes {
					set.Changes[i].Expect = lockstep.Expect{}
				}
				return apply(ctx, txn, set)
			}
		})
	}},
	{"ignores checks in transactions", "TransactionChecks", applyUnchecked},
	{"ignores checks in transactions", "TransactionsExcludeEachOther", applyUnchecked},
	{"commits no transaction", "TransactionsExcludeEachOther", func(m *mutant) {
		m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			if len(sets[0].Checks) > 0 {
				return []outcome{{Err: &lockstep.ConflictError{Key: "a"}}}, nil
			}
			return m.Store.Commit(ctx, sets)
		}
		m.txns(nil, func(applying) applying {
			return func(context.Context, lockstep.Txn, changeSet) (outcome, error) {
				return outcome{Err: &lockstep.ConflictError{Key: "a"}}, nil
			}
		})
	}},
	{"fails transactions for no reason", "TransactionsExcludeEachOther", func(m *mutant) {
		m.txns(nil, func(applying) applying {
			return func(context.Context, lockstep.Txn, changeSet) (outcome, error) {
				return outcome{}, errors.New("no reason")
			}
		})
	}},
	{"commits a transaction store by store", "TransactionSpansStores", func(m *mutant) {
		m.txns(nil, func(applying) applying {
			return func(ctx context.Context, _ lockstep.Txn, set changeSet) (outcome, error) {
				outcomes, err := memstore.New(memstore.Options[string, Doc]{}).Commit(ctx, []changeSet{set})
				return outcomes[0], err
			}
		})
	}},
	{"is deaf to its context once it has begun", "TransactionWaitsNoLongerThanItsContext", func(m *mutant) {
		m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			if ctx.Err() != nil {
				return nil, lockstep.ErrUnavailable
			}
			// It would wait for ever; a test that has failed has to end.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*patience)
			defer cancel()
			return m.Store.Commit(ctx, sets)
		}
	}},
	{"says that each row was there", "ExistedTellsWhetherARowWasThere", func(m *mutant) { m.existed(true) }},
	{"says that no row was there", "ExistedTellsWhetherARowWasThere", func(m *mutant) { m.existed(false) }},
}

type applying = func(ctx context.Context, txn lockstep.Txn, set changeSet) (outcome, error)

// txns replaces transactions and what applies sets in them, where not nil.
func (m *mutant) txns(txn func(lockstep.Txn) lockstep.Txn, apply func(applying) applying) {
	m.caps = func(c *lockstep.Capabilities[string, Doc]) {
		begin, inner := c.Begin, c.Apply
		if txn != nil {
			c.Begin = func(ctx context.Context) (lockstep.Txn, error) {
				t, err := begin(ctx)
				if err != nil {
					return nil, err
				}
				return txn(t), nil
			}
			c.Apply = func(ctx context.Context, t lockstep.Txn, set changeSet) (outcome, error) {
				return inner(ctx, t.(swapped).Txn, set)
			}
		}
		if apply != nil {
			c.Apply = apply(inner)
		}
	}
}

func applyUnchecked(m *mutant) {
	m.txns(nil, func(apply applying) applying {
		return func(ctx context.Context, txn lockstep.Txn, set changeSet) (outcome, error) {
			set.Checks = nil
			return apply(ctx, txn, set)
		}
	})
}

// swapped is a transaction with another Commit.
type swapped struct {
	lockstep.Txn
	commit func(ctx context.Context) error
}

func (t swapped) Commit(ctx context.Context) error { return t.commit(ctx) }

// existed answers so for every change.
func (m *mutant) existed(answer bool) {
	m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
		outcomes, err := m.Store.Commit(ctx, sets)
		for i := range outcomes {
			for j := range outcomes[i].Existed {
				outcomes[i].Existed[j] = answer
			}
		}
		return outcomes, err
	}
}

// constrained is a store whose database has a constraint.
func constrained(inner Store) Store {
	m := &mutant{Store: inner}
	m.refuses(breaksConstraint)
	m.txns(nil, func(apply applying) applying {
		return func(ctx context.Context, txn lockstep.Txn, set changeSet) (outcome, error) {
			if !breaksConstraint(set) {
				return apply(ctx, txn, set)
			}
			return outcome{Err: fmt.Errorf("a constraint: %w", lockstep.ErrInvalid)}, txn.Rollback(ctx)
		}
	})
	return m
}

func breaksConstraint(set changeSet) bool {
	return slices.ContainsFunc(set.Changes, func(c change) bool { return c.Value.Title == "refused" })
}

// refuses leaves out the sets that the database, of its own accord, refuses.
func (m *mutant) refuses(refused func(changeSet) bool) {
	m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
		rest := slices.Clone(sets)
		for i, set := range sets {
			if refused(set) {
				rest[i] = changeSet{}
			}
		}
		outcomes, err := m.Store.Commit(ctx, rest)
		for i, set := range sets {
			if err == nil && refused(set) {
				outcomes[i] = outcome{Err: fmt.Errorf("a constraint: %w", lockstep.ErrInvalid)}
			}
		}
		return outcomes, err
	}
}

type idleTxn struct{}

func (idleTxn) Commit(context.Context) error         { return nil }
func (idleTxn) Rollback(context.Context) error       { return nil }
func (idleTxn) Settle(context.Context) (bool, error) { return true, nil }

func (m *mutant) piecemeal(ctx context.Context, sets []changeSet) ([]outcome, error) {
	var outcomes []outcome
	for _, set := range sets {
		var whole outcome
		for _, c := range set.Changes {
			o, err := m.Store.Commit(ctx, []changeSet{{Changes: []change{c}, Checks: set.Checks}})
			if err != nil {
				return nil, err
			}
			whole.Err = errors.Join(whole.Err, o[0].Err)
			whole.Existed = append(whole.Existed, o[0].Existed...)
			time.Sleep(time.Millisecond) // the others' turn, by the bubble's clock
		}
		outcomes = append(outcomes, whole)
	}
	return outcomes, nil
}

func lagging(m *mutant) {
	var mu sync.Mutex
	before := make(map[string]row)
	m.load = func(ctx context.Context, keys []string) (map[string]row, error) {
		rows, err := m.Store.Load(ctx, keys)
		mu.Lock()
		defer mu.Unlock()
		for key, r := range rows {
			rows[key], before[key] = before[key], r
		}
		return rows, err
	}
}

// checkThenAct decides expectations by what it has read a moment before.
func checkThenAct(m *mutant) {
	m.commit = func(ctx context.Context, sets []changeSet) ([]outcome, error) {
		outcomes := make([]outcome, len(sets))
		for i, set := range sets {
			c := set.Changes[0]
			rows, err := m.Store.Load(ctx, []string{c.Key})
			if err != nil {
				return nil, err
			}
			r := rows[c.Key]
			if c.Expect.Kind == lockstep.ExpectAbsent && r.Exists ||
				c.Expect.Kind == lockstep.ExpectVersion && (!r.Exists || r.Version != c.Expect.Version) {
				outcomes[i].Err = &lockstep.ConflictError{Key: c.Key, Exists: r.Exists, Version: r.Version}
				continue
			}
			time.Sleep(time.Millisecond) // the others' turn, by the bubble's clock
			c.Expect = lockstep.Expect{}
			o, err := m.Store.Commit(ctx, []changeSet{{Changes: []change{c}}})
			if err != nil {
				return nil, err
			}
			outcomes[i] = o[0]
		}
		return outcomes, nil
	}
}

// mutantRuns is how often a law may pass for a mutant before it counts as blind.
const mutantRuns = 10

// TestTheSuiteNoticesMutants runs each mutant's law against it, which must fail,
// and against a store that is as it should be, which must pass.
func TestTheSuiteNoticesMutants(t *testing.T) {
	for _, c := range mutants {
		t.Run(c.name+"/"+c.law, func(t *testing.T) {
			if failures := tryLaw(t, c.law, func(*mutant) {}); failures != nil {
				t.Errorf("%s fails for a store without faults: %q", c.law, failures)
			}
			// A law about races draws its histories at random, and some histories are
			// sound by luck whatever the store does: some runs must notice, not each.
			for range mutantRuns {
				if tryLaw(t, c.law, c.mutate) != nil {
					return
				}
			}
			t.Errorf("%s passes %d times for a store that %s", c.law, mutantRuns, c.name)
		})
	}
}

// tryLaw runs one law in a bubble and returns what it complains about.
func tryLaw(t *testing.T, name string, mutate func(*mutant)) []string {
	t.Helper()
	all := laws()
	i := slices.IndexFunc(all, func(l law) bool { return l.name == name })
	if i < 0 {
		t.Fatalf("there is no law %s", name)
	}
	open := func(script string) Store {
		m := &mutant{Store: Inject(constrained(memstore.New(memstore.Options[string, Doc]{})), fault.MustParse(script), 1)}
		mutate(m)
		return m
	}
	h := Harness{
		Refused: func(_ testing.TB, _ Store, key string) change { return put(key, Doc{Title: "refused"}) },
		OpenTwo: func(testing.TB) (a, b Store) {
			db := memstore.NewDatabase()
			var two [2]Store
			for i := range two {
				m := &mutant{Store: Inject(constrained(memstore.New(memstore.Options[string, Doc]{Database: db})), fault.Script{}, 1)}
				mutate(m)
				two[i] = m
			}
			return two[0], two[1]
		},
		Open:           func(testing.TB) Store { return open("") },
		OpenUnreliable: func(testing.TB) Store { return open("commit 25%: lose request; commit 25%: lose reply") },
	}
	rec := &recorder{}
	synctest.Test(t, func(*testing.T) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			all[i].test(h.open(rec))
		}()
		<-done
		time.Sleep(time.Hour) // the bubble's: a mutant that its test has left gives up
	})
	return rec.failures
}

// recorder is a testing.TB that takes note of failures.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failures []string
}

func (r *recorder) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, text)
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failures != nil
}

func (r *recorder) Helper()                           {}
func (r *recorder) Log(...any)                        {}
func (r *recorder) Logf(string, ...any)               {}
func (r *recorder) Error(args ...any)                 { r.note(fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.note(fmt.Sprintf(format, args...)) }
func (r *recorder) Fatal(args ...any)                 { r.note(fmt.Sprint(args...)); runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) {
	r.note(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

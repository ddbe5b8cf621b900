package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/text"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// TogetherFigures are those of the last scene. Amounts are in cents.
type TogetherFigures struct {
	Clients int           `json:"clients"`
	Rows    int           `json:"rows"`
	Room    int           `json:"room"`
	Took    time.Duration `json:"took_ns"`

	Reads      int64   `json:"reads"`
	ReadErrors int64   `json:"read_errors"`
	StaleReads int64   `json:"stale_reads"`
	HitRate    float64 `json:"hit_rate"`
	Evictions  uint64  `json:"evictions"`

	Sets      Tally `json:"sets"`
	Updates   Tally `json:"updates"`
	Charges   Tally `json:"conditional_sets"`
	Transfers Tally `json:"transactions"`

	Batches uint64 `json:"batches"`
	Retries uint64 `json:"retries"`

	Failures     int `json:"injected_failures"`
	LostReplies  int `json:"injected_lost_replies"`
	LostRequests int `json:"injected_lost_requests"`

	InDoubt    int   `json:"in_doubt"`
	Expected   int64 `json:"expected_sum_cents"`
	Sum        int64 `json:"sum_cents"`
	WrongTills int   `json:"wrong_tills"`
}

// Tally is how the writes of one kind have ended.
type Tally struct {
	Committed int64 `json:"committed"`
	// Not applied: refused by the transaction's own function, because the row had
	// changed, because the database could not be had.
	Refused     int64 `json:"refused"`
	Conflicts   int64 `json:"conflicts"`
	Unavailable int64 `json:"unavailable"`
	// Unknown writes were all settled; Applied of them had happened.
	Unknown int64 `json:"unknown"`
	Applied int64 `json:"unknown_applied"`
}

func together(ctx context.Context, s *stage) (any, error) {
	f := &TogetherFigures{Clients: min(64, s.some(320, 8)), Rows: min(1000, s.some(5000, 100))}
	f.Room = f.Rows * 3 / 10
	accounts, err := openTable(ctx, s, recipe[Account]{
		name: "accounts", open: s.options.Database.Accounts, faults: true,
		retry:   &resilience.RetryPolicy{BaseDelay: 2 * time.Millisecond, MaxDelay: 50 * time.Millisecond},
		options: lockstep.Options[string, Account]{MaxEntries: f.Room},
	})
	if err != nil {
		return nil, err
	}
	initial := func(i int) Account { return Account{Owner: personName(i), Balance: 100_00} }
	if err := accounts.fill(ctx, f.Rows, accountKey, initial); err != nil {
		return nil, err
	}
	if err := accounts.fill(ctx, f.Clients, tillKey, initial); err != nil {
		return nil, err
	}
	s.say("%d clients on one cache with room for %d of %s rows: reads, blind writes, updates, fees on the condition that the account is still as it was read, and transfers between accounts. All the while commits and loads are late, some fail and are tried again, and some commits lose their request or their reply.",
		f.Clients, f.Room, text.Count(f.Rows+f.Clients))

	m := newMixture(f, accounts, initial)
	before := accounts.cache.Stats()
	accounts.faults.Play(fault.MustParse(`
		commit *:  latency 0ms..1ms
		load 5%:   latency 1ms..3ms
		load 2%:   fail
		commit 5%: fail
		commit 3%: lose reply
		commit 2%: lose request
		commit 1%: lose reply, late
		settle 20%: fail
	`))
	done := s.progress(fmt.Sprintf("%d clients", f.Clients))
	defer done()
	end := time.Now().Add(s.lasting(5 * time.Second))
	f.Took, err = took(func() error {
		return clients(f.Clients, func(i int) error { return m.client(ctx, i, end) })
	})
	done()
	accounts.faults.Play(fault.Script{})
	if err != nil {
		return nil, err
	}
	f.count(m, before, accounts.cache.Stats(), accounts.faults.Counts())
	if err := f.check(ctx, s, m); err != nil {
		return nil, err
	}
	f.show(s)
	return f, nil
}

func (f *TogetherFigures) count(m *mixture, before, after lockstep.Stats, faults fault.Counts) {
	f.Reads, f.ReadErrors, f.StaleReads = m.reads.Load(), m.readErrors.Load(), m.stale.Load()
	hits, misses := after.Hits-before.Hits, after.Misses-before.Misses
	f.HitRate = ratio(float64(hits), float64(hits+misses))
	f.Evictions = after.Evictions - before.Evictions
	f.Batches, f.Retries = after.Batches-before.Batches, after.Retries-before.Retries
	f.Failures, f.LostReplies, f.LostRequests = faults.Failures, faults.LostReplies, faults.LostRequests
	f.InDoubt, f.Expected = after.InDoubt, m.money.Load()
}

// check reads the table past the cache.
func (f *TogetherFigures) check(ctx context.Context, s *stage, m *mixture) error {
	rows, err := readRows[Account](ctx, s, m.accounts.sql)
	if err != nil {
		return err
	}
	for key, row := range rows {
		if !strings.HasPrefix(key, "till:") {
			f.Sum += row.value.Balance
		}
	}
	for i, till := range m.tills {
		if rows[tillKey(i)].value != till {
			f.WrongTills++
		}
	}
	return nil
}

func (f *TogetherFigures) show(s *stage) {
	tallies := []Tally{f.Sets, f.Updates, f.Charges, f.Transfers}
	rows := [][]string{{"", "committed", "refused", "conflict", "away", "unknown", "applied"}}
	unknown := int64(0)
	for i, name := range []string{"blind writes", "updates", "fees", "transfers"} {
		t := tallies[i]
		rows = append(rows, []string{name, text.Count(t.Committed), text.Count(t.Refused), text.Count(t.Conflicts), text.Count(t.Unavailable), text.Count(t.Unknown), text.Count(t.Applied)})
		unknown += t.Unknown
	}
	s.show("lrrrrrr", rows...)
	s.say("“Refused” are transfers without the money for them, “away” are writes for which the database was unavailable: resilience.Retry does not repeat a transaction that has begun. Unknown outcomes were settled; the last column counts those of them that turned out to be applied.")
	s.show("lr",
		[]string{"reads", text.Count(f.Reads)},
		[]string{"answered from memory", text.Percent(f.HitRate)},
		[]string{"evictions", text.Count(f.Evictions)},
		[]string{"commits", text.Count(f.Batches)},
		[]string{"failures injected", text.Count(f.Failures)},
		[]string{"requests or replies lost", text.Count(f.LostRequests + f.LostReplies)},
		[]string{"money that must be there", money(f.Expected)},
		[]string{"money in the database", money(f.Sum)},
	)
	s.expect(f.StaleReads == 0, "no read found a row older than what somebody had been told before")
	s.expect(f.Sum == f.Expected, "every payment is in the database once, and none that was not made")
	s.expect(f.WrongTills == 0, "each client's own row is what that client wrote last")
	s.expect(f.InDoubt == 0, "all %s unknown outcomes were settled", text.Count(unknown))
}

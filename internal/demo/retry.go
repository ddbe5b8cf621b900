package demo

import (
	"context"
	"errors"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/text"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// RetryFigures are those of the second scene.
type RetryFigures struct {
	MaxAttempts int `json:"max_attempts"`
	// WritesBy[i] and ReadsBy[i] are the calls that took i+1 attempts.
	Writes   int   `json:"writes"`
	WritesBy []int `json:"writes_by_attempts"`
	Reads    int   `json:"reads"`
	ReadsBy  []int `json:"reads_by_attempts"`
	// Injected failures were each followed by a retry or by giving up.
	Injected int    `json:"injected_failures"`
	Retries  uint64 `json:"retries"`
	GivenUp  uint64 `json:"given_up"`
	Errors   int    `json:"errors_seen_by_callers"`

	OutageAttempts int           `json:"outage_attempts"`
	OutageTook     time.Duration `json:"outage_took_ns"`
	OutageError    string        `json:"outage_error"`
	OutageHits     int           `json:"outage_hits"`

	RefusedAttempts int `json:"refused_attempts"`
}

func retries(ctx context.Context, s *stage) (any, error) {
	f := &RetryFigures{MaxAttempts: 6, Writes: s.some(300, 30), Reads: s.some(300, 30)}
	products, err := openTable(ctx, s, recipe[Product]{
		name: "products", open: s.options.Database.Products, faults: true,
		retry: &resilience.RetryPolicy{MaxAttempts: f.MaxAttempts, BaseDelay: 2 * time.Millisecond, MaxDelay: 50 * time.Millisecond},
	})
	if err != nil {
		return nil, err
	}
	if err := f.flaky(ctx, s, products); err != nil {
		return nil, err
	}
	if err := f.outage(ctx, s, products); err != nil {
		return nil, err
	}
	return f, f.refusal(ctx, s, products)
}

// flaky is a database that fails three times in ten.
func (f *RetryFigures) flaky(ctx context.Context, s *stage, products *table[Product]) error {
	products.faults.Play(fault.MustParse("commit 30%: fail; load 30%: fail"))
	defer products.faults.Play(fault.Script{})
	before := products.cache.Stats().Retries

	// call counts the attempts of one call.
	call := func(by *[]int, f func() error) error {
		before := products.cache.Stats().Retries
		err := f()
		n := int(products.cache.Stats().Retries - before)
		for len(*by) <= n {
			*by = append(*by, 0)
		}
		(*by)[n]++
		return err
	}
	unclear := 0
	done := s.progress("failing and trying again")
	defer done()
	for i := range f.Writes {
		err := call(&f.WritesBy, func() error { _, err := products.cache.Set(ctx, productKey(i), productRow(i)); return err })
		if err != nil {
			f.Errors++
			if !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) {
				unclear++
			}
		}
	}
	for i := range f.Reads {
		key := productKey(i % f.Writes)
		products.cache.Invalidate(key)
		err := call(&f.ReadsBy, func() error { _, err := products.cache.Get(ctx, key); return err })
		if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
			f.Errors++
		}
	}
	done()
	stats := products.cache.Stats()
	f.Injected = products.faults.Counts().Failures
	f.Retries, f.GivenUp = stats.Retries-before, stats.RetryFailures

	s.say("A fault injector between the cache and the database makes 30 %% of all operations fail before the database has seen them. resilience.Retry tries up to %d times, and waits a little longer each time.", f.MaxAttempts)
	columns := max(len(f.WritesBy), len(f.ReadsBy))
	header, writes, reads := []string{"attempts made"}, []string{"writes"}, []string{"reads"}
	align := "l"
	cell := func(by []int, i int) string {
		if i >= len(by) || by[i] == 0 {
			return "–"
		}
		return text.Count(by[i])
	}
	for i := range columns {
		header, align = append(header, text.Count(i+1)), align+"r"
		writes, reads = append(writes, cell(f.WritesBy, i)), append(reads, cell(f.ReadsBy, i))
	}
	s.show(align, header, writes, reads)
	s.show("lr",
		[]string{"failures injected", text.Count(f.Injected)},
		[]string{"retries", text.Count(f.Retries)},
		[]string{"given up after " + text.Count(f.MaxAttempts) + " attempts", text.Count(f.GivenUp)},
		[]string{"errors that callers saw", text.Count(f.Errors)},
	)
	s.expect(f.Injected > 0 && uint64(f.Injected) == f.Retries+f.GivenUp, "every failure was followed by a retry, or counted as given up")
	s.expect(uint64(f.Errors) == f.GivenUp && unclear == 0, "callers saw an error only where all attempts had failed")
	return nil
}

// outage is a database that is away.
func (f *RetryFigures) outage(ctx context.Context, s *stage, products *table[Product]) error {
	const key = "sku:outage"
	old := productRow(7)
	if _, err := products.cache.Set(ctx, key, old); err != nil {
		return err
	}
	products.faults.Play(fault.MustParse("commit *: fail; load *: fail"))
	attempts := products.faults.Counts().Commits
	dearer := old
	dearer.Price += 100
	d, err := took(func() error { _, err := products.cache.Set(ctx, key, dearer); return err })
	f.OutageTook, f.OutageAttempts = d, products.faults.Counts().Commits-attempts
	if err != nil {
		f.OutageError = err.Error()
	}
	unavailable := errors.Is(err, lockstep.ErrUnavailable) && !errors.Is(err, lockstep.ErrUnknownOutcome)
	right := true
	for range 1000 {
		if value, err := products.cache.Get(ctx, key); err == nil {
			f.OutageHits++
			right = right && value == old
		}
	}
	products.faults.Play(fault.Script{})
	row, err := products.stored(ctx, s, key)
	if err != nil {
		return err
	}
	s.say("Then the database is away altogether. A write was tried %d times, and refused after %s:", f.OutageAttempts, text.Span(f.OutageTook))
	s.quote(f.OutageError)
	s.say("Of 1,000 reads of that row meanwhile, memory answered %s.", text.Count(f.OutageHits))
	s.expect(f.OutageAttempts == f.MaxAttempts && unavailable, "the caller was told that the write was not applied")
	s.expect(right && f.OutageHits == 1000 && row.value == old, "memory and database still have the old row")
	return nil
}

// refusal is an error that does not pass.
func (f *RetryFigures) refusal(ctx context.Context, s *stage, products *table[Product]) error {
	products.faults.Play(fault.MustParse("commit 1: refuse"))
	defer products.faults.Play(fault.Script{})
	attempts := products.faults.Counts().Commits
	_, err := products.cache.Set(ctx, "sku:refused", productRow(8))
	f.RefusedAttempts = products.faults.Counts().Commits - attempts
	s.say("Not every failure passes. A write that the database refuses for good is not tried again.")
	s.expect(f.RefusedAttempts == 1 && errors.Is(err, lockstep.ErrInvalid), "it was tried once, and its caller told that it was refused")
	return nil
}

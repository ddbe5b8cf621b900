package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/lockstep-cache/lockstep"
)

// settleLaws: unknown outcomes end, and stay ended.
var settleLaws = []law{
	{"Law6_WhatIsSettledStaysSo", law6},
	{"SettleKnowsItsOwn", settleForeign},
}

// settle ends the unknown outcome of one set, as the cache does; known is false
// when the store cannot tell what became of it. A set may have been left out of a
// commit that was applied.
func (s *subject) settle(unknown error) (applied, known bool) {
	if !s.has(Settle) {
		return false, false
	}
	var err error
	for range repeats {
		var settled lockstep.Settlement[Doc]
		if settled, err = s.caps.Settle(s.ctx, unknown); err == nil {
			applied = settled.Applied && (len(settled.Outcomes) == 0 || settled.Outcomes[0].Err == nil)
			return applied, settled.Err == nil
		}
	}
	s.Errorf("Settle does not succeed: %v", err)
	return false, false
}

// law6 needs a store that can be made to lose replies: Harness.OpenUnreliable.
// Several writers, each with a row of its own, go on beside each other. After each
// answer a row must be as the answer says, and stay like that until its writer's
// next commit.
func law6(s *subject) {
	if !s.has(UnknownOutcomes) || !s.has(Settle) {
		return // declared: none can be brought about, or settled
	}
	s.store = s.harness.OpenUnreliable(s)
	s.caps = s.store.Capabilities()
	const writers, writes = 4, 25
	var unknowns, applieds, others atomic.Int64 // others: known not to be applied
	held := make([]Doc, writers)
	stays := func(w int, after string) bool {
		key := fmt.Sprint("key", w)
		rows, err := s.load0(key)
		if err != nil || !rows[key].Value.Equal(held[w]) {
			s.Errorf("%s: key %q is %s (%v), want %v", after, key, show(rows[key]), err, held[w])
			return false
		}
		return true
	}
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			key := fmt.Sprint("key", w)
			for n := range int64(writes) {
				d := doc(n*writers + int64(w) + 1)
				outcomes, err := s.try(s.ctx, set(put(key, d)))
				applied, known := err == nil && outcomes[0].Err == nil, true
				if errors.Is(err, lockstep.ErrUnknownOutcome) {
					unknowns.Add(1)
					applied, known = s.settle(err)
					switch {
					case known && applied:
						applieds.Add(1)
					case known:
						others.Add(1)
					}
				}
				if applied {
					held[w] = d
				}
				if !known {
					rows, err := s.load0(key)
					if err != nil {
						s.Errorf("Load: %v", err)
						return
					}
					held[w] = rows[key].Value
				}
				for range 2 { // what is late may come with the next call
					if !stays(w, fmt.Sprintf("write %d (%v, applied=%t)", n, err, applied)) {
						return
					}
				}
			}
		})
	}
	group.Wait()
	for w := range writers {
		stays(w, "at the end")
	}
	s.expect(unknowns.Load() > 0, "of %d commits on the unreliable store none had an unknown outcome", writers*writes)
	s.expect(applieds.Load() > 0 && others.Load() > 0,
		"of %d unknown outcomes %d were settled as applied and %d as not: Settle has to know some of either kind",
		unknowns.Load(), applieds.Load(), others.Load())
}

// load0 is Load for the goroutines of a law, which must not end its test. A
// failure of an unreliable store is no answer.
func (s *subject) load0(keys ...string) (rows map[string]row, err error) {
	for range repeats {
		if rows, err = s.store.Load(s.ctx, keys); err == nil || !errors.Is(err, lockstep.ErrUnavailable) {
			break
		}
	}
	return rows, err
}

func settleForeign(s *subject) {
	if !s.has(Settle) {
		return // declared: there is nothing to call
	}
	s.put("k", doc(1))
	for _, foreign := range []error{errors.New("no outcome at all"), fmt.Errorf("of another store: %w", lockstep.ErrUnknownOutcome)} {
		settled, err := s.caps.Settle(s.ctx, foreign)
		if err == nil && settled.Err == nil && settled.Applied {
			s.Errorf("Settle(%v) claims that it was applied", foreign)
		}
	}
	s.holds("k", doc(1))
}

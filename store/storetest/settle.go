package storetest

import (
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep"
)

// settleLaws: unknown outcomes end, and stay ended.
var settleLaws = []law{
	{"Law6_WhatIsSettledStaysSo", law6},
	{"SettleKnowsItsOwn", settleForeign},
}

// settle ends an unknown outcome, as the cache does; known is false when the
// store cannot tell what became of it.
func (s *subject) settle(unknown error) (applied, known bool) {
	if !s.has(Settle) {
		return false, false
	}
	var err error
	for range 20 {
		var settled lockstep.Settlement[Doc]
		if settled, err = s.caps.Settle(s.ctx, unknown); err == nil {
			return settled.Applied, settled.Err == nil
		}
	}
	s.Errorf("Settle does not succeed: %v", err)
	return false, false
}

// law6 needs a store that can be made to lose replies: Harness.OpenUnreliable.
// After each answer the row must be as the answer says, and stay like that while
// other commits go on.
func law6(s *subject) {
	if s.harness.OpenUnreliable == nil {
		return // declared: its unknown outcomes cannot be brought about
	}
	s.store = s.harness.OpenUnreliable(s)
	s.caps = s.store.Capabilities()
	unknowns := 0
	held := make(map[string]Doc)
	for n := range int64(60) {
		key := fmt.Sprint("key", n%3)
		outcomes, err := s.try(s.ctx, set(put(key, doc(n))))
		applied, known := err == nil && outcomes[0].Err == nil, true
		if errors.Is(err, lockstep.ErrUnknownOutcome) {
			unknowns++
			applied, known = s.settle(err)
		}
		switch {
		case !known:
			held[key] = s.load1(key).Value
		case applied:
			held[key] = doc(n)
		}
		for key, want := range held {
			if r := s.load1(key); !r.Value.Equal(want) {
				s.Fatalf("write %d (%v, applied=%t): key %q is %s, want %v", n, err, applied, key, show(r), want)
			}
		}
	}
	s.expect(unknowns > 0, "of 60 commits on the unreliable store none had an unknown outcome")
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

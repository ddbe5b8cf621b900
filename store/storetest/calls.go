package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// callLaws: contexts, and what the two sides of a call share: nothing.
var callLaws = []law{
	{"Law11_AnEndedContextIsNoticed", law11Ended},
	{"Law11_CallsReturnSoonAfterTheirContext", law11During},
	{"Law11_ArgumentsAreNotKept", law11Arguments},
	{"ValuesAreNotShared", valuesNotShared},
	{"EmptyCalls", emptyCalls},
	{"CapabilitiesAreConstant", constantCapabilities},
	{"Law12_WhatIsLackingIsRefused", law12},
}

func law11Ended(s *subject) {
	s.put("k", doc(1))
	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	calls := map[string]func() error{
		"Load": func() error { _, err := s.store.Load(ended, []string{"k"}); return err },
	}
	if s.has(Scan) {
		calls["Scan"] = func() error { _, err := s.caps.Scan(ended, nil, 10); return err }
	}
	if s.has(Transactions) {
		calls["Begin"] = func() error {
			txn, err := s.caps.Begin(ended)
			if err == nil {
				err = txn.Rollback(s.ctx)
				s.Error("Begin with an ended context has opened a transaction")
			}
			return err
		}
	}
	for name, call := range calls {
		s.expect(call() != nil, "%s with an ended context returned no error", name)
	}
	s.holds("k", doc(1))
}

// law11During cancels writers at all stages of their commits. Whatever each was
// told must be true of its row.
func law11During(s *subject) {
	const writers, writes = 8, 25
	var group sync.WaitGroup
	for w := range writers {
		key := fmt.Sprint("key", w)
		group.Go(func() {
			held := Doc{}
			for n := range int64(writes) {
				ctx, cancel := context.WithCancel(s.ctx)
				returned := make(chan struct{})
				timer := time.AfterFunc(time.Duration(n*37%19)*50*time.Microsecond, cancel)
				var outcomes []outcome
				var err error
				go func() {
					defer close(returned)
					outcomes, err = s.try(ctx, set(put(key, doc(n))))
				}()
				select {
				case <-returned:
				case <-time.After(patience):
					s.Errorf("Commit has not returned %v after its context ended", patience)
					return
				}
				timer.Stop()
				cancel()

				applied := err == nil && outcomes[0].Err == nil
				if errors.Is(err, lockstep.ErrUnknownOutcome) {
					var known bool
					if applied, known = s.settle(err); !known {
						held = s.load1(key).Value
						continue
					}
				}
				if applied {
					held = doc(n)
				}
				rows, loadErr := s.store.Load(s.ctx, []string{key})
				if loadErr != nil || !rows[key].Value.Equal(held) {
					s.Errorf("write %d of %s: applied=%t (%v), and Load has %s (%v)", n, key, applied, err, show(rows[key]), loadErr)
					return
				}
			}
		})
	}
	group.Wait()
}

func law11Arguments(s *subject) {
	keys := []string{"a", "b"}
	sets := []changeSet{set(put("a", doc(1))), set(put("b", doc(2)))}
	ready := make([]changeSet, len(sets))
	for i, set := range sets {
		var err error
		if ready[i], err = s.prepared(set); err != nil {
			s.Fatalf("Prepare: %v", err)
		}
	}
	shape := slices.Clone(ready)
	outcomes, err := s.store.Commit(s.ctx, ready)
	if err != nil {
		s.Fatalf("Commit: %v", err)
	}
	s.expect(len(ready) == len(shape) && ready[0].Changes[0].Key == "a" && ready[1].Changes[0].Key == "b",
		"Commit has changed the sets that it was given")
	ready[0].Changes[0] = put("x", doc(9))
	ready[1] = changeSet{}
	clear(outcomes)

	rows := s.load(keys...)
	s.expect(keys[0] == "a" && keys[1] == "b", "Load has changed the keys that it was given")
	keys[0] = "x"
	again := s.load("a", "b")
	clear(rows)
	s.expect(len(again) == 2, "two Loads share a map")
	s.holds("a", doc(1))
	s.holds("b", doc(2))
	s.absent("x")
}

// valuesNotShared scribbles over every value that it has passed or was given.
func valuesNotShared(s *subject) {
	scribble := func(body []byte) {
		for i := range body {
			body[i] = '#'
		}
	}
	want := doc(1)
	given := doc(1)
	o := s.write(put("k", given))
	scribble(given.Body)
	s.holds("k", want)

	if o.Rows != nil {
		scribble(o.Rows[0].Value.Body)
		s.holds("k", want)
	}
	scribble(s.load1("k").Value.Body)
	s.holds("k", want)

	if s.has(Prepare) {
		given = doc(1)
		prepared, size, err := s.caps.Prepare(put("p", given))
		if err != nil {
			s.Fatalf("Prepare: %v", err)
		}
		s.expect(size > 0, "Prepare measures %d bytes for %v", size, given)
		scribble(given.Body)
		s.expect(prepared.Value.Equal(want), "the prepared value is shared with the caller's")
		outcomes, err := s.store.Commit(s.ctx, []changeSet{set(prepared)})
		if err != nil || outcomes[0].Err != nil {
			s.Fatalf("Commit: %v, %v", outcomes, err)
		}
		r := s.holds("p", want)
		if !reflect.DeepEqual(prepared.Value, r.Value) {
			s.Errorf("Prepare promises %#v, Load returns %#v", prepared.Value, r.Value)
		}
		scribble(prepared.Value.Body)
		s.holds("p", want)
	}
	if s.has(Clone) {
		r := s.load1("k")
		copied, err := s.caps.Clone(r.Value)
		if err != nil {
			s.Fatalf("Clone: %v", err)
		}
		s.expect(reflect.DeepEqual(copied, r.Value), "the clone of %#v is %#v", r.Value, copied)
		scribble(copied.Body)
		s.expect(bytes.Equal(r.Value.Body, want.Body), "the clone shares its body with its original")
	}
	if s.has(Scan) {
		page, err := s.caps.Scan(s.ctx, nil, 10)
		if err != nil {
			s.Fatalf("Scan: %v", err)
		}
		for _, r := range page.Rows {
			scribble(r.Value.Body)
		}
		s.holds("k", want)
	}
}

func emptyCalls(s *subject) {
	s.expect(len(s.load()) == 0, "Load of no keys returned rows")
	outcomes, err := s.store.Commit(s.ctx, nil)
	s.expect(err == nil && len(outcomes) == 0, "Commit of no sets: %v, %v", outcomes, err)
	o := s.commit(set(), set(put("k", doc(1))))
	s.expect(o[0].Err == nil && o[1].Err == nil, "a set without changes: %v, %v", o[0].Err, o[1].Err)
	s.holds("k", doc(1))
}

func constantCapabilities(s *subject) {
	again := s.store.Capabilities()
	s.expect(maps.Equal(s.harness.features(s.caps), s.harness.features(again)) && s.caps.Name == again.Name &&
		s.caps.Batch == again.Batch && s.caps.Database == again.Database, "Capabilities differ from call to call")
}

// law12 asks for everything that a set can hold and the store does not declare,
// alone and between two sets that it can do.
func law12(s *subject) {
	kept := s.put("kept", doc(1))
	later := time.Now().Add(time.Hour)
	for _, c := range []struct {
		feature Feature
		asked   changeSet
	}{
		{Versions, set(ifVersion(kept.Version, put("kept", doc(2))))},
		{Versions, set(ifVersion(kept.Version+1, put("kept", doc(2))))},
		{Versions, set(ifVersion(kept.Version, erase("kept")))},
		{Checks, changeSet{Changes: []change{put("new", doc(2))}, Checks: []check{seen("kept", kept)}}},
		{Checks, changeSet{Checks: []check{{Key: "new", Absent: true}}}},
		{Atomic, set(put("new", doc(2)), erase("kept"))},
		{Atomic, set(erase("new"), erase("kept"))},
		{Lifetimes, set(lives(time.Hour, put("kept", doc(2))))},
		{Lifetimes, set(until(later, put("new", doc(2))))},
		{DeleteAll, changeSet{DeleteAll: true}},
	} {
		if s.has(c.feature) {
			continue // the laws of the feature are elsewhere
		}
		s.refused(lockstep.ErrUnsupported, c.asked, "kept", "new")
		n := int64(len(c.asked.Changes))
		outcomes, err := s.try(s.ctx, set(put("before", doc(n))), c.asked, set(put("after", doc(n))))
		if err != nil { // Prepare has refused it
			s.expect(errors.Is(err, lockstep.ErrUnsupported), "%s is lacking, and was answered with %v", c.feature, err)
			continue
		}
		s.expect(errors.Is(outcomes[1].Err, lockstep.ErrUnsupported), "%s is lacking, and was answered with %v", c.feature, outcomes[1].Err)
		s.holds("before", doc(n))
		s.holds("after", doc(n))
		if r := s.load1("kept"); !same(r, kept) {
			s.Errorf("%s is lacking, and asking for it has changed %s into %s", c.feature, show(kept), show(r))
		}
		s.absent("new")
	}
}

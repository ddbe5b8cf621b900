package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lockstep-cache/lockstep"
)

// model is what a table should hold: a map. It does not invent versions, it
// learns them from the store, and judges whether they may be.
type model struct {
	rows map[string]modelRow
	// highest is the highest version that each key has had.
	highest map[string]lockstep.Version
}

type modelRow struct {
	value Doc
	// version is what the store has called it; unlearned until it has.
	version lockstep.Version
	// expired: there is a row, and its lifetime is over.
	expired bool
}

// unlearned is the version of a row that was written and not read since. No
// condition is drawn that it would meet.
const unlearned lockstep.Version = math.MinInt64

func newModel() *model {
	return &model{rows: make(map[string]modelRow), highest: make(map[string]lockstep.Version)}
}

func (m *model) exists(key string) bool {
	r, ok := m.rows[key]
	return ok && !r.expired
}

// blocks returns the keys because of which the set must be left out.
func (m *model) blocks(set changeSet, versions bool) []string {
	var because []string
	for _, c := range set.Checks {
		r, exists := m.rows[c.Key], m.exists(c.Key)
		unlike := exists && (versions && r.version != c.Version || !versions && !r.value.Equal(c.Value.(Doc)))
		if c.Absent && exists || !c.Absent && (!exists || unlike) {
			because = append(because, c.Key)
		}
	}
	for _, c := range set.Changes {
		r, exists := m.rows[c.Key], m.exists(c.Key)
		if c.Expect.Kind == lockstep.ExpectAbsent && exists ||
			c.Expect.Kind == lockstep.ExpectVersion && (!exists || r.version != c.Expect.Version) {
			because = append(because, c.Key)
		}
	}
	return because
}

// apply makes the changes of a set that was committed.
func (m *model) apply(set changeSet) {
	if set.DeleteAll {
		clear(m.rows)
	}
	for _, c := range set.Changes {
		if c.Delete {
			delete(m.rows, c.Key)
		} else {
			m.rows[c.Key] = modelRow{
				value:   c.Value,
				version: unlearned,
				expired: !c.ExpiresAt.IsZero() && c.ExpiresAt.Before(time.Now()),
			}
		}
	}
}

// RunModel compares the store with a model over random operations: rapid draws
// batches of sets with conditions, checks, deletions and lifetimes, and after
// each of them every row, and every outcome, must be the model's. A failure is
// reduced to few operations and printed with the flags that replay it. It is
// part of Run; call it alone to run it for longer (-rapid.checks).
func RunModel(t *testing.T, h Harness) {
	t.Helper()
	s := h.open(t)
	rapid.Check(t, func(rt *rapid.T) {
		d := &modelDriver{T: rt, subject: s, model: newModel()}
		d.clean()
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			d.step()
		}
	})
}

// modelDriver drives a store and its model side by side.
type modelDriver struct {
	*rapid.T
	subject *subject
	model   *model
}

var modelKeys = []string{"", "a", "A", "b", "b ", "☃"}

// clean empties the table and learns the versions that the keys have reached.
func (d *modelDriver) clean() {
	var changes []changeSet
	for _, key := range modelKeys {
		changes = append(changes, set(erase(key)))
	}
	if _, err := d.subject.try(context.Background(), changes...); err != nil {
		d.Fatalf("emptying the table: %v", err)
	}
	d.compare()
}

func (d *modelDriver) step() {
	s := d.subject
	if s.has(DeleteAll) && rapid.IntRange(0, 15).Draw(d.T, "kind") == 15 {
		d.commit(changeSet{DeleteAll: true})
		return
	}
	batch := make([]changeSet, rapid.IntRange(1, 4).Draw(d.T, "sets"))
	for i := range batch {
		batch[i] = d.drawSet()
	}
	d.commit(batch...)
}

func (d *modelDriver) drawSet() changeSet {
	s, most := d.subject, 1
	if s.has(Atomic) {
		most = 3
	}
	var set changeSet
	keys := rapid.Permutation(modelKeys).Draw(d.T, "keys")
	for _, key := range keys[:rapid.IntRange(1, most).Draw(d.T, "changes")] {
		c := change{Key: key}
		if c.Delete = rapid.IntRange(0, 3).Draw(d.T, "action") == 0; !c.Delete {
			c.Value = doc(rapid.Int64Range(0, 20).Draw(d.T, "value"))
			if s.has(Lifetimes) {
				switch rapid.IntRange(0, 5).Draw(d.T, "lifetime") {
				case 0:
					c.ExpiresAt = longAgo()
				case 1:
					c.Lifetime = time.Hour
				}
			}
		}
		if s.has(Versions) {
			switch rapid.IntRange(0, 5).Draw(d.T, "expect") {
			case 0:
				c = ifAbsent(c)
			case 1:
				c = ifVersion(d.drawVersion(key), c)
			}
		}
		set.Changes = append(set.Changes, c)
	}
	if s.has(Checks) {
		for range rapid.IntRange(0, 2).Draw(d.T, "checks") {
			set.Checks = append(set.Checks, d.drawCheck())
		}
	}
	return set
}

// drawVersion is the row's, or its tombstone's, or one that is wrong.
func (d *modelDriver) drawVersion(key string) lockstep.Version {
	v := d.model.highest[key]
	if rapid.IntRange(0, 3).Draw(d.T, "wrong") == 0 {
		v--
	}
	return v
}

func (d *modelDriver) drawCheck() check {
	key := rapid.SampledFrom(modelKeys).Draw(d.T, "checked")
	c := check{Key: key, Version: d.drawVersion(key), Absent: !d.model.exists(key), Value: d.model.rows[key].value}
	if rapid.IntRange(0, 5).Draw(d.T, "lie") == 0 {
		c.Absent = !c.Absent
	}
	return c
}

// commit gives the store a batch, and judges set after set, in order, as if each
// had been alone.
func (d *modelDriver) commit(batch ...changeSet) {
	s := d.subject
	outcomes, err := s.try(context.Background(), batch...)
	if err != nil || len(outcomes) != len(batch) {
		d.Fatalf("Commit: %d outcomes, %v", len(outcomes), err)
	}
	for i, set := range batch {
		o := outcomes[i]
		because := d.model.blocks(set, s.has(Versions))
		var conflict *lockstep.ConflictError
		switch {
		case unavailable(o.Err) && overtaken(batch, i):
			// It was not applied, and cannot be made again in its place.
		case len(because) == 0 && o.Err != nil:
			d.Fatalf("set %d %s was left out: %v", i, showSet(set), o.Err)
		case len(because) == 0:
			d.judge(set, o)
		case !errors.As(o.Err, &conflict):
			d.Fatalf("set %d %s must fail because of %q, and was answered with %v", i, showSet(set), because, o.Err)
		case !slices.Contains(because, fmt.Sprint(conflict.Key)):
			d.Fatalf("set %d %s must fail because of %q, and the conflict names %q", i, showSet(set), because, conflict.Key)
		}
	}
	d.compare()
}

// judge compares a committed set's outcome with the model, and makes its changes.
func (d *modelDriver) judge(set changeSet, o outcome) {
	for i, c := range set.Changes {
		existed := d.model.exists(c.Key) && !set.DeleteAll
		if o.Existed != nil && o.Existed[i] != existed {
			d.Fatalf("%s: Existed[%d] is %t, want %t", showSet(set), i, o.Existed[i], existed)
		}
	}
	d.model.apply(set)
	for i, r := range o.Rows { // where there are none, compare learns the versions
		d.learn(set.Changes[i].Key, r)
	}
}

// compare holds the whole table against the model.
func (d *modelDriver) compare() {
	rows, err := d.subject.store.Load(context.Background(), modelKeys)
	if err != nil {
		d.Fatalf("Load: %v", err)
	}
	for _, key := range modelKeys {
		d.learn(key, rows[key])
	}
	if !d.subject.has(Scan) {
		return
	}
	var want, got []string
	for _, key := range modelKeys {
		if d.model.exists(key) {
			want = append(want, key)
		}
	}
	page, err := d.subject.caps.Scan(context.Background(), nil, 100)
	if err != nil {
		d.Fatalf("Scan: %v", err)
	}
	got = slices.Sorted(slices.Values(page.Keys))
	if slices.Sort(want); !slices.Equal(got, want) {
		d.Fatalf("Scan has %q, want %q", got, want)
	}
}

// learn compares a row that the store has shown with the model's, and notes its
// version: the same as before, or a higher one where the row has changed.
func (d *modelDriver) learn(key string, r row) {
	want, ok := d.model.rows[key]
	exists := ok && !want.expired
	if r.Exists != exists || exists && !r.Value.Equal(want.value) {
		d.Fatalf("key %q: the store has %s, the model has %v (exists=%t)", key, show(r), want.value, exists)
	}
	if !d.subject.has(Versions) {
		return
	}
	highest := d.model.highest[key]
	switch {
	case !exists:
	case want.version == unlearned && r.Version <= highest:
		d.Fatalf("key %q: a change gave it version %d, it had %d", key, r.Version, highest)
	case want.version != unlearned && want.version != r.Version:
		d.Fatalf("key %q: its version was %d, and is %d without a change", key, want.version, r.Version)
	}
	d.model.highest[key] = max(highest, r.Version)
	if ok {
		want.version = r.Version
		d.model.rows[key] = want
	}
}

func showSet(set changeSet) string {
	s := ""
	if set.DeleteAll {
		s = "delete all; "
	}
	for _, c := range set.Changes {
		verb := fmt.Sprintf("put %v", c.Value)
		if c.Delete {
			verb = "delete"
		}
		s += fmt.Sprintf("%q %s expecting %v, ", c.Key, verb, c.Expect)
	}
	for _, c := range set.Checks {
		s += fmt.Sprintf("check %q absent=%t version=%d, ", c.Key, c.Absent, c.Version)
	}
	return "[" + s + "]"
}

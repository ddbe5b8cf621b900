package gate

import (
	"errors"
	"testing"
)

func TestACleanLoadFillsMemory(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	if next := g.lands(f, 1); next != nil {
		t.Error("there is a next load")
	}
	g.Leave(f, nil)
	g.holds(mapMemory{"k": 1})
	g.idle()
}

// Invariant 1. Whatever happens to the key between a load's start and its end
// keeps it from filling memory, also when it is over by then.
func TestADisturbedLoadDoesNotFillMemory(t *testing.T) {
	none := mapMemory{}
	for _, c := range []struct {
		name    string
		disturb func(g *rig, f *flight)
		holds   mapMemory // after the load has landed
		undo    func(g *rig)
	}{
		{name: "a hold", holds: none,
			disturb: func(g *rig, _ *flight) { g.Hold("k", 1, false) },
			undo:    func(g *rig) { g.Release("k", Unchanged[int]()) }},
		{name: "a hold that is over, unchanged", holds: none,
			disturb: func(g *rig, _ *flight) { g.Hold("k", 1, false); g.Release("k", Unchanged[int]()) }},
		{name: "a hold that is over, installed", holds: mapMemory{"k": 2},
			disturb: func(g *rig, _ *flight) { g.Hold("k", 1, false); g.Release("k", Install(2)) }},
		{name: "a hold that is over, dropped", holds: none,
			disturb: func(g *rig, _ *flight) { g.Hold("k", 1, true); g.Release("k", Drop[int]()) }},
		{name: "an invalidation", holds: none,
			disturb: func(g *rig, _ *flight) { g.Invalidate("k") }},
		{name: "an invalidation of all keys", holds: none,
			disturb: func(g *rig, _ *flight) { g.InvalidateAll() }},
		{name: "an observer", holds: none,
			disturb: func(g *rig, _ *flight) { g.Observe("k", usable) }},
		{name: "a hold on all keys", holds: none,
			disturb: func(g *rig, _ *flight) { g.HoldAll() },
			undo:    func(g *rig) { g.ReleaseAll() }},
		{name: "a hold on all keys that is over", holds: none,
			disturb: func(g *rig, _ *flight) { g.HoldAll(); g.ReleaseAll() }},
		{name: "its last reader leaves", holds: none,
			disturb: func(g *rig, f *flight) { g.Leave(f, nil); f.waiters++ }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t)
			f := g.starts("k")
			c.disturb(g, f)
			g.lands(f, 1)
			g.Leave(f, nil)
			g.holds(c.holds)
			if c.undo != nil {
				c.undo(g)
			}
			g.idle()
			// The next load is not troubled by what happened to this one.
			g.Invalidate("k")
			f = g.starts("k")
			g.lands(f, 3)
			g.Leave(f, nil)
			g.holds(mapMemory{"k": 3})
		})
	}
}

// What happens to another key has no effect, also one of the same shard.
func TestOtherKeysDoNotDisturbALoad(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	for _, key := range []string{"l", "m", "n"} {
		g.Hold(key, 1, true)
		g.Release(key, Install(7))
		g.Invalidate(key)
	}
	g.ObserveBusy()
	g.lands(f, 1)
	g.holds(mapMemory{"k": 1})
}

func TestALoadThatMustNotBeKept(t *testing.T) {
	g := newRig(t)
	failed := errors.New("failed")
	f := g.starts("k")
	g.Land(f, 1, failed, true)
	if _, err := f.Result(); err != failed {
		t.Errorf("the flight's error is %v", err)
	}
	g.holds(mapMemory{})
	f = g.starts("k")
	g.Land(f, 1, nil, false)
	g.holds(mapMemory{})
	g.idle()
}

// Invariant 2.
func TestReadersShareACleanLoad(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	g.shares("k", f)
	g.shares("k", f)
	if next := g.lands(f, 1); next != nil {
		t.Error("there is a next load")
	}
	g.idle()
}

func TestNobodySharesADisturbedLoad(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	g.Hold("k", 1, false)
	g.Release("k", Drop[int]())
	next := g.waits("k", f)
	g.shares("k", next)
	if got := g.lands(f, 1); got != next {
		t.Fatal("the next load does not come next")
	}
	g.holds(mapMemory{})
	g.shares("k", next) // it runs now, and is clean
	g.lands(next, 2)
	g.holds(mapMemory{"k": 2})
	g.idle()
}

func TestNobodySharesALoadOfABusyKey(t *testing.T) {
	g := newRig(t)
	g.Hold("k", 1, true)
	f := g.starts("k")
	next := g.waits("k", f)
	if got := g.lands(f, 1); got != next {
		t.Fatal("the next load does not come next")
	}
	third := g.waits("k", next)
	g.Release("k", Install(2))
	g.holds(mapMemory{"k": 2})
	g.lands(next, 1) // read before the commit
	g.holds(mapMemory{"k": 2})
	// Memory has it by now, but the third has begun to wait.
	g.lands(third, 2)
	g.idle()
}

// A load that began while its key was busy does not become clean when the key is
// not.
func TestADisturbedLoadStaysSo(t *testing.T) {
	g := newRig(t)
	g.Hold("k", 1, true)
	f := g.starts("k")
	g.Release("k", Drop[int]())
	next := g.waits("k", f)
	g.lands(f, 1)
	g.holds(mapMemory{})
	g.lands(next, 2)
	g.holds(mapMemory{"k": 2})
}

func TestAReaderWhoMissedFindsWhatHasLanded(t *testing.T) {
	g := newRig(t)
	g.lands(g.starts("k"), 1)
	f, start, e := g.Join("k", usable)
	if f != nil || start || e != 1 {
		t.Errorf("Join = %v, %v, %d", f, start, e)
	}
	f, start, _ = g.Join("k", func(int) bool { return false }) // it is outdated
	if f == nil || !start {
		t.Errorf("an unusable entry is used")
	}
}

// A refresh does not take memory's word, nor that of a load which began before.
func TestRefresh(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	next, start := g.refreshes("k")
	if next == f || start {
		t.Fatal("a refresh shares a load that began before it")
	}
	g.lands(f, 1)
	g.holds(mapMemory{"k": 1})
	g.lands(next, 2)
	g.holds(mapMemory{"k": 2})

	f, start = g.refreshes("k")
	if !start {
		t.Fatal("a refresh of an idle key does not load")
	}
	g.lands(f, 3)
	g.holds(mapMemory{"k": 3})
}

func TestARefreshThatCannotFillLeavesNoOldCopy(t *testing.T) {
	g := newRig(t)
	g.lands(g.starts("k"), 1)
	f, _ := g.refreshes("k")
	g.Observe("k", usable)
	g.holds(mapMemory{"k": 1})
	g.lands(f, 2)
	g.holds(mapMemory{})
}

func TestAFailedRefreshLeavesTheCopy(t *testing.T) {
	g := newRig(t)
	g.lands(g.starts("k"), 1)
	f, _ := g.refreshes("k")
	g.Land(f, 0, errors.New("failed"), false)
	g.holds(mapMemory{"k": 1})
}

// What a refresh has shown, a commit that was under way meanwhile does not undo:
// somebody else may have written after it.
func TestAPublicationDoesNotUndoARefresh(t *testing.T) {
	g := newRig(t)
	g.Hold("k", 1, false) // commits version 1; somebody else commits version 2
	f, _ := g.refreshes("k")
	g.lands(f, 2)
	g.Release("k", Install(1))
	g.holds(mapMemory{})
}

// Readers who leave.
func TestALoadsContextEndsWithItsLastReader(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	g.shares("k", f)
	g.Leave(f, nil)
	if f.Ctx.Err() != nil {
		t.Fatal("a load ended with a reader who was not the last")
	}
	g.Leave(f, nil)
	if f.Ctx.Err() == nil {
		t.Fatal("a load goes on for nobody")
	}
	next := g.waits("k", f) // nobody shares a load that was told to end
	if got := g.Land(f, 0, f.Ctx.Err(), false); got != next {
		t.Fatal("a reader waits for a load that nobody runs")
	}
	g.lands(next, 1)
	g.holds(mapMemory{"k": 1})
	g.idle()
}

func TestALoadThatNobodyWaitsForAnyMoreIsNotRun(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	g.Invalidate("k")
	next := g.waits("k", f)
	g.Leave(next, nil)
	if got := g.lands(f, 1); got != nil {
		t.Error("a load runs for nobody")
	}
	g.idle()
}

func TestLeavingAfterLanding(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	g.Invalidate("k")
	next := g.waits("k", f)
	g.lands(f, 1)
	g.Leave(f, nil)
	g.Leave(next, nil) // it runs
	if next.Ctx.Err() == nil {
		t.Error("a load goes on for nobody")
	}
	g.lands(next, 2)
	g.holds(mapMemory{})
	g.idle()
}

func TestFlightsEndWithTheGatesLife(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	g.end()
	if f.Ctx.Err() == nil {
		t.Error("a flight outlives its gate")
	}
}

// Invariant 4.
func TestTheLastHoldDecides(t *testing.T) {
	type step func(g *rig)
	hold := func(owner uint64) step { return func(g *rig) { g.Hold("k", owner, false) } }
	release := func(p Publication[int]) step { return func(g *rig) { g.Release("k", p) } }
	holds := func(versions ...int) step {
		return func(g *rig) {
			g.t.Helper()
			want := mapMemory{}
			for _, v := range versions {
				want["k"] = v
			}
			g.holds(want)
		}
	}
	unchanged, drop := Unchanged[int](), Drop[int]()
	for _, c := range []struct {
		name  string
		steps []step // memory has version 1 before
	}{
		{"one, installed", []step{hold(1), holds(1), release(Install(2)), holds(2)}},
		{"one, unchanged", []step{hold(1), holds(1), release(unchanged), holds(1)}},
		{"one, dropped", []step{hold(1), holds(1), release(drop), holds()}},
		{"two of a batch", []step{hold(1), hold(1), release(Install(2)), holds(), release(Install(3)), holds(3)}},
		{"the second unchanged", []step{hold(1), hold(1), release(Install(2)), holds(), release(unchanged), holds(2)}},
		{"the first unchanged", []step{hold(1), hold(1), release(unchanged), holds(1), release(Install(2)), holds(2)}},
		{"both unchanged", []step{hold(1), hold(1), release(unchanged), release(unchanged), holds(1)}},
		{"the second dropped", []step{hold(1), hold(1), release(Install(2)), release(drop), holds()}},
		{"the first dropped", []step{hold(1), hold(1), release(drop), holds(), release(Install(2)), holds(2)}},
		{"two owners", []step{hold(1), hold(2), release(Install(2)), holds(), release(Install(3)), holds()}},
		{"two owners, one unchanged", []step{hold(1), hold(2), release(unchanged), holds(1), release(Install(2)), holds()}},
		{"two owners, both unchanged", []step{hold(1), hold(2), release(unchanged), release(unchanged), holds(1)}},
		{"two owners, one after the other", []step{hold(1), release(Install(2)), hold(2), release(Install(3)), holds(3)}},
		{"a second owner who is gone", []step{hold(1), hold(2), release(unchanged), hold(1), release(Install(2)), release(Install(3)), holds()}},
		{"invalidated meanwhile", []step{hold(1), func(g *rig) { g.Invalidate("k") }, holds(), release(Install(2)), holds()}},
		{"all invalidated meanwhile", []step{hold(1), func(g *rig) { g.InvalidateAll() }, holds(), release(Install(2)), holds()}},
		{"observed meanwhile", []step{hold(1), func(g *rig) { g.Observe("k", usable) }, holds(1), release(Install(2)), holds()}},
		{"all held meanwhile", []step{hold(1), func(g *rig) { g.HoldAll() }, release(Install(2)), holds(), func(g *rig) { g.ReleaseAll() }, holds()}},
		{"all held meanwhile and let go", []step{hold(1), func(g *rig) { g.HoldAll(); g.ReleaseAll() }, release(Install(2)), holds()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t)
			g.memory["k"] = 1
			for _, step := range c.steps {
				step(g)
			}
			g.idle()
			// Nothing of it is left to trouble the next commit.
			g.Hold("k", 9, false)
			g.Release("k", Install(9))
			g.holds(mapMemory{"k": 9})
		})
	}
}

func TestReleaseOfAKeyThatIsNotHeld(t *testing.T) {
	g := newRig(t)
	defer func() {
		if recover() == nil {
			t.Error("it does not panic")
		}
	}()
	g.Release("k", Unchanged[int]())
}

// An old copy answers until its writer knows that it is old, unless it must not.
func TestHoldEvicts(t *testing.T) {
	g := newRig(t)
	g.memory["k"], g.memory["l"] = 1, 1
	g.Hold("k", 1, false)
	g.Hold("l", 1, true)
	g.holds(mapMemory{"k": 1})
	g.Evict("k")
	g.holds(mapMemory{})
	g.Release("k", Install(2)) // its caller has left, and it was committed
	g.Release("l", Unchanged[int]())
	g.holds(mapMemory{"k": 2})
}

// Invariant 5.
func TestALoadThatLandsOnABusyKeyTakesTheCopyAway(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	g.Hold("k", 1, false)
	g.Release("k", Install(1))
	g.Hold("k", 2, false) // commits version 2, which the load reads
	g.holds(mapMemory{"k": 1})
	g.lands(f, 2)
	g.holds(mapMemory{})
	g.Release("k", Install(2))
	g.holds(mapMemory{"k": 2})
}

func TestObserversDropOlderCopies(t *testing.T) {
	atLeast := func(v int) func(int) bool { return func(e int) bool { return e >= v } }
	g := newRig(t)
	g.memory["k"] = 2
	g.Observe("k", atLeast(2))
	g.holds(mapMemory{"k": 2})
	g.Observe("k", atLeast(3))
	g.holds(mapMemory{})
	g.Observe("k", func(int) bool { panic("there is no copy to ask about") })
	g.idle()
}

func TestObserveBusyDropsBusyKeysOnly(t *testing.T) {
	g := newRig(t)
	for _, key := range []string{"busy", "loading", "idle"} {
		g.memory[key] = 1
	}
	g.Hold("busy", 1, false)
	f, _ := g.refreshes("loading")
	g.ObserveBusy()
	g.holds(mapMemory{"loading": 1, "idle": 1})
	g.Release("busy", Install(2))
	g.lands(f, 2)
	g.holds(mapMemory{"busy": 2, "loading": 2, "idle": 1})
}

func TestIfIdle(t *testing.T) {
	g := newRig(t)
	idle := func(want bool, when string) {
		t.Helper()
		called := false
		if got := g.IfIdle("k", func() { called = true }); got != want || called != want {
			t.Errorf("%s: IfIdle = %v, called: %v", when, got, called)
		}
	}
	idle(true, "at first")
	f := g.starts("k")
	idle(false, "during a load")
	g.lands(f, 1)
	idle(true, "after a load")
	g.Hold("k", 1, false)
	idle(false, "during a commit")
	g.Release("k", Install(2))
	idle(true, "after a commit")
	g.HoldAll()
	idle(false, "during a commit of all keys")
	g.ReleaseAll()
	idle(true, "after a commit of all keys")
}

// A hold on all keys is one on keys, too, that nobody has named before.
func TestHoldAll(t *testing.T) {
	g := newRig(t)
	g.memory["k"] = 1
	g.HoldAll()
	g.holds(mapMemory{})
	g.HoldAll()
	f := g.starts("new")
	next := g.waits("new", f)
	g.lands(f, 1)
	g.ReleaseAll()
	g.lands(next, 1)
	g.holds(mapMemory{})
	f = g.starts("new")
	g.ReleaseAll()
	g.lands(f, 1)
	g.holds(mapMemory{})
	g.lands(g.starts("new"), 1)
	g.holds(mapMemory{"new": 1})
	g.idle()
}

// What one commit left in a slot that stays, because a load runs, is not there
// for the next.
func TestASlotThatStaysIsAsNew(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	g.Hold("k", 1, false)
	g.Invalidate("k")
	g.Release("k", Install(1))
	g.holds(mapMemory{})
	g.Hold("k", 2, false)
	g.Release("k", Install(2))
	g.holds(mapMemory{"k": 2})
	g.Hold("k", 3, false)
	g.Release("k", Unchanged[int]())
	g.holds(mapMemory{"k": 2})
	g.lands(f, 0)
	g.holds(mapMemory{"k": 2})
	g.idle()
}

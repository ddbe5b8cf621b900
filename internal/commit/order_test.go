package commit

import (
	"testing"
	"time"
)

// Two writes are parked at a key, the second of them at another key as well. The
// batch that has both keys frees them one after the other, and the second write
// became ready in front of the first.
func TestWritesThatBecomeReadyTogetherKeepTheirOrder(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2}, func(q *rig) {
		q.submit("hold:z")
		q.submit("hold2:y")
		q.submit("a:k", "b:m") // no place is free, so they gather
		q.finish("hold")
		q.underWay("hold2", "a b")
		q.finish("hold2")
		q.submit("first:k", "second:k m") // parked
		q.finish("a")
		q.underWay("first second")
	})
}

// A write that has become ready found a younger one parked at its key, took it
// for an older one and parked behind it: until a key was free with which it had
// nothing to do.
func TestAReadyWriteDoesNotWaitForAYoungerOne(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("a:k", "b:m")
		q.submit("first:k", "second:k m")
		q.underWay("a", "b")
		q.finish("a")
		q.underWay("b", "first")
		q.finish("b")
		q.underWay("first")
		q.finish("first")
		q.underWay("second")
	})
}

// The same when the older one is ready and has no place yet.
func TestAWriteThatBecomesReadyDoesNotPassAnOlderReadyOne(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2, MaxOps: 1}, func(q *rig) {
		q.submit("a:k", "b:m")
		q.submit("first:k", "second:k m")
		q.finishInDoubt("a")
		q.submit("c:n")
		q.underWay("b", "c")
		q.Release(q.ops["a"]) // first is ready, and has no place
		q.underWay("b", "c")
		q.finish("b") // second is ready too
		q.underWay("c", "first")
		q.finish("first")
		q.underWay("c", "second")
	})
}

// A key that is free again made all that were parked at it ready, to be looked at
// and parked again by the next batch: with thousands of writers of one key, and
// small batches, each write cost as much as all of them.
func TestAHotKeyIsNotLookedThroughForEachWrite(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2, MaxOps: 2}, func(q *rig) {
		q.Take([]string{"k"})
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			q.submit(name + ":k")
		}
		q.submit("busy:y", "busy2:z")
		q.underWay("busy", "busy2")
		q.Return([]string{"k"})
		if q.readyCount > 2 {
			t.Errorf("%d writes are ready, and a batch takes 2", q.readyCount)
		}
		q.finish("busy")
		q.underWay("busy2", "a b")
		q.finish("a")
		q.underWay("busy2", "c d")
		q.finish("busy2", "c")
		q.underWay("e f")
	})
}

func TestWhoeverIsParkedBehindAReadyWriteThatLeaves(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2, MaxOps: 1}, func(q *rig) {
		q.Take([]string{"k"})
		q.submit("busy:y")
		q.submit("a:k", "b:k", "c:k")
		q.submit("busy2:z")
		q.Return([]string{"k"}) // a is ready, without a place
		q.underWay("busy", "busy2")
		q.leaves("a", true)
		q.finish("busy")
		q.underWay("busy2", "b")
		q.finish("b")
		q.underWay("busy2", "c")
	})
}

// A batch of large writes was as many of them as of small ones, and more than a database
// takes at once.
func TestABatchHasABoundInBytes(t *testing.T) {
	large := func(q *rig, spec string, bytes int) {
		op := q.op(spec)
		op.Bytes = bytes
		if err := q.Submit(op); err != nil {
			t.Fatal(err)
		}
	}
	inBubble(t, Config[string, string]{MaxBytes: 10, InFlight: 1}, func(q *rig) {
		q.submit("hold:z")
		large(q, "a:a", 6)
		large(q, "b:b", 5)
		large(q, "c:c", 5)
		large(q, "giant:d", 20)
		large(q, "behind:e", 1)
		for _, next := range []struct{ after, batch string }{{"hold", "a"}, {"a", "b c"}, {"b", "giant"}, {"giant", "behind"}} {
			q.finish(next.after)
			q.underWay(next.batch)
		}
	})
	// Nor is a batch waited for that is full.
	inBubble(t, Config[string, string]{MaxBytes: 10, MaxDelay: time.Minute}, func(q *rig) {
		large(q, "a:a", 6)
		q.underWay()
		large(q, "b:b", 5)
		q.underWay("a")
		time.Sleep(time.Minute)
		q.underWay("a", "b")
	})
}

package commit

import (
	"testing"
	"testing/synctest"
	"time"
)

// Invariant 1.
func TestAKeyTravelsInOneBatchAtATime(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("a:k", "b:k", "c:l")
		q.underWay("a", "c")
		q.waiting(1)
		q.finish("c")
		q.underWay("a")
		q.finish("a")
		q.underWay("b")
	})
}

func TestAWriteOfSeveralKeysWaitsForAllOfThem(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("a:k", "b:l", "c:m")
		q.submit("all:k l m")
		q.finish("a")
		q.finish("c")
		q.underWay("b")
		q.finish("b")
		q.underWay("all")
	})
}

// Invariant 2.
func TestWritesOfAKeyKeepTheirOrder(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("a:k")
		q.submit("b:k l", "c:l", "d:k", "e:l m", "f:m")
		q.underWay("a") // b waits for a, and all the others for b or for each other
		q.waiting(5)
		q.finish("a")
		q.underWay("b c d e f")
	})
}

func TestAYoungerWriteParksBehindOneThatIsParked(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("a:k")
		q.submit("b:k l") // waits for k
		q.submit("c:l")   // l is free, but b is older
		q.submit("d:m")
		q.underWay("a", "d")
		q.finish("a")
		q.underWay("b c", "d")
	})
}

// One key that is slow does not stop the others.
func TestTheQueueGoesOnPastASlowKey(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2}, func(q *rig) {
		q.submit("slow:k")
		q.submit("behind:k", "a:a", "b:b", "c:c")
		q.underWay("slow", "a")
		q.finish("a")
		q.underWay("slow", "b c")
		q.finish("b")
		q.underWay("slow")
		q.waiting(1)
	})
}

// Invariant 3.
func TestAWriteOfAllKeysTravelsAlone(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("a:k", "b:l")
		q.submit("parked:k")
		q.submit("all:*")
		q.submit("after:m", "after2:k")
		q.underWay("a", "b")
		q.finish("b")
		q.underWay("a")
		q.finish("a")
		q.underWay("parked")
		q.finish("parked")
		q.underWay("all")
		q.submit("later:n")
		q.underWay("all")
		q.finish("all")
		q.underWay("after after2 later")
	})
}

func TestTwoWritesOfAllKeys(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("one:*", "two:*")
		q.submit("a:k")
		q.underWay("one")
		q.finish("one")
		q.underWay("two")
		q.finish("two")
		q.underWay("a")
	})
}

func TestAWriteOfAllKeysWaitsForWhatIsInDoubt(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("a:k")
		q.finishInDoubt("a")
		q.submit("all:*")
		q.underWay()
		q.Release(q.ops["a"])
		q.underWay("all")
	})
}

func TestAWriteOfAllKeysInDoubt(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("all:*")
		q.submit("a:k")
		q.finishInDoubt("all")
		q.submit("b:l")
		q.underWay()
		q.Release(q.ops["all"])
		q.underWay("a b")
	})
}

// Invariant 4.
func TestALoneWriterDoesNotWait(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		began := time.Now()
		q.submit("a:k")
		q.underWay("a")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("it waited %v", waited)
		}
	})
}

func TestCompanyGathersWhileABatchIsUnderWay(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 1}, func(q *rig) {
		q.submit("a:a")
		q.submit("b:b", "c:c", "d:a")
		q.underWay("a")
		q.finish("a")
		q.underWay("b c d")
	})
}

func TestABatchIsBounded(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 1, MaxOps: 2}, func(q *rig) {
		q.submit("a:a")
		q.submit("b:b", "c:c", "d:d", "e:b", "f:b")
		q.finish("a")
		q.underWay("b c")
		q.finish("b")
		q.underWay("d e")
		q.finish("d")
		q.underWay("f")
	})
}

func TestBatchesAreBounded(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2, MaxOps: 1}, func(q *rig) {
		q.submit("a:a", "b:b", "c:c", "d:d")
		q.underWay("a", "b")
		q.finish("b")
		q.underWay("a", "c")
	})
}

func TestMaxDelayLetsABatchFillUp(t *testing.T) {
	config := Config[string, string]{MaxDelay: time.Second, MaxOps: 3}
	t.Run("until the time is over", func(t *testing.T) {
		inBubble(t, config, func(q *rig) {
			q.submit("a:a")
			time.Sleep(time.Second / 2)
			q.submit("b:b")
			q.underWay()
			time.Sleep(time.Second / 2)
			q.underWay("a b")
			q.submit("c:c") // the next one waits by itself
			time.Sleep(time.Second - 1)
			q.underWay("a b")
			time.Sleep(time.Nanosecond)
			q.underWay("a b", "c")
		})
	})
	t.Run("until it is full", func(t *testing.T) {
		inBubble(t, config, func(q *rig) {
			q.submit("a:a", "b:b", "c:c", "d:d")
			q.underWay("a b c")
			time.Sleep(time.Second)
			q.underWay("a b c", "d")
		})
	})
	t.Run("whoever leaves is not waited for", func(t *testing.T) {
		inBubble(t, config, func(q *rig) {
			q.submit("a:a")
			time.Sleep(time.Second / 2)
			q.submit("b:b")
			q.leaves("a", true)
			time.Sleep(time.Second - 1)
			q.underWay()
			time.Sleep(time.Nanosecond)
			q.underWay("b")
		})
	})
	t.Run("until the queue is closed", func(t *testing.T) {
		inBubble(t, config, func(q *rig) {
			q.submit("a:a")
			idle := q.Close()
			q.underWay("a")
			q.finish("a")
			<-idle
		})
	})
}

// Leaving.
func TestLeave(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2, MaxOps: 1}, func(q *rig) {
		q.submit("taken:k", "taken2:l")
		q.submit("ready:m")
		q.submit("parked:k")
		q.finish("taken2") // the queue is looked through
		q.underWay("taken", "ready")
		q.submit("waits:n")
		q.waiting(2)
		q.leaves("taken", false)
		q.leaves("parked", true)
		q.leaves("parked", false)
		q.leaves("waits", true)
		q.waiting(0)
		q.finish("taken", "ready")
		q.underWay()
		q.leaves("taken", false)
		q.gaveUp()
	})
}

func TestWhoeverWaitsBehindOneWhoLeavesGoesOn(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("a:k")
		q.submit("middle:k l")
		q.submit("b:l m")
		q.underWay("a")
		q.leaves("middle", true)
		q.underWay("a", "b")
		q.submit("c:k", "d:k", "e:k")
		q.leaves("d", true)
		q.finish("a")
		q.underWay("b", "c e")
	})
}

func TestWhoeverWaitsBehindAWriteOfAllKeysThatLeaves(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("a:k")
		q.submit("all:*")
		q.submit("b:l")
		q.underWay("a")
		q.leaves("all", true)
		q.underWay("a", "b")
	})
}

// Writes whose outcome is not known.
func TestHeldWritesKeepTheirKeysAndNotTheirPlace(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 1}, func(q *rig) {
		q.submit("first:z")
		q.submit("a:k", "b:l")
		q.finish("first")
		q.underWay("a b")
		q.submit("c:k", "d:l", "e:m")
		q.finishInDoubt("a")
		q.underWay("d e")
		q.finish("d")
		q.underWay()
		q.waiting(1)
		q.Release(q.ops["a"])
		q.underWay("c")
	})
}

// The settlement may be there before the batch has returned.
func TestReleaseBeforeTheBatchReturns(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 1}, func(q *rig) {
		q.submit("a:k")
		q.submit("b:k")
		q.underWay("a")
		q.ops["a"].Hold()
		q.Release(q.ops["a"])
		q.underWay("a") // its place is still taken
		q.finish("a")
		q.underWay("b")
	})
}

func TestReleaseOfAWriteOfAllKeysBeforeTheBatchReturns(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("all:*")
		q.submit("again:*")
		q.submit("a:k")
		q.underWay("all")
		q.ops["all"].Hold()
		q.Release(q.ops["all"])
		q.underWay("all", "again")
		q.finish("all")
		q.underWay("again")
		q.finish("again")
		q.underWay("a")
	})
}

// Writers who do not travel in batches.
func TestTakenKeysAreWaitedFor(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("a:k")
		q.Take([]string{"k", "l"})
		q.submit("b:l", "c:m")
		q.underWay("a", "c")
		q.finish("a", "c")
		q.submit("d:k", "all:*")
		q.underWay()
		q.Take([]string{"k"})
		q.Return([]string{"k", "l"})
		q.underWay("b")
		q.finish("b")
		q.underWay()
		q.Return([]string{"k"})
		q.underWay("d")
		q.finish("d")
		q.underWay("all")
	})
}

// A write that is ready, and finds its key taken again, does not lose its place.
func TestTakenFromAReadyWrite(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 1}, func(q *rig) {
		q.submit("a:k m")
		q.finishInDoubt("a")
		q.submit("b:k", "c:k m")
		q.submit("busy:z")
		q.underWay("busy")
		q.Release(q.ops["a"]) // b and c are ready, without a place
		q.Take([]string{"k"})
		q.finish("busy")
		q.underWay()
		q.submit("d:m")
		q.underWay() // c is older
		q.Return([]string{"k"})
		q.underWay("b c d")
	})
}

// Bounds.
func TestLimit(t *testing.T) {
	inBubble(t, Config[string, string]{Limit: 2, InFlight: 1}, func(q *rig) {
		q.submit("a:k")
		q.submit("b:k", "c:l") // what is under way does not count
		q.refused("d:m", ErrFull)
		q.leaves("b", true)
		q.submit("e:m")
		q.refused("f:n", ErrFull)
		q.finish("a")
		q.underWay("c e")
		q.submit("g:n", "h:n")
		q.refused("i:n", ErrFull)
	})
}

func TestSubmitTakesAllOrNone(t *testing.T) {
	inBubble(t, Config[string, string]{Limit: 3, InFlight: 1}, func(q *rig) {
		q.submit("a:k")
		if err := q.Submit(q.op("b:k"), q.op("c:k"), q.op("d:k"), q.op("e:k")); err != ErrFull {
			t.Errorf("Submit: %v", err)
		}
		q.waiting(0)
		if err := q.Submit(q.op("f:k"), q.op("g:l"), q.op("h:k")); err != nil {
			t.Errorf("Submit: %v", err)
		}
		q.finish("a")
		q.underWay("f g h")
	})
}

func TestAWriteThatWaitsTooLong(t *testing.T) {
	inBubble(t, Config[string, string]{MaxWait: time.Minute, InFlight: 2}, func(q *rig) {
		q.submit("a:k", "b:l")
		q.submit("parked:k")
		time.Sleep(20 * time.Second)
		q.submit("later:k m")
		time.Sleep(40*time.Second - 1)
		q.waiting(2)
		q.gaveUp()
		time.Sleep(time.Nanosecond)
		q.gaveUp("parked: commit: waited too long in the queue")
		q.leaves("parked", false)
		time.Sleep(20 * time.Second)
		q.gaveUp("later: commit: waited too long in the queue")
		q.waiting(0)
		q.submit("new:m")
		q.finish("b")
		q.underWay("a", "new")
		time.Sleep(time.Hour) // what is under way is not waited for in the queue
		q.gaveUp()
		q.underWay("a", "new")
	})
}

func TestWhoeverWaitsBehindAStaleWriteGoesOn(t *testing.T) {
	inBubble(t, Config[string, string]{MaxWait: time.Minute}, func(q *rig) {
		q.submit("a:k")
		q.submit("stale:k l")
		time.Sleep(time.Second)
		q.submit("b:l")
		q.submit("all:*")
		time.Sleep(59 * time.Second)
		q.gaveUp("stale: commit: waited too long in the queue")
		q.underWay("a", "b")
		time.Sleep(time.Second)
		q.gaveUp("all: commit: waited too long in the queue")
	})
}

// Ends.
func TestCloseWaitsForEverything(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 1}, func(q *rig) {
		q.submit("a:k")
		q.submit("b:k", "c:l")
		q.Take([]string{"t"})
		idle := q.Close()
		open := func(why string) {
			t.Helper()
			synctest.Wait()
			select {
			case <-idle:
				t.Errorf("idle, though %s", why)
			default:
			}
		}
		q.refused("d:m", ErrClosed)
		open("a batch is under way")
		q.finish("a")
		q.underWay("b c")
		open("a batch is under way")
		q.finishInDoubt("b")
		open("a write is in doubt")
		q.Release(q.ops["b"])
		open("keys are taken")
		q.Return([]string{"t"})
		<-idle
		<-q.Close()
	})
}

func TestCloseOfAnIdleQueue(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) { <-q.Close() })
}

func TestDrop(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2}, func(q *rig) {
		q.submit("a:k", "b:l")
		q.submit("parked:k", "ready:m", "all:*")
		q.Take([]string{"n"})
		q.finishInDoubt("b")
		idle := q.Close()
		q.underWay("a", "ready")
		dropped, underWay := q.Drop()
		if dropped != 2 || underWay != 3 {
			t.Errorf("Drop = %d, %d", dropped, underWay)
		}
		q.gaveUp("parked: commit: closed", "all: commit: closed")
		q.leaves("parked", false)
		q.finish("a", "ready")
		q.Release(q.ops["b"])
		q.Return([]string{"n"})
		<-idle
	})
}

// Dropped and Run may call the queue.
func TestCallbacksMayCallTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q *Queue[string, string]
		lens := make(chan int, 2)
		q = New(Config[string, string]{
			MaxOps: 1, InFlight: 1, Limit: 9, MaxWait: time.Second,
			Run:     func([]*Op[string, string]) { lens <- q.Len(); time.Sleep(time.Minute) },
			Dropped: func(*Op[string, string], error) { lens <- q.Len() },
		})
		for _, key := range []string{"k", "l"} {
			if err := q.Submit(&Op[string, string]{Keys: []string{key}}); err != nil {
				t.Fatal(err)
			}
		}
		<-lens
		<-lens
		<-q.Close()
	})
}

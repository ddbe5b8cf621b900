package commit

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestBatchesBesideEachOtherAreEvenShares: of writers who write again when they are
// answered, and take a little while for that. Without shares one batch is of those who are
// back first, and the next of all others.
func TestBatchesBesideEachOtherAreEvenShares(t *testing.T) {
	const (
		places = 2
		each   = 300
	)
	for _, writers := range []int{4, 16, 128} {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) {
			var batches atomic.Int64
			var q *Queue[string, chan struct{}]
			q = New(Config[string, chan struct{}]{
				MaxOps: 1000, InFlight: places, Limit: 1000, MaxWait: time.Hour,
				Run: func(ops []*Op[string, chan struct{}]) {
					batches.Add(1)
					time.Sleep(time.Millisecond)
					q.Answer(ops, time.Millisecond)
					for _, op := range ops {
						close(op.Item)
					}
				},
			})
			var all sync.WaitGroup
			for i := range writers {
				random := rand.New(rand.NewPCG(seed, uint64(i)))
				all.Go(func() {
					for range each {
						op := &Op[string, chan struct{}]{Keys: []string{strconv.Itoa(i)}, Item: make(chan struct{})}
						if err := q.Submit(op); err != nil {
							t.Error(err)
						}
						<-op.Item
						time.Sleep(time.Duration(random.Int64N(int64(300 * time.Microsecond))))
					}
				})
			}
			all.Wait()
			<-q.Close()
			share := float64(writers) / places
			if n := float64(writers*each) / float64(batches.Load()); n < 0.85*share {
				t.Errorf("%d writers: batches have %.1f writes on average, and a share is %.0f (seed %d)", writers, n, share, seed)
			}
		})
	}
}

// crowded has batches of six under way, for three milliseconds.
func crowded(q *rig, batches ...string) {
	q.t.Helper()
	for i := range batches {
		q.submit(fmt.Sprintf("first%d:%d", i, i))
	}
	for i, batch := range batches {
		for name := range strings.FieldsSeq(batch) {
			q.submit(name + ":" + name)
		}
		q.finish(fmt.Sprint("first", i)) // in no time, so that nobody is waited for
	}
	q.underWay(batches...)
	time.Sleep(3 * time.Millisecond)
}

// TestAHoldIsShort: who waits for a share of those who come back waits no longer than the
// batch took that they come from, and not for what a database takes that hangs.
func TestAHoldIsShort(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2}, func(q *rig) {
		crowded(q, "c d e f g h", "i j k l m n")
		q.finish("i")
		q.submit("x:x")
		time.Sleep(3*time.Millisecond - 1)
		q.underWay("c d e f g h")
		time.Sleep(1)
		q.underWay("c d e f g h", "x")
		q.submit("y:y") // behind both
		time.Sleep(time.Minute)
		q.finish("c")
		q.underWay("x")
		time.Sleep(longestReturn - 1)
		q.underWay("x")
		time.Sleep(1)
		q.underWay("x", "y")
	})
}

// TestAHoldIsNotProlonged by batches that end while it lasts.
func TestAHoldIsNotProlonged(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 3}, func(q *rig) {
		crowded(q, "c d e f g h", "i j k l m n", "1 2 3 4 5 6")
		time.Sleep(time.Minute)
		q.finish("i")
		q.submit("x:x")
		time.Sleep(longestReturn - 1)
		q.finish("1")
		q.underWay("c d e f g h")
		time.Sleep(1)
		q.underWay("c d e f g h", "x")
	})
}

// TestAShareIsNotHeld: a batch begins when it has its share, and one that nobody is coming
// back to join at once.
func TestAShareIsNotHeld(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2}, func(q *rig) {
		crowded(q, "c d e f g h", "i j k l m n")
		q.finish("i")
		q.submit("o:o", "p:p", "q:q", "r:r", "s:s")
		q.underWay("c d e f g h")
		q.submit("t:t") // the sixth who was away
		q.underWay("c d e f g h", "o p q r s t")
		time.Sleep(time.Hour)
		q.finish("o")
		time.Sleep(time.Hour)
		q.submit("u:u")
		q.underWay("c d e f g h", "u")
	})
}

// TestABatchTakesNoMoreThanItsShare: others that come back find a batch of their size.
func TestABatchTakesNoMoreThanItsShare(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2}, func(q *rig) {
		q.submit("a:a", "b:b", "c:c", "d:d", "e:e", "f:f", "g:g", "h:h")
		time.Sleep(time.Millisecond)
		q.finish("a")
		q.underWay("b", "c d e f g h")
		q.submit("i:i", "j:j", "k:k", "l:l", "m:m", "n:n", "o:o", "p:p", "q:q")
		time.Sleep(time.Millisecond)
		q.finish("b") // of a crowd of 16: nine are ready, six under way, and one is away
		q.underWay("c d e f g h", "i j k l m n o p")
	})
}

// TestNobodyIsWaitedForWhenAllAreBack: a large batch hangs, and of a few others all are back.
func TestNobodyIsWaitedForWhenAllAreBack(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2}, func(q *rig) {
		crowded(q, "a b c d e f g h i j k l m n o p q r s t", "1 2")
		q.finish("1")
		q.submit("3:3")
		q.underWay("a b c d e f g h i j k l m n o p q r s t")
		q.submit("4:4")
		q.underWay("a b c d e f g h i j k l m n o p q r s t", "3 4")
	})
}

// TestALoneWriterIsNotHeld: neither beside nobody, nor beside one other.
func TestALoneWriterIsNotHeld(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2}, func(q *rig) {
		for range 10 {
			q.submit("a:a", "b:b")
			q.underWay("a", "b")
			time.Sleep(time.Millisecond)
			q.finish("a")
			q.submit("c:c")
			q.underWay("b", "c")
			time.Sleep(time.Millisecond)
			q.finish("b", "c")
		}
	})
}

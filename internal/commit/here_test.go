package commit

import "testing"

// A write that goes by itself is run by its writer; it has its place and its keys
// like any other.
func TestAWriteThatItsWriterRuns(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 1}, func(q *rig) {
		own := q.op("own:k")
		if !q.Start(own) {
			t.Fatal("the queue is empty, and it was not started")
		}
		q.submit("behind:k", "other:l")
		q.underWay()
		q.waiting(2)
		if q.Leave(own) {
			t.Error("it has left, and is under way")
		}
		q.Finish([]*Op[string, string]{own})
		q.underWay("behind other")
	})
}

func TestAWriteIsStartedOnlyWhereItWouldBeAlone(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2}, func(q *rig) {
		q.submit("a:k")
		if q.Start(q.op("b:l")) {
			t.Error("a batch was under way")
		}
		q.finishInDoubt("a")
		if q.Start(q.op("c:k")) {
			t.Error("its key was in doubt")
		}
		d := q.op("d:l")
		if !q.Start(d) {
			t.Error("nothing was under way, and its key was free")
		}
		q.Finish([]*Op[string, string]{d})
		q.Release(q.ops["a"])
		if q.Start(q.op("all:*")) {
			t.Error("it is a write of all keys")
		}
		if err := q.Enter(); err != nil {
			t.Fatal(err)
		}
		if q.Start(q.op("e:k")) {
			t.Error("somebody else was waiting")
		}
		q.Exit()
		q.Close()
		if q.Start(q.op("f:k")) {
			t.Error("the queue was closed")
		}
	})
}

// One that would have to wait goes to a worker, in the place that it has.
func TestAWriteThatItsWriterPassesOn(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 1}, func(q *rig) {
		own := q.op("own:k")
		if !q.Start(own) {
			t.Fatal("the queue is empty, and it was not started")
		}
		q.submit("behind:k")
		q.Pass([]*Op[string, string]{own})
		q.underWay("own")
		q.finish("own")
		q.underWay("behind")
	})
}

// One that its batch has left out keeps its keys, and is not in doubt.
func TestAWriteThatIsKept(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 1}, func(q *rig) {
		q.submit("first:x")
		q.submit("left:k", "done:l")
		q.finish("first")
		q.underWay("left done")
		q.ops["left"].Keep()
		q.finish("done")
		q.submit("behind:k", "other:l")
		q.underWay("other")
		if err := q.Await(t.Context(), []string{"k"}); err != nil {
			t.Errorf("it counts as in doubt: %v", err)
		}
		q.finish("other")
		q.Release(q.ops["left"])
		q.underWay("behind")
	})
}

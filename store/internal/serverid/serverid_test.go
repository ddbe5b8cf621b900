package serverid

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

func TestOnlyAnotherServerIsTold(t *testing.T) {
	var tr Tracker[string]
	told := 0
	stop := tr.Listen(func() { told++ })
	expect := func(what string, want int) {
		t.Helper()
		if told != want {
			t.Errorf("%s: told %d times, want %d", what, told, want)
		}
	}
	tr.Met("a")
	expect("the first", 0)
	_, changed := tr.Watch("a")
	tr.Met("a")
	expect("the same again", 0)
	tr.Met("b")
	expect("another", 1)
	select {
	case <-changed:
	default:
		t.Error("whoever watched was not told")
	}
	if tr.Is("a") || !tr.Is("b") {
		t.Error("it is b now")
	}
	tr.Refused("c")
	tr.Refused("c")
	expect("one that will not do", 2)
	if !tr.Is("b") {
		t.Error("b's sessions may go on")
	}
	tr.Met("c") // which has become one that will do
	expect("the refused one, which will do by now", 3)
	tr.Refused("c") // which has become one that will not
	expect("the one that was met last, which will not do any more", 4)
	if tr.Is("c") {
		t.Error("the sessions of a server that will not do go on")
	}
	stop()
	tr.Met("a")
	expect("after stop", 4)
}

// Nobody uses a session, old or new, while memory is being emptied. The listener gives
// them every chance to.
func TestNobodyPassesWhileTheChangeIsTold(t *testing.T) {
	var tr Tracker[string]
	tr.Met("old")
	type answer struct{ right, after bool }
	answers := make(chan answer, 3)
	var over atomic.Bool
	tr.Listen(func() {
		var asking sync.WaitGroup
		for _, ask := range []func() bool{
			func() bool { return !tr.Is("old") },
			func() bool { return tr.Is("new") },
			func() bool { tr.Met("new"); return true },
		} {
			asking.Add(1)
			go func() {
				asking.Done()
				right := ask()
				answers <- answer{right, over.Load()}
			}()
		}
		asking.Wait()
		for range 100 {
			runtime.Gosched()
		}
		over.Store(true)
	})
	tr.Met("new")
	for range cap(answers) {
		if a := <-answers; !a.right || !a.after {
			t.Errorf("an answer from before the end of the change: %+v", a)
		}
	}
}

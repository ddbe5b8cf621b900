package commit

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A rig is a queue whose batches a test holds in its hands: each stays under way
// until the test finishes it. Writes are named, and written "x:k m": the write x
// on the keys k and m. A write on all keys is "x:*".
type rig struct {
	*Queue[string, string]
	t *testing.T

	mu      sync.Mutex
	batches []*batch // under way
	dropped []string // "x: reason"
	ops     map[string]*Op[string, string]
}

type batch struct {
	ops  []*Op[string, string]
	done chan struct{}
}

func (b *batch) String() string {
	names := make([]string, len(b.ops))
	for i, op := range b.ops {
		names[i] = op.Item
	}
	return strings.Join(names, " ")
}

// inBubble gives a story a rig in a bubble. Fields of the config that are zero are
// large. At the end everything under way is finished, and the queue must become
// idle.
func inBubble(t *testing.T, config Config[string, string], story func(q *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := newRig(t, config)
		defer q.finishAll() // also when the story ends early
		story(q)
		closed := q.Close()
		q.finishAll()
		select {
		case <-closed:
		case <-time.After(24 * time.Hour):
			t.Errorf("the queue does not become idle: %d wait, %d are taken", q.Len(), q.taken)
		}
		if len(q.keys) != 0 && !t.Failed() {
			t.Errorf("an idle queue remembers %d keys", len(q.keys))
		}
	})
}

// finishAll lets whatever is or gets under way return.
func (q *rig) finishAll() {
	for {
		synctest.Wait()
		q.mu.Lock()
		left := slices.Clone(q.batches)
		q.mu.Unlock()
		if len(left) == 0 {
			return
		}
		for _, b := range left {
			q.end(b)
		}
	}
}

func newRig(t *testing.T, config Config[string, string]) *rig {
	q := &rig{t: t, ops: make(map[string]*Op[string, string])}
	for _, field := range []*int{&config.MaxOps, &config.InFlight, &config.Limit} {
		if *field == 0 {
			*field = 1000
		}
	}
	if config.MaxWait == 0 {
		config.MaxWait = time.Hour
	}
	config.Run = func(ops []*Op[string, string]) {
		b := &batch{ops: ops, done: make(chan struct{})}
		q.mu.Lock()
		q.batches = append(q.batches, b)
		q.mu.Unlock()
		start := time.Now()
		<-b.done
		q.Answer(ops, time.Since(start))
	}
	config.Dropped = func(op *Op[string, string], err error) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.dropped = append(q.dropped, op.Item+": "+err.Error())
	}
	q.Queue = New(config)
	return q
}

// submit queues writes one after the other.
func (q *rig) submit(specs ...string) {
	q.t.Helper()
	for _, spec := range specs {
		if err := q.Submit(q.op(spec)); err != nil {
			q.t.Fatalf("submit %q: %v", spec, err)
		}
	}
}

func (q *rig) op(spec string) *Op[string, string] {
	name, keys, _ := strings.Cut(spec, ":")
	op := &Op[string, string]{Item: name, All: keys == "*"}
	if !op.All {
		op.Keys = strings.Fields(keys)
	}
	q.ops[name] = op
	return op
}

// refused submits a write that must not get in.
func (q *rig) refused(spec string, why error) {
	q.t.Helper()
	if err := q.Submit(q.op(spec)); !errors.Is(err, why) {
		q.t.Errorf("submit %q: %v, want %v", spec, err, why)
	}
}

// underWay says which batches are at the database now, in any order.
func (q *rig) underWay(want ...string) {
	q.t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	var got []string
	for _, b := range q.batches {
		got = append(got, b.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		q.t.Errorf("under way are %q, want %q", got, want)
	}
}

// finish lets the batches return that have these writes in them.
func (q *rig) finish(names ...string) {
	q.t.Helper()
	for _, name := range names {
		synctest.Wait()
		q.end(q.with(name))
	}
	synctest.Wait()
}

// finishInDoubt lets the batch return that has the write in it, and keeps the
// write's keys taken.
func (q *rig) finishInDoubt(name string) {
	q.t.Helper()
	synctest.Wait()
	b := q.with(name)
	q.ops[name].Hold()
	q.end(b)
	synctest.Wait()
}

func (q *rig) with(name string) *batch {
	q.t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range q.batches {
		if slices.Contains(b.ops, q.ops[name]) {
			return b
		}
	}
	q.t.Fatalf("%s is not under way", name)
	return nil
}

func (q *rig) end(b *batch) {
	q.mu.Lock()
	q.batches = slices.DeleteFunc(q.batches, func(other *batch) bool { return other == b })
	q.mu.Unlock()
	close(b.done)
}

// leaves lets the write's caller leave, which must succeed, or not.
func (q *rig) leaves(name string, want bool) {
	q.t.Helper()
	if got := q.Leave(q.ops[name]); got != want {
		q.t.Errorf("Leave(%s) = %v", name, got)
	}
}

// gaveUp says which writes were dropped, and why, since it was last asked.
func (q *rig) gaveUp(want ...string) {
	q.t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Equal(q.dropped, want) {
		q.t.Errorf("dropped %q, want %q", q.dropped, want)
	}
	q.dropped = nil
}

func (q *rig) waiting(want int) {
	q.t.Helper()
	if got := q.Len(); got != want {
		q.t.Errorf("%d writes wait, want %d", got, want)
	}
}

package fault

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Counts is what has happened in a Store: the operations that arrived since it
// was made, and the faults among them.
type Counts struct {
	Loads, Commits, Settles, Scans, Begins, Applies int

	Latencies    int // operations that took longer
	Failures     int // fail
	Refusals     int // refuse
	Hangs        int
	Panics       int
	LostRequests int // commits that were never applied
	LostReplies  int // commits that were applied, or may yet be; Late among them
	Late         int
}

// injector is what a Store does whatever its types are: it plans, waits and
// counts. None of its locks is held while something waits.
type injector struct {
	seed uint64

	mu      sync.Mutex
	script  Script
	numbers [ops]int // of the operations since the script began
	arrived [ops]int // since the store was made
	counts  Counts
	blocks  []*Block // that no operation has reached, oldest first
	// release is closed to let everything go that hangs, and replaced.
	release chan struct{}
}

// visit is one operation on its way through an injector.
type visit struct {
	plan
	in   *injector
	keys []any
}

func (in *injector) arrive(op Op, keys []any) *visit {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.numbers[op]++
	in.arrived[op]++
	p := in.script.plan(in.seed, op, in.numbers[op])
	if p.before+p.after > 0 {
		in.counts.Latencies++
	}
	switch p.fault.kind {
	case fail:
		in.counts.Failures++
	case refuse:
		in.counts.Refusals++
	case hang:
		in.counts.Hangs++
	case panicking:
		in.counts.Panics++
	case loseRequest:
		in.counts.LostRequests++
	case loseReply:
		in.counts.LostReplies++
		if p.fault.late {
			in.counts.Late++
		}
	}
	return &visit{plan: p, in: in, keys: keys}
}

// before is what happens until the database is asked. After an error it is not.
func (v *visit) before(ctx context.Context) error {
	if err := v.pause(ctx, v.plan.before); err != nil {
		return err
	}
	if err := v.stop(ctx, false); err != nil {
		return err
	}
	switch v.fault.kind {
	case fail:
		return fmt.Errorf("fault: %s %d failed on purpose: %w", v.op, v.number, lockstep.ErrUnavailable)
	case refuse:
		return fmt.Errorf("fault: %s %d was refused on purpose: %w", v.op, v.number, lockstep.ErrInvalid)
	}
	return v.hangOrPanic(ctx, false)
}

// answered is what happens when the database has answered. After an error the
// caller does not learn what.
func (v *visit) answered(ctx context.Context) error {
	if err := v.stop(ctx, true); err != nil {
		return err
	}
	if err := v.hangOrPanic(ctx, true); err != nil {
		return err
	}
	return v.pause(ctx, v.plan.after)
}

func (v *visit) hangOrPanic(ctx context.Context, after bool) error {
	if v.fault.after != after {
		return nil
	}
	switch v.fault.kind {
	case panicking:
		panic(fmt.Sprintf("fault: %s %d panics on purpose", v.op, v.number))
	case hang:
		v.in.mu.Lock()
		released := v.in.release
		v.in.mu.Unlock()
		return v.wait(ctx, released)
	}
	return nil
}

func (v *visit) pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return v.ended(ctx)
	}
}

func (v *visit) wait(ctx context.Context, until <-chan struct{}) error {
	select {
	case <-until:
		return nil
	case <-ctx.Done():
		return v.ended(ctx)
	}
}

func (v *visit) ended(ctx context.Context) error {
	return fmt.Errorf("fault: %s %d: %w: %w", v.op, v.number, lockstep.ErrUnavailable, context.Cause(ctx))
}

// stop waits at the oldest block in the operation's way.
func (v *visit) stop(ctx context.Context, after bool) error {
	at := point(v.op, after)
	v.in.mu.Lock()
	i := slices.IndexFunc(v.in.blocks, func(b *Block) bool { return b.at == at && b.names(v.keys) })
	if i < 0 {
		v.in.mu.Unlock()
		return nil
	}
	b := v.in.blocks[i]
	v.in.blocks = slices.Delete(v.in.blocks, i, i+1)
	v.in.mu.Unlock()
	close(b.reached)
	return v.wait(ctx, b.pass)
}

func (in *injector) block(at Point, keys map[any]bool) *Block {
	reached := make(chan struct{})
	b := &Block{Reached: reached, in: in, at: at, keys: keys, reached: reached, pass: make(chan struct{})}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.blocks = append(in.blocks, b)
	return b
}

func (in *injector) remove(b *Block) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.blocks = slices.DeleteFunc(in.blocks, func(other *Block) bool { return other == b })
}

func (in *injector) play(script Script) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.script = script
	in.numbers = [ops]int{}
}

func (in *injector) releaseAll() {
	in.mu.Lock()
	defer in.mu.Unlock()
	close(in.release)
	in.release = make(chan struct{})
}

func (in *injector) count() Counts {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.counts
	c.Loads, c.Commits, c.Settles = in.arrived[Load], in.arrived[Commit], in.arrived[Settle]
	c.Scans, c.Begins, c.Applies = in.arrived[Scan], in.arrived[Begin], in.arrived[Apply]
	return c
}

package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

const (
	workers = 8
	own     = 4           // keys that one worker alone writes
	shared  = 3           // keys that all of them write
	enough  = time.Minute // when the program ends that nobody kills
)

// program writes until it is killed.
type program struct {
	cache  *lockstep.Cache[string, string]
	prefix string
	calls  atomic.Int64
}

func (h Harness) write(t *testing.T, place, prefix string) {
	say(note{})
	cache, err := lockstep.New(h.Connect(t, place), lockstep.Options[string, string]{})
	if err != nil {
		t.Fatal(err)
	}
	p := &program{cache: cache, prefix: prefix}
	ctx, cancel := context.WithTimeout(context.Background(), enough)
	defer cancel()
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for ctx.Err() == nil {
				p.call(ctx, w)
			}
		})
	}
	running.Wait()
}

// say writes a line with one call of the kernel: it is in the pipe, whole, or the program
// has not said it.
func say(n note) {
	line, err := json.Marshal(n)
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(announces + string(line) + "\n")
}

func (p *program) own(worker, i int) string { return fmt.Sprintf("%sown/%d/%d", p.prefix, worker, i) }
func (p *program) shared(i int) string      { return fmt.Sprintf("%sshared/%d", p.prefix, i) }
func (p *program) sum(name string) string   { return p.prefix + "sum/" + name }

// call makes one call of a worker, and says so before and after.
func (p *program) call(ctx context.Context, worker int) {
	number := int(p.calls.Add(1))
	value := strconv.Itoa(number)
	key := p.own(worker, rand.IntN(own))
	if rand.IntN(3) == 0 {
		key = p.shared(rand.IntN(shared))
	}
	var e effect
	var run func() error
	switch rand.IntN(6) {
	case 0, 1:
		e.Writes = map[string]string{key: value}
		run = func() error {
			_, err := p.cache.Set(ctx, key, value)
			return err
		}
	case 2:
		e.Writes = map[string]string{key: ""}
		run = func() error {
			_, err := p.cache.Delete(ctx, key)
			return err
		}
	case 3:
		e.Writes = map[string]string{}
		for i := range own {
			e.Writes[p.own(worker, i)] = value
		}
		run = func() error { return p.cache.SetMany(ctx, e.Writes) }
	case 4:
		e.Adds = map[string]int{p.sum("count"): 1}
		run = func() error {
			_, err := p.cache.Update(ctx, p.sum("count"), func(old string, exists bool) (string, error) {
				n, err := count(old, exists)
				return strconv.Itoa(n + 1), err
			})
			return err
		}
	case 5:
		// What it writes of its own tells whether its share is in the sums.
		put, gone := p.own(worker, 0), p.own(worker, 1)
		amount := 1 + rand.IntN(9)
		from, to := p.sum("a"), p.sum("b")
		if rand.IntN(2) == 0 {
			from, to = to, from
		}
		e.Writes = map[string]string{put: value, gone: ""}
		e.Adds = map[string]int{from: -amount, to: amount}
		run = func() error { return p.transfer(ctx, put, value, gone, e.Adds) }
	}
	say(note{Begun: number, effect: e})
	if err := run(); err != nil {
		if ctx.Err() == nil {
			say(note{Failed: fmt.Sprintf("%+v: %v", e, err)})
		}
		return
	}
	say(note{Done: number})
}

func (p *program) transfer(ctx context.Context, put, value, gone string, adds map[string]int) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		in := p.cache.In(tx)
		for key, amount := range adds {
			old, err := in.Get(ctx, key)
			if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
				return err
			}
			n, err := count(old, err == nil)
			if err != nil {
				return err
			}
			if err := in.Set(ctx, key, strconv.Itoa(n+amount)); err != nil {
				return err
			}
		}
		if err := in.Set(ctx, put, value); err != nil {
			return err
		}
		return in.Delete(ctx, gone)
	})
}

// count is what a row of a sum says; none stands for 0.
func count(text string, exists bool) (int, error) {
	if !exists {
		return 0, nil
	}
	return strconv.Atoi(text)
}

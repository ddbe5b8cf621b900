package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/internal/sabotage"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Store is one over a table of keys and values that are integers.
type Store = lockstep.Store[int, int64]

// Database is an open one.
type Database interface {
	// Table opens a table, and makes it if it is not there. Those of one Database take
	// part in one transaction.
	Table(ctx context.Context, name string) (Store, error)
	Close() error
}

// countsEvery is how often a program tells what it has counted.
const countsEvery = 100 * time.Millisecond

// Program is the program that is broken: it does what the judge asks for on in, and
// tells of it on out. open opens the database of a URL.
func Program(ctx context.Context, in io.Reader, out io.Writer, open func(ctx context.Context, url string) (Database, error)) (err error) {
	var a assignment
	if err := json.NewDecoder(in).Decode(&a); err != nil {
		return fmt.Errorf("verify: what a program is to do: %w", err)
	}
	clock := a.clock()
	p, err := planOf(a.Seed, a.Faults, a.Sabotage)
	if err != nil {
		return err
	}
	j := &journal{out: out}

	// The first to be deferred, and so the last word: to close caches and databases is a
	// part of what has to be done.
	defer func() {
		if err == nil {
			j.tell(record{Done: true})
		}
	}()
	cannot := func(err error) error {
		j.tell(record{Cannot: err.Error()})
		return err
	}

	db, err := open(ctx, a.URL)
	if err != nil {
		return cannot(err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	h, err := p.house(ctx, db, a)
	if err != nil {
		return cannot(err)
	}
	defer func() { err = errors.Join(err, h.close(ctx)) }()

	// All that needs the server is open before the judge is told anything: only then does
	// it break what everybody needs.
	var o *outsider
	if p.outside {
		other, err := open(ctx, a.URL)
		if err != nil {
			return cannot(err)
		}
		defer func() { err = errors.Join(err, other.Close()) }()
		if o, err = p.outsider(ctx, other, a, history.NewLog(clock, a.Life*(clients+1)+clients, j)); err != nil {
			return cannot(err)
		}
	}
	stop := make(chan struct{})
	var beside sync.WaitGroup
	defer func() {
		close(stop)
		beside.Wait() // before left is read
		if err == nil {
			j.tell(record{Counts: h.counts(p)})
		}
	}()
	beside.Go(func() {
		every := time.NewTicker(countsEvery)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				j.tell(record{Counts: h.counts(p)})
			case <-stop:
				return
			}
		}
	})
	if o != nil {
		beside.Go(func() { o.run(ctx, stop) })
	}
	played := p.workload(a.Life, clock, j).Run(ctx, h.subject)
	h.left = played.Counts[history.LeftEarly] + played.Counts[history.LeftLate]
	return nil
}

// house is the caches of a program, and what is around their stores.
type house struct {
	subject history.Subject
	close   func(context.Context) error
	faulty  []*fault.Store[int, int64]
	caches  []*lockstep.Cache[int, int64]
	left    int // callers, known at the end
}

func (p plan) house(ctx context.Context, db Database, a assignment) (*house, error) {
	h := &house{}
	var stores []Store
	for i, table := range a.Tables {
		s, err := db.Table(ctx, table)
		if err != nil {
			return nil, err
		}
		// Each life has other draws.
		faulty := fault.Inject(s, p.script, p.seed+uint64(i)<<32+uint64(a.Life)<<40)
		h.faulty = append(h.faulty, faulty)
		s = faulty
		if p.protected {
			if s, err = resilience.Protect(s, resilience.Policy{}); err != nil {
				return nil, err
			}
		}
		stores = append(stores, s)
	}
	if err := h.open(stores, p.options(), a.Sabotage); err != nil {
		return nil, err
	}
	for i, t := range h.subject.Tables {
		if p.single {
			// What is about one row, at one moment.
			t = history.Table{
				Get: t.Get, GetEntry: t.GetEntry, GetMany: t.GetMany, Exists: t.Exists, Peek: t.Peek,
				Set: t.Set, SetFor: t.SetFor, Delete: t.Delete,
				Invalidate: t.Invalidate, InvalidateAll: t.InvalidateAll, Refresh: t.Refresh,
			}
		}
		if p.outside {
			t.Audit = nil // which finds what nobody was told of
		}
		h.subject.Tables[i] = t
	}
	if p.single {
		h.subject.Transact = nil
	}
	return h, nil
}

func (h *house) open(stores []Store, options lockstep.Options[int, int64], broken string) error {
	if broken != "" {
		s, err := sabotage.Find(broken)
		if err != nil {
			return err
		}
		subject, end, err := s.Open(stores, options)
		h.subject, h.close = subject, end
		return err
	}
	for _, s := range stores {
		c, err := lockstep.New(s, options)
		if err != nil {
			return err
		}
		h.caches = append(h.caches, c)
	}
	h.subject = history.Caches(h.caches...)
	h.close = func(ctx context.Context) (err error) {
		for _, c := range h.caches {
			err = errors.Join(err, c.Close(ctx))
		}
		return err
	}
	return nil
}

// counts are of what has happened so far, by the names of the faults that the plan has:
// an eviction is none where nobody asked for little memory.
func (h *house) counts(p plan) map[string]uint64 {
	counts := make(map[string]uint64)
	add := func(f Fault, n int) {
		if p.has(f) {
			counts[string(f)] += uint64(n)
		}
	}
	for _, f := range h.faulty {
		c := f.Counts()
		add(Latency, c.Latencies)
		add(Errors, c.Failures+c.Refusals)
		add(LostReply, c.LostRequests+c.LostReplies)
		add(Hangs, c.Hangs)
	}
	add(Cancelled, h.left)
	for _, c := range h.caches {
		s := c.Stats()
		add(Evictions, int(s.Evictions))
		add(Expiry, int(s.Expirations))
		counts[hits] += s.Hits
		counts[loads] += s.Loads
	}
	return counts
}

package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/internal/netfault"
)

// round is one round, from the judge's side.
type round struct {
	plan
	net    *netfault.Proxy // nil without a network
	url    string
	began  time.Time
	clock  history.Clock
	pieces history.Pieces
	own    *history.Log // the judge's reads
	told   int          // records of writes and reads so far, of all lives

	struck  map[Fault]int
	crashes int
	// underWay are the writes of which a program that was killed had not been told, and
	// counts are what the programs have counted.
	underWay int
	counts   map[string]uint64
}

// play plays a round, and returns its history. An error that is a *Violation says that
// something went wrong that no fault explains; any other one, that there is no verdict.
func (j *judge) play(ctx context.Context, net *netfault.Proxy) (*round, error) {
	number := uint64(j.rounds.Add(1) - 1)
	p, err := planOf(j.Seed+number, j.faults, j.Sabotage)
	if err != nil {
		return nil, err
	}
	r := &round{
		plan: p, net: net, began: time.Now(),
		struck: make(map[Fault]int), counts: make(map[string]uint64),
	}
	if net != nil {
		r.url = j.Target.URL(net.Addr())
	} else {
		r.url = j.Target.URL("")
	}
	r.clock = history.RealTimeSince(r.began)
	r.own = history.NewLog(r.clock, 999, &r.pieces)
	prefix := fmt.Sprintf("%s%d_", j.prefix, number+1)
	visit, tables, stores, err := r.visit(ctx, j, prefix)
	if err != nil {
		return nil, err
	}
	err = r.live(ctx, j, tables, stores)
	j.steady.RLock()
	defer j.steady.RUnlock()
	if left := visit.Leave(ctx); err == nil && left != nil {
		err = left
	}
	return r, err
}

// visit makes the round's tables.
func (r *round) visit(ctx context.Context, j *judge, prefix string) (visit Visit, tables []string, stores []Store, err error) {
	j.steady.RLock()
	defer j.steady.RUnlock()
	visit, err = j.Target.Visit(ctx, prefix)
	if err != nil {
		return nil, nil, nil, err
	}
	for i := range r.tables {
		tables = append(tables, prefix+string(rune('a'+i)))
		s, err := visit.Table(ctx, tables[i])
		if err != nil {
			return nil, nil, nil, errors.Join(err, visit.Leave(ctx))
		}
		stores = append(stores, s)
	}
	return visit, tables, stores, nil
}

func (r *round) live(ctx context.Context, j *judge, tables []string, stores []Store) error {
	for n := 0; ; n++ {
		now := time.Now()
		a := assignment{
			URL: r.url, Tables: tables, Seed: r.seed, Faults: j.faults, Sabotage: j.Sabotage,
			Life: n, Since: now.Sub(r.began), At: now,
		}
		strikes := newStriker(j, r)
		// It needs the server until it has begun.
		j.steady.RLock()
		begun := sync.OnceFunc(j.steady.RUnlock)
		l, err := j.start(ctx, a, func(l *life, rec record) {
			begun()
			r.hear(j, strikes, l, n, rec)
		})
		if err != nil {
			begun()
			return err
		}
		strikes.at(l)
		ended := l.wait()
		begun()
		struck, err := strikes.end()
		for f, times := range struck {
			r.struck[f] += times
		}
		for what, times := range strikes.counts {
			r.counts[what] += times
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return err // of what breaks things: nothing was tested
		case n == 0 && l.cannot != "":
			return fmt.Errorf("the program cannot begin: %s", l.cannot) // nothing was tested
		case ended != nil:
			return &Violation{Seed: r.seed, Reason: ended.Error()}
		}
		r.underWay += r.pieces.Died()
		if l.killed {
			r.crashes++
		}
		if err := r.look(ctx, j, stores); err != nil {
			return err
		}
		if !l.killed {
			return nil
		}
	}
}

// hear takes what a program tells. It kills the program when its time has come: from
// within, so that not one record more is heard than was told by then.
func (r *round) hear(j *judge, strikes *striker, l *life, n int, rec record) {
	switch {
	case rec.Begun != nil:
		r.pieces.Begun(rec.Begun)
	case rec.Settled != nil:
		r.pieces.Settled(rec.Settled)
	case rec.Ended != nil:
		r.pieces.Ended(rec.Ended)
		j.operations.Add(1)
	case rec.Counts != nil:
		j.struck.Add(total(rec.Counts) - total(strikes.counts))
		strikes.counts = rec.Counts
		return
	default:
		return
	}
	r.told++
	strikes.told(r.told)
	if n < len(r.deaths) && r.told >= r.deaths[n] {
		l.kill()
	}
}

func total(counts map[string]uint64) (n int64) {
	for what, c := range counts {
		if what != hits && what != loads {
			n += int64(c)
		}
	}
	return n
}

// look reads the tables past all caches, when the server has done with the sessions of
// the program that is gone: what is there now is what the history has led to.
func (r *round) look(ctx context.Context, j *judge, stores []Store) error {
	j.steady.RLock()
	defer j.steady.RUnlock()
	if r.net != nil {
		ctx, cancel := context.WithTimeout(ctx, silence)
		defer cancel()
		if err := r.net.AwaitServer(ctx); err != nil {
			return fmt.Errorf("the server does not end the sessions of a program that is gone: %w", err)
		}
	}
	keys := make([]int, r.keys)
	for i := range keys {
		keys[i] = i
	}
	for i, s := range stores {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		for {
			op := r.own.Call("what is in the table")
			rows, err := s.Load(ctx, keys)
			if err != nil {
				if ctx.Err() != nil {
					return fmt.Errorf("the judge cannot read the table: %w", err)
				}
				time.Sleep(50 * time.Millisecond) // a server that has just come back
				continue
			}
			for _, key := range keys {
				row := rows[key]
				seen := history.Row{Key: history.KeyOf(i, key), Exists: row.Exists}
				if row.Exists {
					seen.Value, seen.Version = row.Value, int64(row.Version)
				}
				op.Reads = append(op.Reads, seen)
			}
			r.own.Return(op)
			break
		}
	}
	return nil
}

// check checks the round's history.
func (r *round) check(patience time.Duration) error {
	ops := r.pieces.Ops()
	err := history.Check(ops, patience)
	var v *history.Violation
	if errors.As(err, &v) {
		return &Violation{Seed: r.seed, Reason: v.Error(), ops: ops}
	}
	return err
}

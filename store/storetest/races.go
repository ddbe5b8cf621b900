package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/lockstep-cache/lockstep"
)

// raceLaws: many goroutines on few rows, and a judge.
var raceLaws = []law{
	{"IncrementsAreNotLost", increments},
	{"TransfersKeepTheSum", transfers},
	{"HistoriesAreLinearizable", linearizable},
}

// replace is a set that changes the row read into next, and only that row. A
// store needs Versions or Checks for it.
func (s *subject) replace(key string, read row, next Doc) changeSet {
	if s.has(Versions) {
		if !read.Exists {
			return set(ifAbsent(put(key, next)))
		}
		return set(ifVersion(read.Version, put(key, next)))
	}
	return changeSet{Changes: []change{put(key, next)}, Checks: []check{seen(key, read)}}
}

func increments(s *subject) {
	if !s.has(Versions) && !s.has(Checks) {
		return // declared: such a store cannot tell that it was overtaken
	}
	const callers, each = 6, 15
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for done := 0; done < each; {
				rows, err := s.store.Load(s.ctx, []string{"k"})
				if err != nil {
					s.Errorf("Load: %v", err)
					return
				}
				read := rows["k"]
				outcomes, err := s.try(s.ctx, s.replace("k", read, doc(read.Value.Count+1)))
				if err == nil {
					err = outcomes[0].Err
				}
				switch {
				case err == nil:
					done++
				case !errors.Is(err, lockstep.ErrConflict):
					s.Errorf("Commit: %v, want success or a conflict", err)
					return
				}
			}
		})
	}
	group.Wait()
	s.holds("k", doc(callers*each))
}

// transfers moves amounts between accounts. Transactions that only read are
// judged too: where their checks pass, the sum that they have seen is right.
func transfers(s *subject) {
	if !s.has(Checks) || !s.has(Atomic) {
		return // declared: no transactions over several rows
	}
	const accounts, callers, each, money = 4, 6, 25, 100
	keys := make([]string, accounts)
	for i := range keys {
		keys[i] = fmt.Sprint("account", i)
		s.put(keys[i], doc(money))
	}
	var group sync.WaitGroup
	var moved, audited atomic.Int64
	for c := range uint64(callers) {
		random := rand.New(rand.NewPCG(c, 1))
		group.Go(func() {
			for range each {
				rows, err := s.store.Load(s.ctx, keys)
				if err != nil {
					s.Errorf("Load: %v", err)
					return
				}
				from, to := random.IntN(accounts), random.IntN(accounts)
				var attempt changeSet
				if from == to {
					for _, key := range keys {
						attempt.Checks = append(attempt.Checks, seen(key, rows[key]))
					}
				} else {
					amount := random.Int64N(rows[keys[from]].Value.Count + 1)
					attempt.Changes = []change{
						put(keys[from], doc(rows[keys[from]].Value.Count-amount)),
						put(keys[to], doc(rows[keys[to]].Value.Count+amount)),
					}
					attempt.Checks = []check{seen(keys[from], rows[keys[from]]), seen(keys[to], rows[keys[to]])}
				}
				outcomes, err := s.try(s.ctx, attempt)
				if err == nil {
					err = outcomes[0].Err
				}
				switch {
				case errors.Is(err, lockstep.ErrConflict):
				case err != nil:
					s.Errorf("Commit: %v, want success or a conflict", err)
					return
				case from != to:
					moved.Add(1)
				default:
					audited.Add(1)
					if sum := total(rows); sum != accounts*money {
						s.Errorf("a validated transaction has seen a sum of %d, want %d", sum, accounts*money)
					}
				}
			}
		})
	}
	group.Wait()
	if sum := total(s.load(keys...)); sum != accounts*money {
		s.Errorf("after %d transfers the sum is %d, want %d", moved.Load(), sum, accounts*money)
	}
	s.expect(moved.Load() > 0, "of %d transfers none was committed", callers*each)
}

func total(rows map[string]row) int64 {
	var sum int64
	for _, r := range rows {
		sum += r.Value.Count
	}
	return sum
}

// registerOp is an operation of a history: a read, a write, or a write that
// expects a value. Documents are known by their Count; 0 is no row.
type registerOp struct {
	key       string
	read      bool
	expecting bool
	old, next int64
}

// register is the sequential meaning of a row, for porcupine.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := make(map[string][]porcupine.Operation)
		for _, op := range history {
			key := op.Input.(registerOp).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		op, held, got := input.(registerOp), state.(int64), output.(int64)
		switch {
		case op.read:
			return got == held, held
		case op.expecting && held != op.old:
			return got == 0, held // a conflict
		default:
			return got == 1, op.next
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %v", input, output) },
}

// linearizable records what concurrent callers do to a few rows, and asks
// porcupine whether one order of single steps explains it all.
func linearizable(s *subject) {
	const callers, each, keys = 6, 40, 3
	var mu sync.Mutex
	var history []porcupine.Operation
	var clock, values atomic.Int64
	var group sync.WaitGroup
	for c := range callers {
		random := rand.New(rand.NewPCG(uint64(c), 2))
		group.Go(func() {
			known := make(map[string]row)
			for range each {
				op := registerOp{key: fmt.Sprint("key", random.IntN(keys))}
				var attempt changeSet
				read, isKnown := known[op.key]
				switch n := random.IntN(10); {
				case n < 4:
					op.read = true
				case n < 6 && isKnown && read.Exists && s.has(Versions):
					op.expecting, op.old, op.next = true, read.Value.Count, values.Add(1)
					attempt = s.replace(op.key, read, doc(op.next))
				case n < 7:
					attempt = set(erase(op.key))
				default:
					op.next = values.Add(1)
					attempt = set(put(op.key, doc(op.next)))
				}

				call := clock.Add(1)
				var output int64
				if op.read {
					rows, err := s.store.Load(s.ctx, []string{op.key})
					if err != nil {
						s.Errorf("Load: %v", err)
						return
					}
					known[op.key] = rows[op.key]
					output = rows[op.key].Value.Count
				} else {
					outcomes, err := s.try(s.ctx, attempt)
					if err == nil {
						err = outcomes[0].Err
					}
					switch {
					case err == nil:
						output = 1
					case !errors.Is(err, lockstep.ErrConflict):
						s.Errorf("Commit: %v, want success or a conflict", err)
						return
					}
				}
				done := clock.Add(1)
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: c, Input: op, Call: call, Output: output, Return: done})
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if s.Failed() {
		return
	}
	if verdict := porcupine.CheckOperationsTimeout(register, history, time.Minute); verdict != porcupine.Ok {
		s.Errorf("a history of %d operations is not linearizable (porcupine: %s)", len(history), verdict)
		for _, op := range history {
			s.Logf("%4d–%4d caller %d: %s", op.Call, op.Return, op.ClientId, register.DescribeOperation(op.Input, op.Output))
		}
	}
}

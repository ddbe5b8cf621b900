package server

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/copies"
	"github.com/lockstep-cache/lockstep/resp"
)

// unruly does in one pipeline what a client may do between reads, keeps what it may keep, and
// makes a round trip.
func (c *copier) unruly(rnd *rand.Rand, ledger *copies.Ledger) bool {
	var in strings.Builder
	// What each reply is: of which keys it has values, and whether all copies are void with it.
	type answer struct {
		keys []string
		void bool
	}
	var answers []answer
	on, three := true, true // tracking, and RESP3
	say := func(void bool, format string, args ...any) {
		fmt.Fprintf(&in, format+"\r\n", args...)
		answers = append(answers, answer{void: void})
	}
	for range 1 + rnd.IntN(6) {
		a, b := copies.Key(rnd.IntN(copies.Keys)), copies.Key(rnd.IntN(copies.Keys))
		kept := func(keys ...string) []string {
			if on && three && c.mode != "OPTIN" {
				return keys
			}
			return nil
		}
		switch rnd.IntN(10) {
		case 0:
			say(true, "RESET")
			say(false, "HELLO 3")
			say(false, "CLIENT TRACKING ON %s", c.mode)
			on, three = true, true
		case 1:
			say(true, "CLIENT TRACKING OFF")
			on = false
		case 2:
			say(!on, "CLIENT TRACKING ON %s", c.mode)
			on = true
		case 3:
			say(true, "HELLO %d", 2+rnd.IntN(2))
			three = strings.HasSuffix(in.String(), "3\r\n")
		case 4:
			fmt.Fprintf(&in, "CLIENT REPLY OFF\r\nGET %s\r\nMGET %s %s\r\n", a, a, b)
			say(false, "CLIENT REPLY ON")
		case 5:
			fmt.Fprintf(&in, "CLIENT REPLY SKIP\r\nGET %s\r\n", a)
			say(false, "PING")
		case 6, 7:
			say(false, "MULTI")
			say(false, "GET %s", a)
			say(false, "GET %s", b)
			say(false, "EXEC")
			answers[len(answers)-1].keys = kept(a, b)
		case 8:
			say(false, "MGET %s %s", a, b)
			answers[len(answers)-1].keys = kept(a, b)
		default:
			if c.mode == "OPTIN" {
				say(false, "CLIENT CACHING YES")
			}
			say(false, "GET %s", a)
			if on && three {
				answers[len(answers)-1].keys = []string{a}
			}
		}
	}
	if !three {
		say(true, "HELLO 3")
	}
	if !on {
		say(true, "CLIENT TRACKING ON %s", c.mode)
	}
	if _, err := io.WriteString(c.p, in.String()); err != nil {
		return false
	}
	for _, a := range answers {
		v, ok := c.next(c.p)
		if !ok {
			return false
		}
		if a.void {
			clear(c.copies)
		}
		if v.Kind == resp.Error {
			continue
		}
		for i, key := range a.keys {
			one := v
			if len(a.keys) > 1 {
				one = v.Elems[i]
			}
			n, _ := strconv.ParseInt(one.Text, 10, 64)
			c.copies[key] = n
		}
	}
	if !c.check(ledger) && c.t.Failed() {
		c.t.Logf("after %q", in.String())
		return false
	}
	return true
}

// tripsToAKill is how many round trips there are to a connection that is killed.
const tripsToAKill = 100

// TestUnrulyClientsHoldNothingOld: RESET, HELLO and the end of tracking in the middle of pipelines, replies
// that are not wanted, EXEC, connections that are killed, and writers in transactions.
func TestUnrulyClientsHoldNothingOld(t *testing.T) {
	r := copiesRig{duration: time.Second, seed: rand.Uint64()}
	t.Logf("seed %d", r.seed)
	s, addr := start(t, r.options(t))
	var ledger copies.Ledger
	end := make(chan struct{})
	var writers, clients sync.WaitGroup
	first, second, killer := dial(t, addr), dial(t, addr), dial(t, addr) // whom nobody kills
	for _, p := range []*peer{first, second, killer} {
		p.ask("PING", pong)
	}
	writers.Go(func() {
		if err := copies.Write(first, rand.New(rand.NewPCG(r.seed, 0)), &ledger, []int{0, 1, 2}, end, nil); err != nil {
			t.Error(err)
		}
	})
	writers.Go(func() { // by EXEC, of which only the last reply counts
		p := second
		for n := int64(1); ; n++ {
			select {
			case <-end:
				return
			default:
			}
			p.send(fmt.Sprintf("WATCH k5\r\nMULTI\r\nSET k3 %d\r\nSET k4 %d\r\nGET k0\r\nEXEC\r\n", n, n))
			var v resp.Value
			for range 6 {
				var err error
				if v, err = p.replies.Decode(); err != nil {
					t.Error(err)
					return
				}
			}
			if len(v.Elems) == 3 {
				for _, key := range []int{3, 4} {
					for old := ledger[key].Load(); old < n && !ledger[key].CompareAndSwap(old, n); old = ledger[key].Load() {
					}
				}
			}
		}
	})
	var trips, killed atomic.Int64
	due := make(chan struct{}, 1) // a kill, now and then
	for i, mode := range []string{"", "", "OPTIN", "OPTOUT", "NOLOOP", "BCAST", "BCAST PREFIX k"} {
		clients.Go(func() {
			rnd := rand.New(rand.NewPCG(r.seed, 100+uint64(i)))
			for {
				c, ok := newCopier(t, addr, mode)
				for ok {
					select {
					case <-end:
						c.close()
						return
					default:
					}
					ok = c.unruly(rnd, &ledger)
					if trips.Add(1)%tripsToAKill == 0 {
						select {
						case due <- struct{}{}:
						default: // one is under way
						}
					}
				}
				if t.Failed() {
					return
				}
				if c != nil {
					c.close()
				}
			}
		})
	}
	clients.Go(func() {
		rnd := rand.New(rand.NewPCG(r.seed, 1000))
		p := killer
		for {
			select {
			case <-end:
				return
			case <-due:
			}
			all := s.clients()
			if victim := all[rnd.IntN(len(all))]; victim.id > 3 {
				p.send(fmt.Sprintf("CLIENT KILL ID %d\r\n", victim.id))
				if _, err := p.replies.Decode(); err != nil {
					t.Error(err)
					return
				}
				killed.Add(1)
			}
		}
	})
	time.Sleep(r.duration) // the length of the history; nothing is waited for
	close(end)
	writers.Wait()
	clients.Wait()
	t.Logf("%d writes, %d round trips, %d kills", ledger.Total(), trips.Load(), killed.Load())
	if ledger.Total() == 0 || trips.Load() == 0 {
		t.Error("nothing has happened")
	}
}

package server

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/copies"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A history of copies: writers count keys up (internal/copies), and clients that track keep what they read,
// for as long as they are not told otherwise. After a round trip that begins when a write
// has been acknowledged, nobody may hold anything older. What a key holds says how many
// writes it has behind it, so older is smaller.

// copier is a client with a cache of its own.
type copier struct {
	t       *testing.T
	mode    string
	p       *peer // values come here
	told    *peer // and invalidations here: the same, but for REDIRECT
	copies  map[string]int64
	pending map[string]bool // asked for, and not invalidated since: what REDIRECT's clients need
	found   atomic.Int64
}

func newCopier(t *testing.T, addr, mode string) (*copier, bool) {
	c := &copier{t: t, mode: mode, copies: map[string]int64{}, pending: map[string]bool{}}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, false
	}
	c.p = newPeer(t, conn)
	c.told = c.p
	if mode == "REDIRECT" {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, false
		}
		c.told = newPeer(t, conn)
		_, _ = io.WriteString(c.told, "CLIENT ID\r\nSUBSCRIBE __redis__:invalidate\r\n")
		id, err := c.told.replies.Decode()
		if err != nil {
			return nil, false
		}
		if _, err := c.told.replies.Decode(); err != nil {
			return nil, false
		}
		mode += " " + id.Text
	} else {
		_, _ = io.WriteString(c.p, "HELLO 3\r\n")
		if _, err := c.p.replies.Decode(); err != nil {
			return nil, false
		}
	}
	_, _ = io.WriteString(c.p, "CLIENT TRACKING ON "+mode+"\r\n")
	// An invalidation by prefix may come before the reply.
	v, ok := c.next(c.p)
	if ok && v.Text != "OK" {
		t.Errorf("%s: %s", mode, v)
	}
	if !ok || v.Text != "OK" {
		return nil, false
	}
	return c, true
}

func (c *copier) close() {
	c.p.Close()
	c.told.Close()
}

// drop is an invalidation's.
func (c *copier) drop(keys resp.Value) {
	if keys.IsNull() {
		clear(c.copies)
		clear(c.pending)
		return
	}
	for _, key := range keys.Elems {
		delete(c.copies, key.Text)
		delete(c.pending, key.Text)
	}
}

// next returns the next reply on a connection, and does what messages before it say.
func (c *copier) next(p *peer) (resp.Value, bool) {
	for {
		v, err := p.replies.Decode()
		switch {
		case err != nil:
			return v, false
		case v.Kind == resp.Push && v.Elems[0].Text == "invalidate":
			c.drop(v.Elems[1])
		case len(v.Elems) == 3 && v.Elems[0].Text == "message":
			c.drop(v.Elems[2])
		default:
			return v, true
		}
	}
}

// read asks for some keys in one pipeline, and keeps what comes.
func (c *copier) read(rnd *rand.Rand) bool {
	var keys []string
	var in strings.Builder
	for range 1 + rnd.IntN(4) {
		key := copies.Key(rnd.IntN(copies.Keys))
		if _, has := c.copies[key]; has {
			c.found.Add(1)
			continue
		}
		if c.mode == "OPTIN" {
			in.WriteString("CLIENT CACHING YES\r\n")
		}
		fmt.Fprintf(&in, "GET %s\r\n", key)
		keys = append(keys, key)
		c.pending[key] = true
	}
	if _, err := io.WriteString(c.p, in.String()); err != nil {
		return false
	}
	for _, key := range keys {
		if c.mode == "OPTIN" {
			if _, ok := c.next(c.p); !ok {
				return false
			}
		}
		v, ok := c.next(c.p)
		if !ok {
			return false
		}
		if v.Kind == resp.Error {
			continue // the database is away
		}
		n, _ := strconv.ParseInt(v.Text, 10, 64) // none: 0
		if c.told == c.p || c.pending[key] {
			c.copies[key] = n
		}
		delete(c.pending, key)
	}
	return true
}

// check makes a round trip, and tells whether nothing that is left is older than what had
// been acknowledged before it began.
func (c *copier) check(ledger *copies.Ledger) bool {
	least := ledger.Snapshot()
	for _, p := range []*peer{c.p, c.told} {
		if _, err := io.WriteString(p, "PING\r\n"); err != nil {
			return false
		}
		if _, ok := c.next(p); !ok {
			return false
		}
		if c.p == c.told {
			break
		}
	}
	if key, ok := copies.Check(least, c.copies); !ok {
		c.t.Errorf("%q: a copy of %s is %d after a round trip; before it %v had been acknowledged", c.mode, key, c.copies[key], least)
		return false
	}
	return true
}

// TestNoCopyIsOlderThanWhatWasAcknowledged over histories with clients that read, that do not
// read, and that go, and with a store that is slow, fails, and loses replies.
func TestNoCopyIsOlderThanWhatWasAcknowledged(t *testing.T) {
	rig := copiesRig{duration: 1500 * time.Millisecond, seed: rand.Uint64()}
	t.Logf("seed %d", rig.seed)
	_, addr := start(t, rig.options(t))
	rig.run(t, addr)
}

type copiesRig struct {
	duration time.Duration
	seed     uint64
}

func (r copiesRig) options(t *testing.T) Options {
	script, err := fault.ParseScript("commit *: latency 0ms..2ms; load *: latency 0ms..1ms; commit 3%: lose reply; commit 2%: lose reply, late; commit 2%: lose request; commit 3%: fail; load 1%: fail; settle 20%: fail")
	if err != nil {
		t.Fatal(err)
	}
	store := fault.Inject[string, Value](memstore.New(memstore.Options[string, Value]{}), script, r.seed)
	return Options{Store: store, OutputLimit: 64 << 10, InvalidationTimeout: 50 * time.Millisecond, Cache: lockstep.Options[string, Value]{MaxEntries: 1000, Logger: slog.New(slog.DiscardHandler)}}
}

func (r copiesRig) run(t *testing.T, addr string) {
	var ledger copies.Ledger
	end := make(chan struct{})
	progress := make(chan struct{}, 1) // some writes have been made
	var writers, clients sync.WaitGroup
	for i := range 3 {
		mine := []int{2 * i, 2*i + 1}
		p := dial(t, addr)
		writers.Go(func() {
			if err := copies.Write(p, rand.New(rand.NewPCG(r.seed, uint64(i))), &ledger, mine, end, progress); err != nil {
				t.Error(err)
			}
		})
	}
	var checks, found atomic.Int64
	for i, mode := range []string{"", "", "", "NOLOOP", "OPTIN", "OPTIN", "OPTOUT", "BCAST", "BCAST PREFIX k", "BCAST PREFIX k1 PREFIX k2 PREFIX k0 PREFIX k3 PREFIX k4 PREFIX k5", "REDIRECT", "REDIRECT"} {
		clients.Go(func() {
			rnd := rand.New(rand.NewPCG(r.seed, 100+uint64(i)))
			for {
				c, ok := newCopier(t, addr, mode)
				if !ok {
					t.Errorf("%q does not connect", mode)
					return
				}
				for rnd.IntN(200) > 0 && ok {
					select {
					case <-end:
						c.close()
						return
					default:
					}
					ok = c.read(rnd) && c.check(&ledger)
					checks.Add(1)
					found.Add(c.found.Swap(0))
				}
				c.close()
				if !ok {
					t.Errorf("%q: the connection ended, or held what it must not", mode)
					return
				}
			}
		})
	}
	// Those who read nothing of what they are sent: it fills the kernel's buffers, and ends.
	// Each keeps the writers for a moment, so there is one now and then.
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-end:
					return
				case <-progress:
				}
				p, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				_ = p.(*net.TCPConn).SetReadBuffer(1)
				_, _ = io.WriteString(p, "HELLO 3\r\nCLIENT TRACKING ON BCAST\r\n")
				for range 100 {
					if _, err := io.WriteString(p, strings.Repeat("GET k0\r\n", 50)); err != nil {
						break
					}
				}
				p.Close()
			}
		})
	}
	time.Sleep(r.duration) // the length of the history; nothing is waited for
	close(end)
	writers.Wait()
	clients.Wait()
	total := ledger.Total()
	t.Logf("%d writes, %d round trips, %d answers from copies", total, checks.Load(), found.Load())
	if total == 0 || checks.Load() == 0 || found.Load() == 0 {
		t.Error("nothing has happened")
	}
}

package clients

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/lockstep-cache/lockstep/internal/copies"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

var nothing = fault.MustParse("")

// A history of rueidis's own caches: writers count keys up, and clients read them by
// DoCache. A read that begins when its client has made a round trip on its connection may
// not find what is older than any write acknowledged before the round trip began. Values
// come from a cache, from the server, and from another goroutine's request that was under
// way: all are held to the same.

// hashKey is a hash, and the others are strings.
const hashKey = copies.Keys - 1

// write counts keys that nobody else writes, alone and in pipelines, until the end, as
// copies.Write does without rueidis and hashes.
func write(ctx context.Context, t *testing.T, c rueidis.Client, rnd *rand.Rand, ledger *copies.Ledger, mine []int, end <-chan struct{}) {
	var next [copies.Keys]int64
	for {
		select {
		case <-end:
			return
		default:
		}
		var commands rueidis.Commands
		var keys []int
		var values []int64
		for range 1 + rnd.IntN(3) {
			key := mine[rnd.IntN(len(mine))]
			next[key]++
			value := fmt.Sprint(next[key])
			if key == hashKey {
				commands = append(commands, c.B().Hset().Key(copies.Key(key)).FieldValue().FieldValue("n", value).Build())
			} else {
				commands = append(commands, c.B().Set().Key(copies.Key(key)).Value(value).Build())
			}
			keys, values = append(keys, key), append(values, next[key])
		}
		for i, r := range c.DoMulti(ctx, commands...) {
			if err := r.Error(); err == nil {
				ledger[keys[i]].Store(values[i])
			} else if _, is := rueidis.IsRedisErr(err); !is {
				t.Error(err)
				return
			}
		}
	}
}

// read makes round trips, and reads.
func read(ctx context.Context, t *testing.T, c rueidis.Client, rnd *rand.Rand, ledger *copies.Ledger, hits *atomic.Int64, end <-chan struct{}) {
	for {
		select {
		case <-end:
			return
		default:
		}
		least := ledger.Snapshot()
		if err := c.Do(ctx, c.B().Ping().Build()).Error(); err != nil {
			continue // it was cut off for being slow, and connects again
		}
		var commands []rueidis.CacheableTTL
		var keys []int
		for range 1 + rnd.IntN(4) {
			key := rnd.IntN(copies.Keys)
			command := c.B().Get().Key(copies.Key(key)).Cache()
			if key == hashKey {
				command = c.B().Hget().Key(copies.Key(key)).Field("n").Cache()
			}
			keys = append(keys, key)
			commands = append(commands, rueidis.CT(command, time.Hour))
		}
		var results []rueidis.RedisResult
		if len(commands) == 1 {
			results = append(results, c.DoCache(ctx, commands[0].Cmd, commands[0].TTL))
		} else {
			results = c.DoMultiCache(ctx, commands...)
		}
		for i, r := range results {
			n, err := r.AsInt64()
			if err != nil && !rueidis.IsRedisNil(err) {
				continue // the database is away
			}
			if r.IsCacheHit() {
				hits.Add(1)
			}
			if want := least[keys[i]]; n < want {
				t.Errorf("%s is %d (from the cache: %v) after a round trip, and %d had been acknowledged before it", copies.Key(keys[i]), n, r.IsCacheHit(), want)
				return
			}
		}
	}
}

// deaf connections track everything, ask and read nothing of what they are sent, until the
// kernel's buffers are full, and go. Each keeps the writers for a moment, so there is one
// now and then.
func deaf(addr string, progress, end <-chan struct{}) {
	for {
		select {
		case <-end:
			return
		case <-progress:
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		_ = conn.(*net.TCPConn).SetReadBuffer(1)
		_ = conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		_, _ = io.WriteString(conn, "AUTH '"+password+"'\r\nHELLO 3\r\nCLIENT TRACKING ON BCAST\r\n")
		for range 100 {
			if _, err := io.WriteString(conn, strings.Repeat("GET k0\r\n", 50)); err != nil {
				break
			}
		}
		conn.Close()
	}
}

func history(t *testing.T, addr string, auth string, duration time.Duration) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	ctx := t.Context()
	var ledger copies.Ledger
	var hits atomic.Int64
	end, progress := make(chan struct{}), make(chan struct{}, 1)
	var all sync.WaitGroup
	connect := func(o rueidis.ClientOption) rueidis.Client {
		o.InitAddress, o.Password = []string{addr}, auth
		o.PipelineMultiplex = -1 // one connection: the round trip is on that of the cache
		c, err := rueidis.NewClient(o)
		if err != nil {
			t.Error(err)
			return nil
		}
		return c
	}
	for i, mine := range [][]int{{0, 1}, {2, 3}} {
		conn, err := net.Dial("tcp", addr)
		ok(t, err)
		defer conn.Close()
		if auth != "" {
			answer := make([]byte, len("+OK\r\n"))
			_, _ = io.WriteString(conn, "AUTH '"+auth+"'\r\n")
			_, err := io.ReadFull(conn, answer)
			same(t, "AUTH", string(answer), err, "+OK\r\n")
		}
		all.Go(func() {
			if err := copies.Write(conn, rand.New(rand.NewPCG(seed, uint64(i))), &ledger, mine, end, progress); err != nil {
				t.Error(err)
			}
		})
	}
	if c := connect(rueidis.ClientOption{}); c != nil {
		defer c.Close()
		all.Go(func() {
			write(ctx, t, c, rand.New(rand.NewPCG(seed, 2)), &ledger, []int{copies.Keys - 2, hashKey}, end)
		})
	}
	for i, tracking := range [][]string{nil, nil, nil, {"BCAST"}, {"PREFIX", "k", "BCAST"}, {"OPTOUT"}} {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 100+uint64(i)))
			for {
				select {
				case <-end:
					return
				default:
				}
				c := connect(rueidis.ClientOption{ClientTrackingOptions: tracking})
				if c == nil {
					return
				}
				// Several at once use one cache, and leave together.
				leave := make(chan struct{})
				var readers sync.WaitGroup
				for range 3 {
					mine := rand.New(rand.NewPCG(rnd.Uint64(), 0))
					readers.Go(func() { read(ctx, t, c, mine, &ledger, &hits, leave) })
				}
				select {
				case <-end:
				case <-time.After(time.Duration(100+rnd.IntN(400)) * time.Millisecond):
				}
				close(leave)
				readers.Wait()
				c.Close()
				if t.Failed() {
					return
				}
			}
		})
	}
	all.Go(func() { deaf(addr, progress, end) })
	time.Sleep(duration) // the length of the history; nothing is waited for
	close(end)
	all.Wait()
	t.Logf("%d writes, %d answers from caches", ledger.Total(), hits.Load())
	if ledger.Total() == 0 || hits.Load() == 0 {
		t.Error("nothing has happened")
	}
}

// TestNoCacheOfRueidisIsOlderThanWhatWasAcknowledged, over a store that is slow, fails and
// loses replies, and over lockstep serve.
func TestNoCacheOfRueidisIsOlderThanWhatWasAcknowledged(t *testing.T) {
	t.Run("faults", func(t *testing.T) {
		addr, _ := within(t, "commit *: latency 0ms..2ms; load *: latency 0ms..1ms; commit 3%: lose reply; commit 2%: lose reply, late; commit 2%: lose request; commit 3%: fail; load 1%: fail; settle 20%: fail")
		history(t, addr, "", time.Second)
	})
	t.Run("serve", func(t *testing.T) {
		history(t, serve(t).addr(), password, time.Second)
	})
}

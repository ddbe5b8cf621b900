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

	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

var nothing = fault.MustParse("")

// A history of rueidis's own caches: writers count keys up, and clients read them by
// DoCache. A read that begins when its client has made a round trip on its connection may
// not find what is older than any write acknowledged before the round trip began. What a
// key holds says how many writes it has behind it, so older is smaller.
//
// Values come from a cache, from the server, and from another goroutine's request that was
// under way: all are held to the same.

const historyKeys = 6

// historyKey names a string for an even number, and a hash for an odd one.
func historyKey(i int) string { return fmt.Sprint("k", i) }

// acknowledged is the largest value of each key that a writer was told is written.
type acknowledged [historyKeys]atomic.Int64

func (a *acknowledged) snapshot() (values [historyKeys]int64) {
	for i := range a {
		values[i] = a[i].Load()
	}
	return values
}

// write counts keys that nobody else writes, alone and in pipelines, until the end. One
// whose outcome is unknown may have been applied, and is not counted as acknowledged.
func (a *acknowledged) write(ctx context.Context, t *testing.T, c rueidis.Client, rnd *rand.Rand, mine []int, progress chan<- struct{}, end <-chan struct{}) {
	var next [historyKeys]int64
	for n := 1; ; n++ {
		select {
		case <-end:
			return
		default:
		}
		if n%40 == 0 {
			select {
			case progress <- struct{}{}:
			default:
			}
		}
		var commands rueidis.Commands
		var keys []int
		var values []int64
		for range 1 + rnd.IntN(3) {
			key := mine[rnd.IntN(len(mine))]
			next[key]++
			value := fmt.Sprint(next[key])
			if key%2 == 0 {
				commands = append(commands, c.B().Set().Key(historyKey(key)).Value(value).Build())
			} else {
				commands = append(commands, c.B().Hset().Key(historyKey(key)).FieldValue().FieldValue("n", value).Build())
			}
			keys, values = append(keys, key), append(values, next[key])
		}
		for i, r := range c.DoMulti(ctx, commands...) {
			if err := r.Error(); err == nil {
				a[keys[i]].Store(values[i])
			} else if _, is := rueidis.IsRedisErr(err); !is {
				t.Error(err)
				return
			}
		}
	}
}

// read makes round trips, and reads.
func (a *acknowledged) read(ctx context.Context, t *testing.T, c rueidis.Client, rnd *rand.Rand, hits *atomic.Int64, end <-chan struct{}) {
	for {
		select {
		case <-end:
			return
		default:
		}
		least := a.snapshot()
		if err := c.Do(ctx, c.B().Ping().Build()).Error(); err != nil {
			continue // it was cut off for being slow, and connects again
		}
		var commands []rueidis.CacheableTTL
		var keys []int
		for range 1 + rnd.IntN(4) {
			key := rnd.IntN(historyKeys)
			var command rueidis.Cacheable
			switch {
			case key%2 == 1:
				command = c.B().Hget().Key(historyKey(key)).Field("n").Cache()
			default:
				command = c.B().Get().Key(historyKey(key)).Cache()
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
				t.Errorf("%s is %d (from the cache: %v) after a round trip, and %d had been acknowledged before it", historyKey(keys[i]), n, r.IsCacheHit(), want)
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
	var acked acknowledged
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
	for i := range historyKeys / 2 {
		c := connect(rueidis.ClientOption{DisableCache: i == 0})
		if c == nil {
			break
		}
		defer c.Close()
		all.Go(func() {
			acked.write(ctx, t, c, rand.New(rand.NewPCG(seed, uint64(i))), []int{2 * i, 2*i + 1}, progress, end)
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
					readers.Go(func() { acked.read(ctx, t, c, mine, &hits, leave) })
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
	total := int64(0)
	for i := range acked {
		total += acked[i].Load()
	}
	t.Logf("%d writes, %d answers from caches", total, hits.Load())
	if total == 0 || hits.Load() == 0 {
		t.Error("nothing has happened")
	}
}

// TestNoCacheOfRueidisIsOlderThanWhatWasAcknowledged, over a store that is slow, fails and
// loses replies, and over lockstep serve.
func TestNoCacheOfRueidisIsOlderThanWhatWasAcknowledged(t *testing.T) {
	t.Run("faults", func(t *testing.T) {
		addr, _ := within(t, "commit *: latency 0ms..2ms; load *: latency 0ms..1ms; commit 3%: lose reply; commit 2%: lose reply, late; commit 2%: lose request; commit 3%: fail; load 1%: fail; settle 20%: fail")
		history(t, addr, "", 1500*time.Millisecond)
	})
	t.Run("serve", func(t *testing.T) {
		history(t, serve(t).addr(), password, 1500*time.Millisecond)
	})
}

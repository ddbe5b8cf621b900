package clients

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"
)

func newRueidis(t testing.TB, addr string, with ...func(*rueidis.ClientOption)) rueidis.Client {
	t.Helper()
	o := rueidis.ClientOption{InitAddress: []string{addr}, Password: password}
	for _, set := range with {
		set(&o)
	}
	c, err := rueidis.NewClient(o)
	ok(t, err)
	t.Cleanup(c.Close)
	return c
}

// inModes runs a test in RESP3 and in RESP2, which has no caching.
func inModes(t *testing.T, test func(t *testing.T, mode func(*rueidis.ClientOption))) {
	t.Run("RESP3", func(t *testing.T) { test(t, func(*rueidis.ClientOption) {}) })
	t.Run("RESP2", func(t *testing.T) {
		test(t, func(o *rueidis.ClientOption) { o.AlwaysRESP2, o.DisableCache = true, true })
	})
}

func TestRueidis(t *testing.T) {
	p := serve(t)
	inModes(t, func(t *testing.T, mode func(*rueidis.ClientOption)) {
		ctx := limited(t)
		c := newRueidis(t, p.addr(), mode, func(o *rueidis.ClientOption) { o.ClientName = "tester" })
		ok(t, c.Do(ctx, c.B().Flushall().Build()).Error())
		info, err := c.Do(ctx, c.B().ClientInfo().Build()).ToString()
		if err != nil || !strings.Contains(info, " name=tester ") || !strings.Contains(info, " lib-name=rueidis") {
			t.Errorf("%q, %v", info, err)
		}

		// A pipeline, in which an error of one command is its own.
		const n = 100
		var commands rueidis.Commands
		for i := range n {
			key := fmt.Sprint("k", i)
			commands = append(commands, c.B().Set().Key(key).Value(fmt.Sprint(i)).Ex(time.Hour).Build(),
				c.B().Hset().Key("h"+key).FieldValue().FieldValue("f", key).Build(),
				c.B().Incr().Key("h"+key).Build(),
				c.B().Get().Key(key).Build())
		}
		for i, r := range c.DoMulti(ctx, commands...) {
			if i%4 == 2 {
				if e, is := rueidis.IsRedisErr(r.Error()); !is || !strings.HasPrefix(e.Error(), "WRONGTYPE") {
					t.Fatalf("INCR of a hash: %v", r.Error())
				}
			} else if i%4 == 3 {
				got, err := r.AsInt64()
				same(t, "GET", got, err, int64(i/4))
			} else {
				ok(t, r.Error())
			}
		}
		hash, err := c.Do(ctx, c.B().Hgetall().Key("hk7").Build()).AsStrMap()
		if want := map[string]string{"f": "k7"}; err != nil || !maps.Equal(hash, want) {
			t.Errorf("%v, %v", hash, err)
		}
		values, err := rueidis.MGet(c, ctx, []string{"k1", "none", "k2"})
		ok(t, err)
		one, two, none := values["k1"], values["k2"], values["none"]
		text, err := one.ToString()
		same(t, "MGET", text, err, "1")
		text, err = two.ToString()
		same(t, "MGET", text, err, "2")
		same(t, "MGET", none.IsNil(), nil, true)
		for key, err := range rueidis.MSet(c, ctx, map[string]string{"m1": "1", "m2": "2"}) {
			if err != nil {
				t.Errorf("%s: %v", key, err)
			}
		}
		found := 0
		scanner := rueidis.NewScanner(func(cursor uint64) (rueidis.ScanEntry, error) {
			return c.Do(ctx, c.B().Scan().Cursor(cursor).Match("hk*").Count(50).Type("hash").Build()).AsScanEntry()
		})
		for range scanner.Iter() {
			found++
		}
		if found != n || scanner.Err() != nil {
			t.Errorf("SCAN finds %d, %v", found, scanner.Err())
		}
		if err := c.Do(ctx, c.B().Get().Key("none").Build()).Error(); !rueidis.IsRedisNil(err) {
			t.Errorf("GET of nothing: %v", err)
		}
		if _, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{p.addr()}, Password: "wrong"}); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
			t.Errorf("a wrong password: %v", err)
		}
	})
}

// TestRueidisDedicatedLosesNoUpdate: connections of their own, with WATCH, MULTI and EXEC.
func TestRueidisDedicatedLosesNoUpdate(t *testing.T) {
	p := serve(t)
	const goroutines, each = 8, 15
	ctx := limited(t)
	c := newRueidis(t, p.addr())
	var adding sync.WaitGroup
	for range goroutines {
		adding.Go(func() {
			for done := 0; done < each; {
				err := c.Dedicated(func(d rueidis.DedicatedClient) error {
					if err := d.Do(ctx, d.B().Watch().Key("n").Build()).Error(); err != nil {
						return err
					}
					n, err := d.Do(ctx, d.B().Get().Key("n").Build()).AsInt64()
					if err != nil && !rueidis.IsRedisNil(err) {
						return err
					}
					replies := d.DoMulti(ctx, d.B().Multi().Build(), d.B().Set().Key("n").Value(fmt.Sprint(n+1)).Build(), d.B().Exec().Build())
					return replies[2].Error()
				})
				switch {
				case err == nil:
					done++
				case !rueidis.IsRedisNil(err):
					t.Error(err)
					return
				}
			}
		})
	}
	adding.Wait()
	n, err := c.Do(ctx, c.B().Get().Key("n").Build()).AsInt64()
	same(t, "the sum", n, err, goroutines*each)
}

func TestRueidisReceives(t *testing.T) {
	p := serve(t)
	inModes(t, func(t *testing.T, mode func(*rueidis.ClientOption)) {
		ctx := limited(t)
		c := newRueidis(t, p.addr(), mode)
		heard := make(chan string)
		var listening sync.WaitGroup
		for _, subscribe := range []rueidis.Completed{
			c.B().Subscribe().Channel("a").Build(), c.B().Psubscribe().Pattern("a*").Build(), c.B().Ssubscribe().Channel("a").Build(),
		} {
			listening.Go(func() {
				// It ends when the subscription does.
				if err := c.Receive(ctx, subscribe, func(m rueidis.PubSubMessage) {
					heard <- fmt.Sprintf("%s %s %s", m.Pattern, m.Channel, m.Message)
				}); err != nil {
					t.Error(err)
				}
			})
		}
		until := func(publish rueidis.Completed, want int64) {
			t.Helper()
			for {
				n, err := c.Do(ctx, publish.Pin()).AsInt64()
				ok(t, err)
				if n == want {
					return
				}
				if n != 0 {
					t.Fatalf("%d have heard it", n)
				}
			}
		}
		for numbers := int64(0); numbers < 2; { // both are there
			n, err := c.Do(ctx, c.B().PubsubNumpat().Build()).AsInt64()
			ok(t, err)
			counts, err := c.Do(ctx, c.B().PubsubNumsub().Channel("a").Build()).ToArray()
			ok(t, err)
			plain, _ := counts[1].AsInt64()
			numbers = n + plain
		}
		until(c.B().Publish().Channel("a").Message("hello").Build(), 2)
		got := []string{<-heard, <-heard}
		if slices.Sort(got); !slices.Equal(got, []string{" a hello", "a* a hello"}) {
			t.Errorf("%q", got)
		}
		until(c.B().Spublish().Channel("a").Message("shard").Build(), 1)
		if got := <-heard; got != " a shard" {
			t.Errorf("%q", got)
		}
		for _, end := range []rueidis.Completed{c.B().Unsubscribe().Channel("a").Build(), c.B().Punsubscribe().Pattern("a*").Build(), c.B().Sunsubscribe().Channel("a").Build()} {
			ok(t, c.Do(ctx, end).Error())
		}
		listening.Wait()
	})
}

// TestRueidisCacheForgets what any kind of write changes, when its connection has made a
// round trip; and goes on answering from the cache until then.
func TestRueidisCacheForgets(t *testing.T) {
	p := serve(t)
	ctx := limited(t)
	writer := newRueidis(t, p.addr())
	do := func(words ...string) rueidis.Completed {
		return writer.B().Arbitrary(words...).Build()
	}
	c := newRueidis(t, p.addr(), func(o *rueidis.ClientOption) { o.PipelineMultiplex = -1 })
	read := func() (found string, hits int) {
		t.Helper()
		all := c.DoMultiCache(ctx, rueidis.CT(c.B().Get().Key("a").Cache(), time.Hour),
			rueidis.CT(c.B().Hgetall().Key("h").Cache(), time.Hour), rueidis.CT(c.B().Strlen().Key("a").Cache(), time.Hour))
		text, err := all[0].ToString()
		if err != nil && !rueidis.IsRedisNil(err) {
			t.Fatal(err)
		}
		hash, err := all[1].AsStrMap()
		ok(t, err)
		for _, r := range all {
			if r.IsCacheHit() {
				hits++
			}
		}
		return fmt.Sprintf("%s %s", text, hash["f"]), hits
	}
	for _, w := range []struct {
		name   string
		writes []rueidis.Completed
		want   string
	}{
		{"MSET", []rueidis.Completed{do("MSET", "a", "3", "b", "3")}, "3 1"},
		{"EXEC", []rueidis.Completed{do("MULTI"), do("SET", "a", "4"), do("HSET", "h", "f", "4"), do("EXEC")}, "4 4"},
		{"RENAME", []rueidis.Completed{do("SET", "b", "5"), do("RENAME", "b", "a")}, "5 1"},
		{"COPY", []rueidis.Completed{do("SET", "b", "6"), do("COPY", "b", "a", "REPLACE")}, "6 1"},
		{"DEL", []rueidis.Completed{do("DEL", "a", "h")}, " "},
		{"EXPIRE", []rueidis.Completed{do("EXPIRE", "a", "0")}, " 1"},
		{"HDEL", []rueidis.Completed{do("HDEL", "h", "f")}, "1 "},
		{"FLUSHALL", []rueidis.Completed{do("FLUSHALL")}, " "},
		{"LOCKSTEP.SETV", []rueidis.Completed{do("DEL", "a"), do("LOCKSTEP.SETV", "a", "7", "0")}, "7 1"},
	} {
		t.Run(w.name, func(t *testing.T) {
			ok(t, errors.Join(writer.Do(ctx, do("SET", "a", "1")).Error(), writer.Do(ctx, do("HSET", "h", "f", "1")).Error(), c.Do(ctx, c.B().Ping().Build()).Error()))
			read()
			found, hits := read()
			same(t, "before", found, nil, "1 1")
			same(t, "hits", hits, nil, 3)
			ok(t, writer.Dedicated(func(d rueidis.DedicatedClient) error {
				for _, r := range d.DoMulti(ctx, w.writes...) {
					ok(t, r.Error())
				}
				return nil
			}))
			ok(t, c.Do(ctx, c.B().Ping().Build()).Error())
			found, _ = read()
			same(t, "after", found, nil, w.want)
		})
	}
}

// TestRueidisOutlivesARestart: what it had cached is forgotten with the connection.
func TestRueidisOutlivesARestart(t *testing.T) {
	p := serve(t)
	ctx := limited(t)
	c := newRueidis(t, p.addr())
	ok(t, c.Do(ctx, c.B().Set().Key("a").Value("1").Build()).Error())
	cached := func() rueidis.RedisResult {
		return c.DoCache(ctx, c.B().Get().Key("a").Cache(), time.Hour)
	}
	ok(t, cached().Error())
	if r := cached(); !r.IsCacheHit() {
		t.Errorf("not from the cache: %v", r)
	}
	p.stop()
	p.start()
	ok(t, newRueidis(t, p.addr()).Do(ctx, c.B().Set().Key("a").Value("2").Build()).Error())
	ok(t, c.Do(ctx, c.B().Get().Key("a").Build()).Error()) // it connects again, and tries again what only reads
	got, err := cached().ToString()
	same(t, "after the restart", got, err, "2")
}

// TestRueidisIsToldOutcomes: as errors with a code; a cached read that fails is not cached.
func TestRueidisIsToldOutcomes(t *testing.T) {
	for _, w := range []struct{ script, code string }{{"commit 1: fail", "UNAVAILABLE"}, {"commit 1: lose reply", "UNKNOWN"}} {
		ctx := limited(t)
		addr, _ := within(t, w.script)
		c := newRueidis(t, addr, func(o *rueidis.ClientOption) { o.Password = "" })
		err := c.Do(ctx, c.B().Incr().Key("n").Build()).Error()
		if e, is := rueidis.IsRedisErr(err); !is || !strings.HasPrefix(e.Error(), w.code+" ") {
			t.Errorf("%v, want %s", err, w.code)
		}
	}
	ctx := limited(t)
	addr, store := within(t, "load *: fail")
	c := newRueidis(t, addr, func(o *rueidis.ClientOption) { o.Password = "" })
	// EXEC has the error, and rueidis says only that the reply is none that it could keep.
	if err := c.DoCache(ctx, c.B().Get().Key("a").Cache(), time.Hour).Error(); !errors.Is(err, rueidis.ErrDoCacheAborted) {
		t.Errorf("%v", err)
	}
	store.Play(nothing)
	if err := c.DoCache(ctx, c.B().Get().Key("a").Cache(), time.Hour).Error(); !rueidis.IsRedisNil(err) {
		t.Errorf("%v", err)
	}
}

// TestRueidisLocksNeedScripts, and there are none: a lock that is tried says so.
func TestRueidisLocksNeedScripts(t *testing.T) {
	p := serve(t)
	locker, err := rueidislock.NewLocker(rueidislock.LockerOption{ClientOption: rueidis.ClientOption{InitAddress: []string{p.addr()}, Password: password}, KeyMajority: 1, TryNextAfter: patience})
	ok(t, err)
	defer locker.Close()
	_, _, err = locker.TryWithContext(limited(t), "a")
	if err == nil || !strings.Contains(err.Error(), "unknown command") {
		t.Errorf("%v", err)
	}
	// What such a lock does can be had without scripts: it is taken by SET NX, and given back
	// by its version.
	ctx := limited(t)
	c := newRueidis(t, p.addr())
	take := func() error {
		return c.Do(ctx, c.B().Set().Key("lock").Value("me").Nx().Build()).Error()
	}
	ok(t, take())
	if err := take(); !rueidis.IsRedisNil(err) {
		t.Errorf("a lock that is held: %v", err)
	}
	ok(t, c.Dedicated(func(d rueidis.DedicatedClient) error {
		return errors.Join(d.Do(ctx, d.B().Watch().Key("lock").Build()).Error(), giveBack(ctx, d))
	}))
	ok(t, take())
}

func giveBack(ctx context.Context, d rueidis.DedicatedClient) error {
	owner, err := d.Do(ctx, d.B().Get().Key("lock").Build()).ToString()
	if err != nil || owner != "me" {
		return fmt.Errorf("it is held by %q, %v", owner, err)
	}
	return d.DoMulti(ctx, d.B().Multi().Build(), d.B().Del().Key("lock").Build(), d.B().Exec().Build())[2].Error()
}

package clients

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func goRedis(t testing.TB, addr string, with ...func(*redis.Options)) *redis.Client {
	t.Helper()
	o := &redis.Options{Addr: addr, Password: password}
	for _, set := range with {
		set(o)
	}
	c := redis.NewClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

func inVersions(t *testing.T, test func(t *testing.T, version int)) {
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("RESP", version), func(t *testing.T) { test(t, version) })
	}
}

func TestGoRedis(t *testing.T) {
	p := serve(t)
	inVersions(t, func(t *testing.T, version int) {
		ctx := limited(t)
		c := goRedis(t, p.addr(), func(o *redis.Options) { o.Protocol, o.ClientName = version, "tester" })
		ok(t, c.FlushAll(ctx).Err())

		t.Run("connection", func(t *testing.T) {
			info, err := c.ClientInfo(ctx).Result()
			if err != nil || info.Name != "tester" || info.LibVer == "" || info.Resp != version || info.User != "default" {
				t.Errorf("%+v, %v", info, err)
			}
			if id, err := c.ClientID(ctx).Result(); err != nil || id == 0 {
				t.Errorf("%d, %v", id, err)
			}
			if _, err := c.Info(ctx, "server", "stats").Result(); err != nil {
				t.Error(err)
			}
			got, err := c.ConfigGet(ctx, "maxclients").Result()
			if want := map[string]string{"maxclients": "10000"}; err != nil || !maps.Equal(got, want) {
				t.Errorf("%v, %v", got, err)
			}
			commands, err := c.Command(ctx).Result()
			if err != nil || commands["get"] == nil || !commands["get"].ReadOnly || commands["mset"].StepCount != 2 {
				t.Errorf("%v, %v", commands["get"], err)
			}
			if _, err := c.Time(ctx).Result(); err != nil {
				t.Error(err)
			}
			if err := goRedis(t, p.addr(), func(o *redis.Options) { o.Protocol, o.Password = version, "wrong" }).Ping(ctx).Err(); !redis.HasErrorPrefix(err, "WRONGPASS") {
				t.Errorf("a wrong password: %v", err)
			}
			if err := goRedis(t, p.addr(), func(o *redis.Options) { o.Protocol, o.Password = version, "" }).Get(ctx, "a").Err(); !redis.HasErrorPrefix(err, "NOAUTH") {
				t.Errorf("without a password: %v", err)
			}
		})

		t.Run("strings", func(t *testing.T) {
			text, err := c.Set(ctx, "a", "1", 0).Result()
			same(t, "SET", text, err, "OK")
			n, err := c.Get(ctx, "a").Int()
			same(t, "GET", n, err, 1)
			if err := c.Get(ctx, "none").Err(); err != redis.Nil {
				t.Errorf("GET of nothing: %v", err)
			}
			done, err := c.SetNX(ctx, "a", "2", time.Minute).Result()
			same(t, "SETNX", done, err, false)
			done, err = c.SetXX(ctx, "a", "10", redis.KeepTTL).Result()
			same(t, "SET XX", done, err, true)
			text, err = c.SetArgs(ctx, "a", "11", redis.SetArgs{Get: true, TTL: time.Minute}).Result()
			same(t, "SET GET", text, err, "10")
			count, err := c.IncrBy(ctx, "a", 31).Result()
			same(t, "INCRBY", count, err, 42)
			float, err := c.IncrByFloat(ctx, "a", 0.5).Result()
			same(t, "INCRBYFLOAT", float, err, 42.5)
			count, err = c.Append(ctx, "a", "0").Result()
			same(t, "APPEND", count, err, 5)
			text, err = c.GetRange(ctx, "a", 0, 1).Result()
			same(t, "GETRANGE", text, err, "42")
			count, err = c.SetRange(ctx, "a", 2, "!").Result()
			same(t, "SETRANGE", count, err, 5)
			text, err = c.GetEx(ctx, "a", time.Hour).Result()
			same(t, "GETEX", text, err, "42!50")
			text, err = c.GetDel(ctx, "a").Result()
			same(t, "GETDEL", text, err, "42!50")
			ok(t, c.MSet(ctx, "x", "1", "y", "\x00\r\n").Err())
			many, err := c.MGet(ctx, "x", "none", "y").Result()
			if want := []any{"1", nil, "\x00\r\n"}; err != nil || !slices.Equal(many, want) {
				t.Errorf("MGET: %q, %v", many, err)
			}
			count, err = c.Exists(ctx, "x", "y", "none").Result()
			same(t, "EXISTS", count, err, 2)
			ok(t, c.Rename(ctx, "x", "z").Err())
			count, err = c.Copy(ctx, "z", "w", 0, true).Result()
			same(t, "COPY", count, err, 1)
			count, err = c.Unlink(ctx, "y", "z", "w", "none").Result()
			same(t, "UNLINK", count, err, 3)
			if err := c.LPush(ctx, "list", "v").Err(); err == nil || !redis.HasErrorPrefix(err, "unknown command") {
				t.Errorf("LPUSH: %v", err)
			}
		})

		t.Run("hashes", func(t *testing.T) {
			type person struct {
				Name string `redis:"name"`
				Age  int    `redis:"age"`
			}
			ann := person{"Ann", 42}
			count, err := c.HSet(ctx, "h", ann).Result()
			same(t, "HSET", count, err, 2)
			var found person
			err = c.HGetAll(ctx, "h").Scan(&found)
			same(t, "HGETALL", found, err, ann)
			count, err = c.HIncrBy(ctx, "h", "age", 1).Result()
			same(t, "HINCRBY", count, err, 43)
			err = c.HMGet(ctx, "h", "age", "none").Scan(&found)
			same(t, "HMGET", found, err, person{"Ann", 43})
			fields, err := c.HKeys(ctx, "h").Result()
			if err != nil || !slices.Equal(fields, []string{"name", "age"}) {
				t.Errorf("HKEYS: %q, %v", fields, err)
			}
			pairs, err := c.HRandFieldWithValues(ctx, "h", 5).Result()
			if err != nil || len(pairs) != 2 {
				t.Errorf("HRANDFIELD: %v, %v", pairs, err)
			}
			fields = nil
			for i := c.HScan(ctx, "h", 0, "a*", 10).Iterator(); i.Next(ctx); {
				fields = append(fields, i.Val())
			}
			if !slices.Equal(fields, []string{"age", "43"}) {
				t.Errorf("HSCAN: %q", fields)
			}
			count, err = c.HDel(ctx, "h", "name", "age").Result()
			same(t, "HDEL", count, err, 2)
			count, err = c.Exists(ctx, "h").Result()
			same(t, "EXISTS", count, err, 0)
			ok(t, c.Set(ctx, "s", "v", 0).Err())
			if err := c.HGet(ctx, "s", "f").Err(); !redis.HasErrorPrefix(err, "WRONGTYPE") {
				t.Errorf("HGET of a string: %v", err)
			}
		})

		t.Run("ends", func(t *testing.T) {
			ok(t, c.Set(ctx, "e", "v", time.Hour).Err())
			left, err := c.TTL(ctx, "e").Result()
			if err != nil || left <= 59*time.Minute || left > time.Hour {
				t.Errorf("TTL: %v, %v", left, err)
			}
			at := time.Now().Add(2 * time.Hour).Truncate(time.Millisecond)
			done, err := c.PExpireAt(ctx, "e", at).Result()
			same(t, "PEXPIREAT", done, err, true)
			until, err := c.PExpireTime(ctx, "e").Result()
			same(t, "PEXPIRETIME", until, err, time.Duration(at.UnixMilli())*time.Millisecond)
			done, err = c.ExpireGT(ctx, "e", time.Minute).Result()
			same(t, "EXPIRE GT", done, err, false)
			done, err = c.Persist(ctx, "e").Result()
			same(t, "PERSIST", done, err, true)
			left, err = c.TTL(ctx, "e").Result()
			same(t, "TTL", left, err, -1)
			ok(t, c.Set(ctx, "soon", "v", 20*time.Millisecond).Err())
			for c.Get(ctx, "soon").Err() != redis.Nil {
				if ctx.Err() != nil {
					t.Fatal("the end does not come")
				}
			}
		})

		t.Run("pipelines", func(t *testing.T) {
			const n = 150
			replies, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i := range n {
					p.Set(ctx, fmt.Sprint("p", i), i, 0)
					p.Get(ctx, fmt.Sprint("p", i-i%7))
				}
				return nil
			})
			if err != nil || len(replies) != 2*n {
				t.Fatalf("%d replies, %v", len(replies), err)
			}
			for i := range n {
				got, err := replies[2*i+1].(*redis.StringCmd).Int()
				same(t, "GET", got, err, i-i%7)
			}
			_, err = c.TxPipelined(ctx, func(p redis.Pipeliner) error {
				p.Incr(ctx, "t")
				p.HSet(ctx, "th", "f", "v")
				p.Expire(ctx, "t", time.Hour)
				return nil
			})
			ok(t, err)
			// An error of one command is its own, and the others are committed.
			replies, err = c.TxPipelined(ctx, func(p redis.Pipeliner) error {
				p.Incr(ctx, "th")
				p.Incr(ctx, "t")
				return nil
			})
			if !redis.HasErrorPrefix(err, "WRONGTYPE") || replies[1].(*redis.IntCmd).Val() != 2 {
				t.Errorf("%v, %v", replies, err)
			}
		})

		t.Run("scans", func(t *testing.T) {
			found := map[string]bool{}
			i := c.Scan(ctx, 0, "p1*", 50).Iterator()
			for i.Next(ctx) {
				found[i.Val()] = true
			}
			if i.Err() != nil || len(found) != 61 {
				t.Errorf("SCAN finds %d, %v", len(found), i.Err())
			}
			var hashes []string
			i = c.ScanType(ctx, 0, "*", 100, "hash").Iterator()
			for i.Next(ctx) {
				hashes = append(hashes, i.Val())
			}
			if i.Err() != nil || !slices.Equal(hashes, []string{"th"}) {
				t.Errorf("SCAN TYPE hash: %q, %v", hashes, i.Err())
			}
		})

		t.Run("versions", func(t *testing.T) {
			version, err := c.Do(ctx, "LOCKSTEP.SETV", "v", "1", 0).Int64()
			ok(t, err)
			pair, err := c.Do(ctx, "LOCKSTEP.GETV", "v").Slice()
			if err != nil || !slices.Equal(pair, []any{"1", version}) {
				t.Errorf("%v, %v", pair, err)
			}
			if err := c.Do(ctx, "LOCKSTEP.SETV", "v", "2", version+1).Err(); !redis.HasErrorPrefix(err, "CONFLICT") {
				t.Errorf("%v", err)
			}
		})
	})
}

// TestGoRedisWatchLosesNoUpdate: many read, add and write, each with WATCH, MULTI and EXEC.
func TestGoRedisWatchLosesNoUpdate(t *testing.T) {
	p := serve(t)
	inVersions(t, func(t *testing.T, version int) {
		const goroutines, each = 8, 15
		ctx := limited(t)
		c := goRedis(t, p.addr(), func(o *redis.Options) { o.Protocol = version })
		ok(t, c.Del(ctx, "n").Err())
		var adding sync.WaitGroup
		for range goroutines {
			adding.Go(func() {
				for done := 0; done < each; {
					err := c.Watch(ctx, func(tx *redis.Tx) error {
						n, err := tx.Get(ctx, "n").Int()
						if err != nil && err != redis.Nil {
							return err
						}
						_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
							p.Set(ctx, "n", n+1, 0)
							return nil
						})
						return err
					}, "n")
					switch {
					case err == nil:
						done++
					case !errors.Is(err, redis.TxFailedErr):
						t.Error(err)
						return
					}
				}
			})
		}
		adding.Wait()
		n, err := c.Get(ctx, "n").Int()
		same(t, "the sum", n, err, goroutines*each)
	})
}

func TestGoRedisChannels(t *testing.T) {
	p := serve(t)
	inVersions(t, func(t *testing.T, version int) {
		ctx := limited(t)
		c := goRedis(t, p.addr(), func(o *redis.Options) { o.Protocol = version })
		plain, pattern, shard := c.Subscribe(ctx, "a", "b"), c.PSubscribe(ctx, "a*"), c.SSubscribe(ctx, "s")
		receive := func(from *redis.PubSub) string {
			m, err := from.Receive(ctx)
			if err != nil {
				t.Error(err)
			}
			return fmt.Sprint(m)
		}
		for _, w := range []struct {
			from *redis.PubSub
			want string
		}{{plain, "subscribe: a"}, {plain, "subscribe: b"}, {pattern, "psubscribe: a*"}, {shard, "ssubscribe: s"}} {
			if got := receive(w.from); got != w.want {
				t.Errorf("%q, want %q", got, w.want)
			}
		}
		channels, err := c.PubSubChannels(ctx, "*").Result()
		if slices.Sort(channels); err != nil || !slices.Equal(channels, []string{"a", "b"}) {
			t.Errorf("%v, %v", channels, err)
		}
		n, err := c.Publish(ctx, "a", "hello").Result()
		same(t, "PUBLISH", n, err, 2)
		n, err = c.SPublish(ctx, "s", "shard").Result()
		same(t, "SPUBLISH", n, err, 1)
		ok(t, plain.Ping(ctx, "there?"))
		for _, w := range []struct {
			from *redis.PubSub
			want string
		}{{plain, "Message<a: hello>"}, {plain, "Pong<there?>"}, {pattern, "Message<a: hello>"}, {shard, "Message<s: shard>"}} {
			if got := receive(w.from); got != w.want {
				t.Errorf("%q, want %q", got, w.want)
			}
		}
		ok(t, plain.Unsubscribe(ctx, "a"))
		if got := receive(plain); got != "unsubscribe: a" {
			t.Errorf("%q", got)
		}
		n, err = c.Publish(ctx, "a", "again").Result()
		same(t, "PUBLISH", n, err, 1)
		for _, s := range []*redis.PubSub{plain, pattern, shard} {
			s.Close()
		}
	})
}

// TestGoRedisOutlivesARestart: what was written is there, pools and subscriptions come back.
func TestGoRedisOutlivesARestart(t *testing.T) {
	p := serve(t)
	ctx := limited(t)
	c := goRedis(t, p.addr(), func(o *redis.Options) { o.PoolSize, o.DialerRetries = 4, 1 })
	together := func(f func(key string) error) {
		t.Helper()
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				if err := f(fmt.Sprint("key", i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	together(func(key string) error { return c.Set(ctx, key, key, 0).Err() })
	heard := c.Subscribe(ctx, "news")
	defer heard.Close()
	_, err := heard.Receive(ctx)
	ok(t, err)
	messages := heard.Channel(redis.WithChannelHealthCheckInterval(time.Second))

	p.stop()
	if err := c.Ping(ctx).Err(); err == nil {
		t.Error("a server that has ended answers")
	}
	p.start()
	for c.Ping(ctx).Err() != nil { // a pool that could not connect tries again once a second
		if ctx.Err() != nil {
			t.Fatal("the pool does not come back")
		}
	}
	together(func(key string) error {
		got, err := c.Get(ctx, key).Result()
		if err == nil && got != key {
			err = fmt.Errorf("%s is %q", key, got)
		}
		return err
	})
	for heard := int64(0); heard == 0; { // until it has subscribed again
		heard, err = c.Publish(ctx, "news", "back").Result()
		ok(t, err)
	}
	select {
	case m := <-messages:
		same(t, "the message", m.Payload, nil, "back")
	case <-ctx.Done():
		t.Error("no message comes after the restart")
	}
}

func TestGoRedisTLS(t *testing.T) {
	dir := t.TempDir()
	authority, cert, key := certificate(t)
	ok(t, os.WriteFile(filepath.Join(dir, "cert"), cert, 0o600))
	ok(t, os.WriteFile(filepath.Join(dir, "key"), key, 0o600))
	p := serve(t, "--redis-tls", "127.0.0.1:0", "--tls-cert", filepath.Join(dir, "cert"), "--tls-key", filepath.Join(dir, "key"))
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	inVersions(t, func(t *testing.T, version int) {
		ctx := limited(t)
		secure := func(o *redis.Options) { o.Protocol, o.TLSConfig = version, &tls.Config{RootCAs: pool} }
		c := goRedis(t, p.addrs[1], secure)
		ok(t, c.Set(ctx, "a", "secret", 0).Err())
		got, err := c.Get(ctx, "a").Result()
		same(t, "GET", got, err, "secret")
		plain, err := goRedis(t, p.addr()).Get(ctx, "a").Result()
		same(t, "GET without TLS", plain, err, "secret")
		strange := goRedis(t, p.addrs[1], func(o *redis.Options) { o.TLSConfig, o.MaxRetries, o.DialerRetries = &tls.Config{}, -1, 1 })
		if err := strange.Ping(ctx).Err(); err == nil {
			t.Error("an unknown authority is trusted")
		}
	})
}

// TestGoRedisIsToldOutcomes: a write that was not applied, and one of which nobody knows, are
// errors with a code, for a command, a pipeline and a transaction; and are not sent again by
// the client, for whom the second would be another write.
func TestGoRedisIsToldOutcomes(t *testing.T) {
	inVersions(t, func(t *testing.T, version int) {
		for _, w := range []struct{ script, code string }{{"commit 1: fail", "UNAVAILABLE"}, {"commit 1: lose reply", "UNKNOWN"}} {
			for name, write := range map[string]func(ctx context.Context, c *redis.Client) error{
				"command": func(ctx context.Context, c *redis.Client) error { return c.Incr(ctx, "n").Err() },
				"pipeline": func(ctx context.Context, c *redis.Client) error {
					replies, _ := c.Pipelined(ctx, func(p redis.Pipeliner) error {
						p.Get(ctx, "none")
						p.Incr(ctx, "n")
						return nil
					})
					return replies[1].Err()
				},
				"transaction": func(ctx context.Context, c *redis.Client) error {
					_, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error { p.Incr(ctx, "n"); return nil })
					return err
				},
			} {
				t.Run(w.code+" "+name, func(t *testing.T) {
					ctx := limited(t)
					addr, _ := within(t, w.script)
					c := goRedis(t, addr, func(o *redis.Options) { o.Protocol, o.Password = version, "" })
					if err := write(ctx, c); !redis.HasErrorPrefix(err, w.code) {
						t.Errorf("%v, want %s", err, w.code)
					}
					n, err := c.Incr(ctx, "n").Result()
					want := int64(1)
					if w.code == "UNKNOWN" {
						want = 2 // which it turns out to be
					}
					same(t, "INCR", n, err, want)
				})
			}
		}
	})
}

// TestGoRedisClientSideCache: hits without a request; and gone, when another's write has been
// acknowledged, after a round trip on the only connection.
func TestGoRedisClientSideCache(t *testing.T) {
	p := serve(t)
	ctx := limited(t)
	writer := goRedis(t, p.addr())
	c := goRedis(t, p.addr(), func(o *redis.Options) {
		o.PoolSize, o.ClientSideCacheConfig = 1, &redis.ClientSideCacheConfig{}
	})
	for i := range 100 {
		ok(t, writer.Set(ctx, "a", i, 0).Err())
		ok(t, c.Ping(ctx).Err())
		for range 3 {
			got, err := c.Get(ctx, "a").Int()
			same(t, "GET", got, err, i)
		}
	}
	if stats := c.CSCStats(); stats.Hits < 200 {
		t.Errorf("%+v: 200 answers of 300 should have been found", stats)
	}
}

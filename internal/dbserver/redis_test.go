package dbserver

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// redisDo sends one command, on a connection of its own.
func redisDo(t testing.TB, url string, command ...string) (reply string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := withRedis(ctx, url, func(c *redisConn) (err error) {
		reply, err = c.do(command...)
		return err
	}); err != nil {
		t.Fatalf("%v: %v", command, err)
	}
	return reply
}

// What has been answered is there after a crash of the server.
func TestRedisKeepsWhatItHasAnswered(t *testing.T) {
	t.Parallel()
	s := start(t, Redis(), "maxclients 50")
	if reply := redisDo(t, s.URL(), "PING"); reply != "PONG" {
		t.Errorf("PING: %q", reply)
	}
	for setting, want := range map[string]string{"appendfsync": "always", "appendonly": "yes", "save": "", "maxclients": "50"} {
		if reply := redisDo(t, s.URL(), "CONFIG", "GET", setting); reply != setting+" "+want {
			t.Errorf("CONFIG GET %s: %q", setting, reply)
		}
	}
	addr := s.Addr()
	for i, end := range []func() error{s.Kill, s.Stop, s.Kill} {
		redisDo(t, s.URL(), "INCR", "n")
		must(t, end())
		if err := withRedis(t.Context(), s.URL(), func(*redisConn) error { return nil }); err == nil {
			t.Fatal("a server that has ended answers")
		}
		must(t, s.Start(t.Context()))
		if s.Addr() != addr {
			t.Errorf("the server was at %s and is at %s", addr, s.Addr())
		}
		if n := redisDo(t, s.URL(), "GET", "n"); n != []string{"1", "2", "3"}[i] {
			t.Errorf("after the server's end no. %d, n is %q", i+1, n)
		}
	}
}

func TestDatabasesOfRedisAreEmptyAndEmptied(t *testing.T) {
	t.Parallel()
	s := start(t, Redis())
	var url string
	gone := make(chan error, 1)
	if !t.Run("while the test runs", func(t *testing.T) {
		database := func(name string) string {
			url, drop, err := CreateDatabase(t.Context(), Redis(), s.URL(), name)
			must(t, err)
			t.Cleanup(func() { must(t, drop(context.Background())) })
			return url
		}
		url = database("one")
		other := database("two")
		redisDo(t, url, "SET", "k", "v")
		if n := redisDo(t, other, "DBSIZE"); n != "0" {
			t.Errorf("the second database has %s keys", n)
		}
		// A test that fails leaves such things behind.
		waiting := make(chan struct{})
		go func() {
			gone <- withRedis(context.Background(), url, func(c *redisConn) error {
				if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
					return err
				}
				if _, err := c.do("PING"); err != nil {
					return err
				}
				close(waiting)
				_, err := c.do("BLPOP", "nothing", "0")
				return err
			})
		}()
		select {
		case <-waiting:
		case err := <-gone:
			t.Fatal(err)
		}
	}) {
		return
	}
	if err := <-gone; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection of the test is open after its end: %v", err)
	}
	if n := redisDo(t, url, "DBSIZE"); n != "0" {
		t.Errorf("after its test the database has %s keys", n)
	}
}

func TestTheURLOfARedisIsRefusedWithoutItsPassword(t *testing.T) {
	err := withRedis(t.Context(), "localhost:6379?secret", nil)
	if err == nil || err.Error() != "the URL of a Redis is redis://:PASSWORD@HOST:PORT/DATABASE" {
		t.Error(err)
	}
}

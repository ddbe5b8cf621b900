package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// TestWhatHostilePeersHoldIsBounded: of each kind many, while an honest client is answered,
// and the heap is no larger than what may be held for each.
func TestWhatHostilePeersHoldIsBounded(t *testing.T) {
	big := strings.Repeat("x", 8<<10)
	for _, c := range []struct {
		what     string
		password bool
		send     string
		most     int // KiB for each, our side and theirs
		endless  bool
	}{
		{"says nothing", false, "", 16, false},
		{"half a request", false, "*2\r\n$3\r\nGET\r\n$100\r\nabc", 16, false},
		{"announces a million arguments of 512 MiB", false, "*1048576\r\n$536870912\r\nabc", 16, false},
		{"announces arguments that are empty", false, "*1048576\r\n" + strings.Repeat("$0\r\n\r\n", 1000), 128, false},
		{"a line without an end", false, strings.Repeat("x", 60<<10), 160, false},
		{"a stranger that announces", true, "*10\r\n$16384\r\nabc", 16, false},
		{"a stranger with a wrong password, again and again", true, strings.Repeat("AUTH wrong\r\n", 100), 64, false},
		{"opens MULTI and goes away", false, "MULTI\r\n" + strings.Repeat("SET a "+big[:100]+"\r\n", 100), 96, false},
		{"subscribes again and again", false, strings.Repeat("SUBSCRIBE a b c d e f g h i j\r\n", 100), 64, false},
		{"asks for names without end", false, strings.Repeat("CLIENT SETNAME "+big+"\r\n", 20), 96, false},
		{"never reads what it has asked for", false, strings.Repeat("ECHO "+big+"\r\n", 1000), 3 << 10, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			options := Options{Store: openStore(t)}
			if c.password {
				options.Users = withPassword().Users
			}
			_, addr := start(t, options)
			peers := 100
			if c.endless {
				peers = 20 // each has megabytes go through the kernel
			}
			honest := dial(t, addr)
			if c.password {
				honest.ask("AUTH secret", "+OK\r\n")
			}
			heap := func() uint64 {
				runtime.GC()
				runtime.GC() // what has finalizers is found by the first
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc + m.StackInuse
			}
			send := []byte(c.send)
			before := heap()
			for range peers {
				p := dial(t, addr)
				if c.endless {
					go func() { _, _ = p.Write(send) }() // it is never taken whole
				} else if _, err := p.Write(send); err != nil {
					t.Fatal(err)
				}
			}
			for range 100 {
				honest.ask("SET a 1", "+OK\r\n")
				honest.ask("GET a", "$1\r\n1\r\n")
			}
			if held := int64(heap()-before) / int64(peers) >> 10; held > int64(c.most) {
				t.Errorf("each holds %d KiB, and may hold %d", held, c.most)
			}
		})
	}
}

// TestHandshakeThatDoesNotEnd has ten seconds, however it is drawn out.
func TestHandshakeThatDoesNotEnd(t *testing.T) {
	certificate := httptest.NewTLSServer(nil)
	defer certificate.Close()
	config := certificate.TLS.Clone()
	for _, drip := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s, err := New(Options{Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			theirs, ours := net.Pipe()
			defer theirs.Close()
			s.accept(tls.Server(ours, config))
			began := time.Now()
			if drip {
				hello := append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 500)...)
				for i := range hello {
					if _, err := theirs.Write(hello[i : i+1]); err != nil {
						break
					}
					time.Sleep(time.Second)
				}
			}
			if _, err := io.Copy(io.Discard, theirs); err != nil {
				t.Error(err)
			}
			if got := time.Since(began); got < handshaking || got > handshaking+time.Second {
				t.Errorf("it lasted %v", got)
			}
			s.under.Wait()
			if n := s.counts.totals().shakes; n != 1 {
				t.Errorf("%d handshakes are counted as failed", n)
			}
		})
	}
}

// TestShutdownDoesNotWaitForHandshakes, nor for idle connections over TLS.
func TestShutdownDoesNotWaitForHandshakes(t *testing.T) {
	certificate := httptest.NewTLSServer(nil)
	defer certificate.Close()
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		theirs, ours := net.Pipe()
		defer theirs.Close()
		s.accept(tls.Server(ours, certificate.TLS.Clone()))
		synctest.Wait() // it reads
		began := time.Now()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// everything is what fuzzing begins with: each family's scripts.
func everything() (all []string) {
	for _, family := range [][]string{scripts, keyScripts, hashScripts, multiScripts, watchScripts, pubsubScripts, operationScripts} {
		all = append(all, family...)
	}
	return append(all,
		"lockstep.getv a; lockstep.setv a 2 0; lockstep.setv a 2 1; lockstep.getv a", "lockstep.status; lockstep.audit",
		"hello 3; client tracking on; get a; set a 2; get a; flushall; client tracking off", "hello 3; client tracking on bcast prefix a noloop; set a 2; multi; set a 3; exec",
		"client tracking on redirect 1; get a; client trackinginfo; client getredir", "client tracking on optin; client caching yes; get a; set a 1 px 1; get a",
		"rename a b; copy b a replace; move a 1; object encoding a; lcs a b")
}

// FuzzServer: whatever comes over a store, no command panics and every reply is one; and a
// user who is read-only changes nothing, by whatever way.
func FuzzServer(f *testing.F) {
	for _, script := range everything() {
		text := strings.ReplaceAll(script, "; ", "\r\n") + "\r\n"
		if len(text) < 4<<10 {
			f.Add([]byte(text), true)
			f.Add([]byte(text), false)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, readOnly bool) {
		db := memstore.New(memstore.Options[string, Value]{})
		s, err := New(Options{
			Store:  db,
			Logger: slog.New(slog.NewTextHandler(panics{t}, nil)),
			Limits: resp.Limits{MaxArgs: 1000, MaxBulk: 1000, MaxRequest: 5000},
			Cache:  lockstep.Options[string, Value]{MaxValueBytes: 10_000},
			Users:  func(name string) (User, bool) { return User{NoPassword: true, ReadOnly: readOnly}, name == defaultUser },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := s.Shutdown(ctx); err != nil {
				t.Error(err)
			}
		}()
		if _, err := s.keys.cache.Set(t.Context(), "a", NewString("1")); err != nil {
			t.Fatal(err)
		}
		rows := func() (all string) {
			for e, err := range s.keys.cache.Scan(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				all += fmt.Sprintf("%q=%q until %v, ", e.Key, e.Value, e.ExpiresAt)
			}
			return all
		}
		before := rows()
		c := &canned{in: bytes.Clone(in), piece: len(in) + 1}
		s.accept(c)
		s.under.Wait()
		d := resp.NewDecoder(strings.NewReader(c.out.String()), resp.DecodeLimits{})
		for {
			if _, err := d.Decode(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%q is answered with %q: %v", in, c.out.String(), err)
			}
		}
		if after := rows(); readOnly && after != before {
			t.Fatalf("%q, of a user who is read-only, makes %s of %s", in, after, before)
		}
	})
}

package server

import (
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// BenchmarkGet is a GET that memory answers, from the request to the write of its reply,
// without a network.
func BenchmarkGet(b *testing.B) {
	c := quiet(b)
	commandsOf(c, "SET a 1")
	c.nc.(*canned).out.Grow(1 << 20)
	request := request0("GET a").args
	b.ReportAllocs()
	for range b.N {
		c.do(request)
		if err := c.flush(); err != nil {
			b.Fatal(err)
		}
		c.nc.(*canned).out.Reset()
	}
}

// BenchmarkGetOverLoopback is the same, as one client sees it.
func BenchmarkGetOverLoopback(b *testing.B) {
	_, addr := start(b, Options{Store: openStore(b)})
	p := dial(b, addr)
	p.ask("SET a 1", "+OK\r\n")
	request, reply := []byte("*2\r\n$3\r\nGET\r\n$1\r\na\r\n"), make([]byte, len("$1\r\n1\r\n"))
	for range b.N {
		if _, err := p.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(p, reply); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSetWithReaders is a write of a key that a thousand connections have just read, until
// it is answered: every one of them has been told by then.
func BenchmarkSetWithReaders(b *testing.B) {
	for _, readers := range []int{0, 1, 1000} {
		b.Run(strconv.Itoa(readers), func(b *testing.B) {
			_, addr := start(b, Options{Store: memstore.New(memstore.Options[string, Value]{}), InvalidationTimeout: time.Minute})
			w := dial(b, addr)
			var all []*peer
			for range readers {
				p := dial(b, addr)
				p.hello("")
				all = append(all, p)
			}
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				for _, p := range all {
					p.send("GET k\r\n")
				}
				for _, p := range all {
					for {
						if v, err := p.replies.Decode(); err != nil {
							b.Fatal(err)
						} else if v.Kind != resp.Push {
							break
						}
					}
				}
				b.StartTimer()
				w.ask("SET k 1", "+OK\r\n")
			}
		})
	}
}

package server

import (
	"io"
	"testing"
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

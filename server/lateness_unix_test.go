//go:build unix

package server

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// delayed is a connection of a machine that is busy: what is written to it goes out when the
// goroutine is run at last. The file is what the kernel says of the socket.
type delayed struct {
	net.Conn
	by   time.Duration
	room *os.File
}

func (d *delayed) Write(b []byte) (int, error) {
	time.Sleep(d.by)
	return d.Conn.Write(b)
}

func (d *delayed) SyscallConn() (syscall.RawConn, error) { return d.room.SyscallConn() }

// TestGoodPeerOfABusyMachineIsKept: writers wait for us, and not for it.
func TestGoodPeerOfABusyMachineIsKept(t *testing.T) {
	for _, full := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *lateRig) {
			from, to, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			defer to.Close()
			if full {
				fill(t, to)
			}
			w, _ := r.connect(nil)
			d := &delayed{room: to}
			p, _ := r.connect(func(nc net.Conn) net.Conn { d.Conn = nc; return d })
			w.ask("SET k 1", "+OK\r\n")
			p.hello("")
			p.ask("GET k", text("1"))
			d.by = justInTime
			writes := 0
			for ; writes < 50; writes++ {
				go w.send("SET k 1\r\n")
				v, err := p.replies.Decode()
				if err != nil {
					w.want("+OK\r\n")
					break
				}
				if v.Kind != resp.Push {
					t.Fatalf("%s", v)
				}
				w.want("+OK\r\n")
				p.ask("GET k", text("1"))
			}
			if kept := writes == 50; kept == full {
				t.Errorf("the socket is full %t: the peer was kept for %d writes", full, writes)
			}
		})
	}
}

// fill writes to a pipe until it takes no more.
func fill(t *testing.T, to *os.File) {
	raw, err := to.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		for err == nil {
			_, err = syscall.Write(int(fd), make([]byte, 4096))
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err != syscall.EAGAIN {
		t.Fatal(err)
	}
}

// TestBusyMachineIsNoReasonToCloseAPeer whose socket has room, though InvalidationTimeout is over; but
// not for ever.
func TestBusyMachineIsNoReasonToCloseAPeer(t *testing.T) {
	for _, c := range []struct {
		by   time.Duration
		full bool
		want time.Duration // that the writer waits; the peer is kept if it is as long as by
	}{
		{3 * DefaultInvalidationTimeout, false, 3 * DefaultInvalidationTimeout},
		{3 * DefaultInvalidationTimeout, true, DefaultInvalidationTimeout},
		{20 * DefaultInvalidationTimeout, false, 11 * DefaultInvalidationTimeout},
	} {
		inBubble(t, func(t *testing.T, r *lateRig) {
			from, to, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			defer to.Close()
			if c.full {
				fill(t, to)
			}
			w, _ := r.connect(nil)
			d := &delayed{room: to}
			p, _ := r.connect(func(nc net.Conn) net.Conn { d.Conn = nc; return d })
			p.hello("")
			p.ask("GET k", "_\r\n")
			d.by = c.by
			begin := time.Now()
			go func() { _, _ = p.replies.Decode() }()
			if w.ask("SET k 1", "+OK\r\n"); time.Since(begin) != c.want {
				t.Errorf("%+v: the writer waited for %v", c, time.Since(begin))
			}
			if kept := r.counts.closed[closedSlow].Load() == 0; kept != (c.want == c.by) {
				t.Errorf("%+v: kept %t", c, kept)
			}
		})
	}
}

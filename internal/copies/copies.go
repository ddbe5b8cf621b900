// Package copies checks what clients keep of a server's keys (client-side caching): writers
// count keys up, over the Redis protocol, and a ledger knows what they have been told is
// written. Who keeps copies asks it, before a round trip, what they must be at least
// afterwards. What a key holds says how many writes it has behind it, so older is smaller.
//
// It is for clients of any kind, and for modules of their own:
//
//	var ledger copies.Ledger
//	go copies.Write(conn, rand, &ledger, []int{0, 1}, end, nil)
//	…
//	least := ledger.Snapshot()
//	… // a round trip of the client's
//	if key, ok := copies.Check(least, have); !ok { … }
package copies

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
)

// Keys is how many there are.
const Keys = 6

// Key is the name of one.
func Key(i int) string { return fmt.Sprint("k", i) }

// Ledger has the largest value of each key of which a writer was told that it is written.
// Its methods may be called by any goroutine.
type Ledger [Keys]atomic.Int64

func (l *Ledger) add(key int, value int64) {
	for {
		old := l[key].Load()
		if old >= value || l[key].CompareAndSwap(old, value) {
			return
		}
	}
}

// Snapshot is what every copy must at least be after a round trip that begins now.
func (l *Ledger) Snapshot() (least [Keys]int64) {
	for i := range l {
		least[i] = l[i].Load()
	}
	return least
}

// Total is the sum of all.
func (l *Ledger) Total() (n int64) {
	for i := range l {
		n += l[i].Load()
	}
	return n
}

// Check returns a key whose copy is older than it may be, and whether there is none. Keys
// of which there is no copy are not in have; the copy of an absence is 0.
func Check(least [Keys]int64, have map[string]int64) (key string, ok bool) {
	for i, value := range least {
		if got, has := have[Key(i)]; has && got < value {
			return Key(i), false
		}
	}
	return "", true
}

// Write counts keys up that are this writer's alone, until end is closed: alone, together,
// and in runs. It says on progress, if anybody listens, that some writes have been made. An
// error is the connection's; that a write was not done, or that nobody knows, is none.
func Write(conn io.ReadWriter, rnd *rand.Rand, ledger *Ledger, mine []int, end <-chan struct{}, progress chan<- struct{}) error {
	next := map[int]int64{}
	replies := bufio.NewReader(conn)
	for n := 1; ; n++ {
		select {
		case <-end:
			return nil
		default:
		}
		if n%50 == 0 {
			select {
			case progress <- struct{}{}:
			default:
			}
		}
		var in strings.Builder
		var sets []map[int]int64
		for range 1 + rnd.IntN(3) {
			set := map[int]int64{}
			for range 1 + rnd.IntN(2) {
				key := mine[rnd.IntN(len(mine))]
				next[key]++
				set[key] = next[key]
			}
			command := "SET"
			if len(set) > 1 || rnd.IntN(3) == 0 {
				command = "MSET"
			}
			in.WriteString(command)
			for key, value := range set {
				fmt.Fprintf(&in, " %s %d", Key(key), value)
			}
			in.WriteString("\r\n")
			sets = append(sets, set)
		}
		if _, err := io.WriteString(conn, in.String()); err != nil {
			return err
		}
		for _, set := range sets {
			line, err := replies.ReadString('\n')
			if err != nil {
				return err
			}
			if line != "+OK\r\n" {
				continue
			}
			for key, value := range set {
				ledger.add(key, value)
			}
		}
	}
}

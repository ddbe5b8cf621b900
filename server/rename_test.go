package server

import (
	"sync"
	"testing"
)

// TestRenamesOfManyLoseNothing: two servers over one table, neither of which hears of the
// other's writes, move one value to and fro.
func TestRenamesOfManyLoseNothing(t *testing.T) {
	store := openStore(t)
	_, one := start(t, Options{Store: store})
	_, other := start(t, Options{Store: store})
	dial(t, one).ask("SET a x PXAT 33177117420123", "+OK\r\n")
	var all sync.WaitGroup
	for i := range 6 {
		p := dial(t, []string{one, other}[i%2])
		request := []string{"RENAME a b\r\n", "RENAMENX b a\r\n", "RENAME b a\r\n"}[i%3]
		all.Go(func() {
			for range 40 {
				p.send(request)
				if _, err := p.replies.Decode(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	_, last := start(t, Options{Store: store}) // which remembers nothing
	p := dial(t, last)
	p.send("RENAME a b\r\n")
	if _, err := p.replies.Decode(); err != nil {
		t.Fatal(err)
	}
	p.ask("EXISTS a", ":0\r\n")
	p.ask("GET b", "$1\r\nx\r\n")
	p.ask("PEXPIRETIME b", ":33177117420123\r\n")
	p.ask("DBSIZE", ":1\r\n")
}

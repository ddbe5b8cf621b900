package resp_test

import (
	"fmt"
	"io"
	"strings"

	"github.com/lockstep-cache/lockstep/resp"
)

// Requests that have come together are answered together.
func ExampleReader() {
	peer := strings.NewReader("*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\nECHO 'and again'\r\n")
	r := resp.NewReader(peer, resp.Limits{})
	r.SetAuthenticated(true)
	var w resp.Writer
	for {
		for {
			args, err := r.Next()
			if err != nil {
				w.Error("ERR " + err.Error())
				return
			}
			if args == nil {
				break
			}
			w.Bulk(args[1])
		}
		if w.Len() > 0 {
			fmt.Printf("%q\n", w.Bytes())
			w.Reset(1 << 16)
		}
		if err := r.Fill(); err == io.EOF {
			return
		}
	}
	// Output:
	// "$5\r\nhello\r\n$9\r\nand again\r\n"
}

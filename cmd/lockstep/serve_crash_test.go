package main

import (
	"bufio"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/resp"
)

var serveKills = flag.Int("serve.kills", 3, "how often the test of crashes kills a server on each database")

// TestNoAcknowledgedSetIsLostWhenTheServerIsKilled: SIGKILL, again and again, while
// connections write; then the table is read with plain SQL, which knows nothing of the
// server. In it is whatever was answered with OK, or what was sent later by the same
// connection and was not answered any more; and of what is one step, all or nothing.
//
// The keys are the same for all servers: what a dead one has left in the database's hands
// must not come after what the next one has acknowledged.
func TestNoAcknowledgedSetIsLostWhenTheServerIsKilled(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "keys.db")
		killServers(t, "sqlite:"+file, "sqlite", file, "SELECT key, value FROM lockstep_keys WHERE deleted = 0")
	})
	t.Run("postgres", func(t *testing.T) {
		url := dbtest.Postgres(t)
		killServers(t, url, "pgx", url, "SELECT key, value FROM lockstep_keys WHERE deleted_at IS NULL")
	})
}

// pen is what writes the same numbers, 1, 2, 3 and so on, to some keys, each number with
// one request or pipeline, which answers as many replies.
type pen struct {
	keys     []string
	requests func(n int) string
	replies  int
	whole    bool // its keys change together

	sent, told int // the last number that was sent, and that was acknowledged
}

func (p *pen) write(addr string, acknowledged func()) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil // it is dead already
	}
	defer conn.Close()
	d := resp.NewDecoder(conn, resp.DecodeLimits{})
	for {
		p.sent++
		if _, err := conn.Write([]byte(p.requests(p.sent))); err != nil {
			return nil
		}
		for range p.replies {
			v, err := d.Decode()
			if err != nil {
				return nil
			}
			if v.Kind == resp.Error {
				return fmt.Errorf("a server that was not dead yet has answered with %s", v.Text)
			}
		}
		p.told = p.sent
		acknowledged()
	}
}

// faults are what the table has that it should not.
func (p *pen) faults(rows map[string]string) (faults []string) {
	first := rows[p.keys[0]]
	for _, key := range p.keys {
		n := 0
		if text, ok := strings.CutPrefix(rows[key], "s"); ok { // the kind of a string
			n, _ = strconv.Atoi(text)
		}
		switch {
		case n < p.told:
			faults = append(faults, fmt.Sprintf("%s is %q, and %d was acknowledged", key, rows[key], p.told))
		case n > p.sent:
			faults = append(faults, fmt.Sprintf("%s is %q, and %d was the last to be sent", key, rows[key], p.sent))
		case p.whole && rows[key] != first:
			faults = append(faults, fmt.Sprintf("half of a step is there: %s is %q, and %s is %q", p.keys[0], first, key, rows[key]))
		}
	}
	return faults
}

func pens() (all []*pen) {
	for i := range 4 {
		key := fmt.Sprint("set ", i)
		all = append(all, &pen{keys: []string{key}, replies: 1, requests: func(n int) string {
			return fmt.Sprintf("SET '%s' %d\r\n", key, n)
		}})
	}
	for i := range 2 {
		p := &pen{replies: 12}
		for j := range p.replies {
			p.keys = append(p.keys, fmt.Sprint("pipeline ", i, j))
		}
		p.requests = func(n int) string {
			var all strings.Builder
			for _, key := range p.keys {
				fmt.Fprintf(&all, "SET '%s' %d\r\n", key, n)
			}
			return all.String()
		}
		all = append(all, p)
	}
	return append(all,
		&pen{keys: []string{"mset a", "mset b", "mset c"}, replies: 1, whole: true, requests: func(n int) string {
			return fmt.Sprintf("MSET 'mset a' %d 'mset b' %d 'mset c' %d\r\n", n, n, n)
		}},
		&pen{keys: []string{"exec a", "exec b"}, replies: 4, whole: true, requests: func(n int) string {
			return fmt.Sprintf("MULTI\r\nSET 'exec a' %d\r\nSET 'exec b' %d\r\nEXEC\r\n", n, n)
		}},
	)
}

func killServers(t *testing.T, store, driver, dsn, query string) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all, acknowledged := pens(), 0
	for n := range *serveKills {
		acknowledged += killedServer(t, store, all)
		rows := tableRows(t, db, query)
		for _, p := range all {
			for _, fault := range p.faults(rows) {
				t.Errorf("after kill no. %d: %s", n+1, fault)
			}
		}
		if t.Failed() {
			return
		}
	}
	if acknowledged == 0 {
		t.Error("nothing was acknowledged before a kill: nothing was tested")
	}
	// And so it is as another server tells it. A session of the dead one's may have committed
	// something since the table was read.
	answers := map[string]string{}
	serveProgram(t, store, func(cmd *exec.Cmd, addr string) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		c := client{conn, t, resp.NewDecoder(conn, resp.DecodeLimits{})}
		for _, p := range all {
			for _, key := range p.keys {
				answers[key] = "s" + c.ask("GET '"+key+"'")
			}
		}
	})
	for _, p := range all {
		for _, fault := range p.faults(answers) {
			t.Errorf("by another server: %s", fault)
		}
	}
	t.Logf("%d kills, %d steps acknowledged before", *serveKills, acknowledged)
}

// killedServer has the pens write to a server of their own, and kills it at some moment.
func killedServer(t *testing.T, store string, pens []*pen) (acknowledged int) {
	t.Helper()
	serveProgram(t, store, func(cmd *exec.Cmd, addr string) {
		var (
			writing sync.WaitGroup
			left    atomic.Int64
			count   atomic.Int64
			enough  = make(chan struct{})
		)
		left.Store(1 + rand.Int64N(400))
		for _, p := range pens {
			writing.Go(func() {
				if err := p.write(addr, func() {
					count.Add(1)
					if left.Add(-1) == 0 {
						close(enough)
					}
				}); err != nil {
					t.Error(err)
				}
			})
		}
		select {
		case <-enough:
		case <-time.After(time.Minute):
			t.Error("the server does not answer")
		}
		// Not always when something has just been answered, which is when the rest of a batch
		// is about to be.
		time.Sleep(rand.N(3 * time.Millisecond))
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		writing.Wait()
		acknowledged = int(count.Load())
	})
	return acknowledged
}

// serveProgram runs lockstep serve as a program of its own, which is dead afterwards.
func serveProgram(t *testing.T, store string, use func(cmd *exec.Cmd, addr string)) {
	t.Helper()
	cmd := exec.Command(os.Args[0], serveProgramName, "--redis", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "LOCKSTEP_STORE="+store)
	var stderr log
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	addr := servedOn.FindString(line)
	if err != nil || addr == "" {
		t.Fatalf("lockstep serve says %q, %v: %s", line, err, stderr.String())
	}
	use(cmd, addr)
}

// tableRows reads the whole table in one statement, so that no half of a transaction is
// seen, also of one that a session of a dead program is about to commit.
func tableRows(t *testing.T, db *sql.DB, query string) map[string]string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := map[string]string{}
	for rows.Next() {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil {
			t.Fatal(err)
		}
		found[key] = value
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

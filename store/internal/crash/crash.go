// Package crash is for the tests of stores over real databases: it kills a program
// (SIGKILL) that writes through a cache, again and again, and looks in the database, with
// plain SQL, for what the program had been told is committed.
//
// The program says on a pipe what it is about to write, and that a write has returned nil.
// What it has said so is there, or was overwritten; of what was under way, all of a set is
// there or nothing. This is the end of a program, not of a machine: what the database had
// written to its files, synced or not, is still there.
package crash

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

var kills = flag.Int("kills", 5, "how often the test of crashes kills a writing program")

// Store is one over a key-value table.
type Store = lockstep.Store[string, string]

// Harness is a database.
type Harness struct {
	// Place makes an empty database and says in a word where it is.
	Place func(t testing.TB) (place string)
	// Connect opens the store there, in the program that is killed.
	Connect func(t testing.TB, place string) Store
	// Read returns all rows that there are, in one statement, which knows nothing of the
	// store but its table: no half of a transaction is seen, also of one that a session
	// of a dead program is about to commit.
	Read func(t testing.TB, place string) (rows map[string]string)
}

// placeVariable tells a process that it is the program, where it writes, and what its keys
// begin with.
const placeVariable, prefixVariable = "LOCKSTEP_CRASH_PLACE", "LOCKSTEP_CRASH_PREFIX"

// announces begins the lines of the program that are for the test.
const announces = "crash: "

// Run kills a program so many times (-kills). The program is the same test of the same
// binary, where Run writes; so nothing that the test does before may start a server.
func (h Harness) Run(t *testing.T) {
	if place, ok := os.LookupEnv(placeVariable); ok {
		h.write(t, place, os.Getenv(prefixVariable))
		return
	}
	place := h.Place(t)
	var histories []history
	check := func() {
		rows := h.Read(t, place)
		for _, past := range histories {
			for _, fault := range past.faults(rows) {
				t.Errorf("after the kill no. %d, of %d: %s", past.number, len(histories), fault)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	acknowledged, under := 0, 0
	for n := range *kills {
		past := history{number: n + 1, prefix: fmt.Sprintf("%d/", n+1)}
		past.calls = h.killed(t, place, past.prefix)
		for _, c := range past.calls {
			if c.done {
				acknowledged++
			} else {
				under++
			}
		}
		histories = append(histories, past)
		// By turns it is the reader here, or the next program, that finds what the kill has
		// left of a transaction.
		if rand.IntN(2) == 0 {
			check()
		}
	}
	check()
	if acknowledged == 0 || under == 0 {
		t.Errorf("%d writes were acknowledged and %d under way: nothing was tested", acknowledged, under)
	}
	t.Logf("%d kills, %d writes acknowledged before, %d under way", *kills, acknowledged, under)
}

// note is a line of the program's.
type note struct {
	Begun, Done int    // the number of a call that begins, or that has returned nil
	Failed      string // what has gone wrong
	effect
}

// killed runs a program and kills it at a random moment, and returns the calls that it
// told of.
func (h Harness) killed(t *testing.T, place, prefix string) (calls []*call) {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), placeVariable+"="+place, prefixVariable+"="+prefix)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	// Now and then it dies while it opens the store: its first line comes before.
	left := rand.IntN(150)
	if rand.IntN(8) == 0 {
		left = 0
	}
	numbers := map[int]*call{}
	var said bytes.Buffer
	killed := false
	lines := bufio.NewReader(out)
	for position := 0; ; position++ {
		line, err := lines.ReadString('\n')
		if err != nil { // the last line may be half of one, of a call that has not begun
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break
		}
		text, ours := strings.CutPrefix(line, announces)
		if !ours {
			said.WriteString(line)
			continue
		}
		var n note
		if err := json.Unmarshal([]byte(text), &n); err != nil {
			t.Fatalf("the program says %q: %v", line, err)
		}
		switch {
		case n.Failed != "":
			t.Fatalf("a write has failed in a program that was not dead yet: %s", n.Failed)
		case n.Begun != 0:
			c := &call{number: n.Begun, effect: n.effect, began: position}
			numbers[n.Begun], calls = c, append(calls, c)
		case n.Done != 0:
			numbers[n.Done].done, numbers[n.Done].ended = true, position
			left--
		}
		if left <= 0 && !killed {
			killed = true
			// Not always when a call has just returned, which is when the rest of a batch
			// is about to.
			time.Sleep(rand.N(3 * time.Millisecond))
			if err := cmd.Process.Kill(); err != nil {
				t.Fatalf("%v\n%s", err, &said)
			}
		}
	}
	if err := cmd.Wait(); !killed {
		t.Fatalf("the program ended by itself: %v\n%s", err, &said)
	}
	return calls
}

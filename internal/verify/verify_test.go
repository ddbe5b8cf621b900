package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// told is what the clients of a history have told, and the history itself.
func told(t *testing.T, seed uint64) ([]byte, *history.History) {
	var out bytes.Buffer
	var h *history.History
	synctest.Test(t, func(t *testing.T) {
		script := fault.MustParse("commit 3%: lose reply; commit 3%: fail; load *: latency 0s..2ms; commit *: latency 0s..2ms")
		store := fault.Inject(memstore.New(memstore.Options[int, int64]{}), script, seed)
		cache := cachetest.Open(t, lockstep.Store[int, int64](store), lockstep.Options[int, int64]{})
		clock := history.FakeTime()
		h = history.Workload{
			Seed: seed, Clients: 4, Calls: 200, Keys: 3, Pause: time.Millisecond, Patience: time.Minute,
			Leave: 0.1, LeaveAfter: time.Millisecond, Lifetime: 5 * time.Millisecond, Clock: clock, Journal: &journal{out: &out},
		}.Run(context.Background(), history.Caches(cache))
	})
	return out.Bytes(), h
}

func heard(t *testing.T, text []byte) (*history.Pieces, int) {
	t.Helper()
	p := new(history.Pieces)
	if err := hear(bytes.NewReader(text), func(r record) {
		switch {
		case r.Begun != nil:
			p.Begun(r.Begun)
		case r.Ended != nil:
			p.Ended(r.Ended)
		case r.Settled != nil:
			p.Settled(r.Settled)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return p, p.Died()
}

func TestWhatAProgramTellsIsItsHistory(t *testing.T) {
	text, h := told(t, 1)
	p, underWay := heard(t, text)
	if underWay != 0 {
		t.Errorf("%d writes are under way after the end", underWay)
	}
	strings := func(ops []*history.Op) (all []string) {
		for _, op := range ops {
			all = append(all, fmt.Sprintf("%d %d %d %v", op.Number, op.Call, op.Return, op))
		}
		slices.Sort(all)
		return all
	}
	if got, want := strings(p.Ops()), strings(h.Ops); !reflect.DeepEqual(got, want) {
		t.Errorf("%d operations were told, and there are %d", len(got), len(want))
	}
}

// Wherever a program is killed, what it had told by then can be explained: what it had
// begun and not ended may have taken effect, or not.
func TestAProgramMayBeKilledAnywhere(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	underWay := 0
	for seed := range uint64(5) {
		text, _ := told(t, seed)
		for range 20 {
			p, n := heard(t, text[:random.IntN(len(text))])
			underWay += n
			if err := history.Check(p.Ops(), time.Minute); err != nil {
				t.Fatal(err)
			}
		}
	}
	if underWay == 0 {
		t.Error("no write was under way")
	}
}

// A reader of the table after a kill counts: what was acknowledged has to be there.
func TestAnAcknowledgedWriteThatIsGoneIsFound(t *testing.T) {
	for _, c := range []struct {
		name  string
		fate  history.Fate
		ended bool // told before the kill
		found int64
		wrong bool
	}{
		{"acknowledged and there", history.Applied, true, 2, false},
		{"acknowledged and gone", history.Applied, true, 1, true},
		{"refused and there", history.NotApplied, true, 2, true},
		{"refused and not there", history.NotApplied, true, 1, false},
		{"unknown and there", history.Unknown, true, 2, false},
		{"unknown and not there", history.Unknown, true, 1, false},
		{"under way and there", history.Unknown, false, 2, false},
		{"under way and not there", history.Unknown, false, 1, false},
	} {
		var p history.Pieces
		log := history.NewLog(history.FakeTime(), 1, &p)
		first := log.Call("Set")
		first.Writes = []history.Row{{Key: "a0", Exists: true, Value: 1}}
		log.Intend(first)
		log.Return(first)
		second := log.Call("SetMany")
		second.Writes = []history.Row{{Key: "a0", Exists: true, Value: 2}, {Key: "a1", Exists: true, Value: 2}}
		log.Intend(second)
		if second.Fate = c.fate; c.ended {
			log.Return(second)
		}
		p.Died()
		look := log.Call("what is in the table")
		look.Reads = []history.Row{{Key: "a0", Exists: true, Value: c.found}, {Key: "a1", Exists: c.found == 2, Value: c.found / 2 * 2}}
		log.Return(look)
		if err := history.Check(p.Ops(), time.Minute); (err != nil) != c.wrong {
			t.Errorf("%s: %v", c.name, err)
		}
		half := log.Call("what is in the table")
		half.Reads = []history.Row{{Key: "a0", Exists: true, Value: 2}, {Key: "a1"}}
		log.Return(half)
		if history.Check(p.Ops(), time.Minute) == nil {
			t.Errorf("%s: half of it is there, and nothing was found", c.name)
		}
	}
}

func TestFaultsAreChosenByWhatIsThere(t *testing.T) {
	for _, c := range []struct {
		names   []string
		address string
		server  bool
		chosen  int
		left    int
	}{
		{[]string{"all"}, "", false, len(about) - 4, 4},
		{[]string{"all"}, "127.0.0.1:1", false, len(about) - 2, 2},
		{[]string{"all"}, "127.0.0.1:1", true, len(about), 0},
		{[]string{"all", "latency"}, "127.0.0.1:1", true, len(about), 0},
		{[]string{"kills", "latency", "kills"}, "", false, 2, 0},
		{[]string{"none"}, "", false, 0, 0},
	} {
		chosen, left, err := choose(c.names, c.address, c.server)
		if err != nil || len(chosen) != c.chosen || len(left) != c.left {
			t.Errorf("%v at %q: %v, %v, %v", c.names, c.address, chosen, left, err)
		}
	}
	for _, names := range [][]string{{"none", "kills"}, {"cuts"}, {"server-kills"}, {"typhoons"}, {""}, {}} {
		if chosen, _, err := choose(names, "", false); err == nil || !strings.Contains(err.Error(), "--faults") {
			t.Errorf("%v: %v, %v", names, chosen, err)
		}
	}
}

// Two processes make one plan of a seed; and among many seeds there is each of what may
// be in one.
func TestPlans(t *testing.T) {
	all, _, err := choose([]string{"all"}, "127.0.0.1:1", true)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for seed := range uint64(200) {
		p, err := planOf(seed, all, "")
		if err != nil {
			t.Fatal(err)
		}
		again, _ := planOf(seed, all, "")
		if !reflect.DeepEqual(p, again) {
			t.Fatalf("seed %d has two plans", seed)
		}
		for what, is := range map[string]bool{
			"two tables": p.tables == 2, "one row at a time": p.single, "another program": p.outside,
			"protected": p.protected, "killed twice": len(p.deaths) == 2, "never killed": p.deaths == nil,
		} {
			if is {
				seen[what]++
			}
		}
		for _, s := range p.strikes {
			seen[string(s.fault)]++
		}
		if !slices.IsSorted(p.deaths) {
			t.Errorf("seed %d: deaths at %v", seed, p.deaths)
		}
		none, _ := planOf(seed, nil, "")
		if none.strikes != nil || none.deaths != nil || none.text != "" || none.single || none.outside {
			t.Errorf("seed %d without faults: %+v", seed, none)
		}
	}
	for _, what := range []string{"two tables", "one row at a time", "another program", "protected", "killed twice", "never killed", "cuts", "stalls", "pauses", "server-stops", "server-kills"} {
		if seen[what] == 0 {
			t.Errorf("%s: in no plan", what)
		}
	}
}

// table is a target whose tables are in memory, for programs that never get to them.
type table struct {
	mu   sync.Mutex
	open int
}

func (*table) Name() string      { return "a table" }
func (*table) Address() string   { return "" }
func (*table) URL(string) string { return "table:" }

func (t *table) Visit(context.Context, string) (Visit, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open++
	return t, nil
}

func (*table) Table(context.Context, string) (Store, error) {
	return memstore.New(memstore.Options[int, int64]{}), nil
}

func (t *table) Leave(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	return nil
}

// A program that ends by itself is a violation, with what it has printed; and every table
// is removed.
func TestAProgramThatFailsIsAViolation(t *testing.T) {
	for _, c := range []struct{ name, script, reason string }{
		{"panics", "echo 'panic: at the disco' >&2; exit 2", "at the disco"},
		{"leaves", "exit 0", "before it was done"},
		{"babbles", "echo hello", "what the program told"},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := new(table)
			report, err := Run(t.Context(), Options{
				Target: target, Duration: time.Minute, Faults: []string{"none"},
				Command: func() *exec.Cmd { return exec.Command("sh", "-c", "cat >/dev/null; "+c.script) },
			})
			if err != nil {
				t.Fatal(err)
			}
			if report.Verdict != "violated" || len(report.Violations) != 1 || !strings.Contains(report.Violations[0].Reason, c.reason) {
				t.Errorf("%+v", report)
			}
			if target.open != 0 {
				t.Errorf("%d visits were not left", target.open)
			}
			path := filepath.Join(t.TempDir(), "page.html")
			if written, err := report.Violations[0].Violation.WritePage(path); written || err != nil {
				t.Errorf("a page of nothing: %t, %v", written, err)
			}
		})
	}
}

// A program that cannot open its database has broken no promise.
func TestAProgramThatCannotBeginIsNoVerdict(t *testing.T) {
	report, err := Run(t.Context(), Options{
		Target: new(table), Duration: time.Minute, Faults: []string{"none"},
		Command: func() *exec.Cmd {
			return exec.Command("sh", "-c", `cat >/dev/null; echo '{"Cannot":"the door is locked"}'; exit 1`)
		},
	})
	if err == nil || !strings.Contains(err.Error(), "the door is locked") {
		t.Errorf("the error: %v", err)
	}
	if report.Verdict != "undecided" || len(report.Violations) != 0 {
		t.Errorf("%+v", report)
	}
}

// A program that has ended in the moment before it was to be killed was not killed.
func TestACrashJustBeforeAKillIsFound(t *testing.T) {
	j := &judge{Options: Options{Command: func() *exec.Cmd {
		return exec.Command("sh", "-c", "cat >/dev/null; echo 'panic: too early' >&2; exit 2")
	}}}
	l, err := j.start(t.Context(), assignment{}, func(*life, record) {})
	if err != nil {
		t.Fatal(err)
	}
	<-l.ended
	l.killed = true
	if err := l.wait(); err == nil || !strings.Contains(err.Error(), "too early") {
		t.Errorf("%v", err)
	}
}

// door is a database that does not close.
type door struct{ err error }

func (door) Table(context.Context, string) (Store, error) {
	return memstore.New(memstore.Options[int, int64]{}), nil
}

func (d door) Close() error { return d.err }

// To close what it has opened is a part of what a program does: it is not done before.
func TestAProgramThatDoesNotCloseIsNotDone(t *testing.T) {
	for _, stuck := range []error{nil, errors.New("it is stuck")} {
		var told bytes.Buffer
		err := Program(t.Context(), strings.NewReader(`{"Tables":["a","b"],"Seed":4}`), &told, func(context.Context, string) (Database, error) {
			return door{stuck}, nil
		})
		if !errors.Is(err, stuck) {
			t.Errorf("the error: %v", err)
		}
		done := false
		if err := hear(&told, func(r record) { done = done || r.Done }); err != nil {
			t.Fatal(err)
		}
		if done != (stuck == nil) {
			t.Errorf("closed with %v, and done: %t", stuck, done)
		}
	}
}

// A run that is interrupted says so, whatever it was doing, and leaves no program behind.
func TestAnInterruptedRunIsNoVerdict(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var started []*exec.Cmd
	began := make(chan struct{})
	running := make(chan error, 1)
	var report *Report
	go func() {
		var err error
		report, err = Run(ctx, Options{
			Target: new(table), Duration: time.Minute, Faults: []string{"none"},
			Command: func() *exec.Cmd {
				cmd := exec.Command("sleep", "60")
				started = append(started, cmd)
				close(began)
				return cmd
			},
		})
		running <- err
	}()
	<-began
	cancel()
	if err := <-running; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if report.Verdict != "undecided" || report.BrokenOff == "" {
		t.Errorf("the report of a run that was broken off: %+v", report)
	}
	for _, cmd := range started {
		if cmd.Process != nil && cmd.ProcessState == nil {
			t.Error("a program was left behind")
		}
	}
}

func TestOutputIsKeptFromBothEnds(t *testing.T) {
	var l limited
	fmt.Fprint(&l, "begin ")
	for range 1000 {
		fmt.Fprint(&l, strings.Repeat("x", 100))
	}
	fmt.Fprint(&l, " end")
	text := l.String()
	if !strings.HasPrefix(text, "begin ") || !strings.HasSuffix(text, " end") || len(text) > 2*limit+10 {
		t.Errorf("%d bytes are kept", len(text))
	}
}

// A round that could not be checked can be looked at again: the report has its seed.
func TestAnUndecidedRoundIsNamed(t *testing.T) {
	r := newReport(Options{Target: new(table), Seed: 7}, nil, nil)
	if err := r.add(&round{plan: plan{seed: 9}}, time.Minute, fmt.Errorf("it is: %w", history.ErrUndecided)); err != nil {
		t.Fatal(err)
	}
	r.finish()
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if r.Verdict != "undecided" || !strings.Contains(text.String(), "their seeds: 9\n") {
		t.Errorf("%s", text.String())
	}
}

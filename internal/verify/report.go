package verify

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/internal/text"
)

// Clean is the verdict of a run that has found nothing.
const Clean = "clean"

// Report is what a run has found.
type Report struct {
	// Verdict is "clean", "violated", "undecided" if a history could not be checked in
	// time or the run was broken off, and "nothing done", also where nothing was ever
	// answered from memory.
	Verdict string `json:"verdict"`
	// BrokenOff says why the run did not come to its end: it was interrupted, or could
	// not go on.
	BrokenOff string    `json:"broken_off,omitempty"`
	Database  string    `json:"database"`
	Seed      uint64    `json:"seed"`
	Sabotage  string    `json:"sabotage,omitempty"`
	Began     time.Time `json:"began"`
	Seconds   float64   `json:"seconds"`
	Rounds    int       `json:"rounds"`
	// Programs that were started, and of them those that were killed.
	Programs   int            `json:"programs"`
	Operations int            `json:"operations"`
	Calls      map[string]int `json:"operations_by_kind"`
	// Hits were answered from memory, and Loads by the database.
	Hits  uint64 `json:"hits"`
	Loads uint64 `json:"loads"`
	// Faults has how often each fault happened; NotPossible are those that could not.
	Faults      map[Fault]uint64 `json:"faults"`
	NotPossible []Fault          `json:"not_possible"`
	Writes      Writes           `json:"writes"`
	SlowestMS   float64          `json:"slowest_check_ms"`
	// Undecided are the seeds of rounds whose histories could not be checked in time.
	Undecided  []uint64 `json:"undecided_rounds"`
	Violations []Found  `json:"violations"`

	began time.Time
}

// Writes is what became of writes, as their callers were told.
type Writes struct {
	Acknowledged int `json:"acknowledged"`
	NotApplied   int `json:"not_applied"`
	// Unknown are those whose callers were told that nobody knows, and what they were
	// told in the end.
	Unknown           int `json:"unknown"`
	SettledApplied    int `json:"unknown_settled_applied"`
	SettledNotApplied int `json:"unknown_settled_not_applied"`
	// InCrash are those of which nobody was told anything, since the program was killed.
	InCrash int `json:"under_way_in_a_crash"`
}

// Found is a violation.
type Found struct {
	Seed   uint64 `json:"seed"`
	Reason string `json:"reason"`
	// Replay is a command, and Page a file.
	Replay string `json:"replay"`
	Page   string `json:"page,omitempty"`

	Violation *Violation `json:"-"`
}

func newReport(o Options, chosen, left []Fault) *Report {
	r := &Report{
		Database: o.Target.Name(), Seed: o.Seed, Sabotage: o.Sabotage,
		Calls: make(map[string]int), Faults: make(map[Fault]uint64),
		NotPossible: slices.Clone(left), Undecided: []uint64{}, Violations: []Found{}, began: time.Now(),
	}
	if r.NotPossible == nil {
		r.NotPossible = []Fault{}
	}
	r.Began = r.began.UTC().Truncate(time.Second)
	for _, f := range chosen {
		r.Faults[f] = 0
	}
	return r
}

// add counts a round, which may be nil, and takes what its check has found. Its error
// ends the run.
func (r *Report) add(done *round, took time.Duration, result error) error {
	if done != nil {
		r.addRound(done, took)
	}
	var v *Violation
	switch {
	case result == nil:
		return nil
	case errors.As(result, &v):
		r.Violations = append(r.Violations, Found{Seed: v.Seed, Reason: v.Reason, Violation: v})
		return errFound
	case errors.Is(result, history.ErrUndecided):
		r.Undecided = append(r.Undecided, done.seed)
		return nil
	}
	return result
}

func (r *Report) addRound(done *round, took time.Duration) {
	r.Rounds++
	r.Programs += done.crashes + 1
	r.SlowestMS = max(r.SlowestMS, took.Seconds()*1000)
	r.Writes.InCrash += done.underWay
	for f, n := range done.struck {
		r.Faults[f] += uint64(n)
	}
	for what, n := range done.counts {
		if _, ok := r.Faults[Fault(what)]; ok {
			r.Faults[Fault(what)] += n
		}
	}
	r.Hits += done.counts[hits]
	r.Loads += done.counts[loads]
	if done.has(Kills) {
		r.Faults[Kills] += uint64(done.crashes)
	}
	for _, op := range done.pieces.Ops() {
		r.Operations++
		r.Calls[op.Name]++
		r.count(op, done)
	}
}

func (r *Report) count(op *history.Op, done *round) {
	if strings.HasPrefix(op.Name, outsiders) && done.has(Outside) {
		r.Faults[Outside]++
	}
	// A function that is run again has told nobody anything yet.
	if len(op.Writes) == 0 || op.Fate == history.Conditional || strings.HasSuffix(op.Name, history.RunAgain) {
		return
	}
	w := &r.Writes
	switch {
	case op.Doubted && op.Fate == history.Applied:
		w.Unknown++
		w.SettledApplied++
	case op.Doubted && op.Fate == history.NotApplied:
		w.Unknown++
		w.SettledNotApplied++
	case op.Doubted:
		w.Unknown++
	case op.Fate == history.Applied:
		w.Acknowledged++
	case op.Fate == history.NotApplied:
		w.NotApplied++
	}
}

func (r *Report) finish() {
	r.Seconds = time.Since(r.began).Round(time.Millisecond).Seconds()
	switch {
	case len(r.Violations) > 0:
		r.Verdict = "violated"
	case len(r.Undecided) > 0, r.BrokenOff != "":
		r.Verdict = "undecided"
	case r.Rounds == 0, r.Hits == 0 && r.Sabotage == "":
		r.Verdict = "nothing done"
	default:
		r.Verdict = Clean
	}
}

// WriteText writes the report for a person.
func (r *Report) WriteText(out io.Writer) error {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("  %-22s %s", what, fmt.Sprintf(format, args...)), " "))
	}
	fmt.Fprintf(&b, "%s, %s, seed %d\n", r.Database, time.Duration(r.Seconds*float64(time.Second)).Round(time.Second), r.Seed)
	if r.Sabotage != "" {
		line("sabotage", "%s", r.Sabotage)
	}
	line("rounds", "%d", r.Rounds)
	line("programs", "%d", r.Programs)
	line("operations", "%s", text.Count(r.Operations))
	line("from memory", "%s; %s loads", text.Count(int(r.Hits)), text.Count(int(r.Loads)))
	line("writes acknowledged", "%s", text.Count(r.Writes.Acknowledged))
	line("writes not applied", "%s", text.Count(r.Writes.NotApplied))
	line("outcomes unknown", "%s, settled: %s applied, %s not applied; %s never", text.Count(r.Writes.Unknown), text.Count(r.Writes.SettledApplied), text.Count(r.Writes.SettledNotApplied),
		text.Count(r.Writes.Unknown-r.Writes.SettledApplied-r.Writes.SettledNotApplied))
	line("under way in crashes", "%s", text.Count(r.Writes.InCrash))
	fmt.Fprintln(&b, "faults")
	if len(r.Faults)+len(r.NotPossible) == 0 {
		line("none", "")
	}
	for _, f := range slices.Sorted(maps.Keys(r.Faults)) {
		line(string(f), "%s", text.Count(int(r.Faults[f])))
	}
	for _, f := range r.NotPossible {
		line(string(f), "not possible here")
	}
	if len(r.Undecided) > 0 {
		line("rounds not decided", "%d: their histories could not be checked in %v each; their seeds: %s", len(r.Undecided), checkPatience,
			strings.Trim(fmt.Sprint(r.Undecided), "[]"))
	}
	if r.BrokenOff != "" {
		line("broken off", "%s", r.BrokenOff)
	}
	line("violations", "%d", len(r.Violations))
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "\nround with seed %d: %s\nto replay:\n  %s\n", v.Seed, strings.TrimSpace(v.Reason), v.Replay)
		if v.Page != "" {
			fmt.Fprintf(&b, "the history, drawn: %s\n", v.Page)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", strings.ToUpper(r.Verdict))
	_, err := io.WriteString(out, b.String())
	return err
}

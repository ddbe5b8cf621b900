package fault

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

func TestScriptErrorsNameThePlace(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"comit 3: fail", `1:1: "comit", want an operation`},
		{"commit", `1:7: the line ends, want which ones`},
		{"commit 3 fail", `1:10: "fail", want a colon`},
		{"commit 0: fail", `1:8: "0", want which ones`},
		{"commit -1: fail", `1:8: "-1", want which ones`},
		{"commit 5..3: fail", `1:11: the range ends at 3, before it starts at 5`},
		{"commit 5..x: fail", `1:11: "x", want a number from 1 on`},
		{"commit every: fail", `1:13: ":", want a number from 1 on`},
		{"commit 101%: fail", `1:8: "101%", want a percentage`},
		{"commit NaN%: fail", `1:8: "NaN%", want a percentage`},
		{"# a comment\n\n  load 3: explode", `3:11: "explode", want a fault`},
		{"load *: lose reply", `1:9: only a commit can be lost, a load fails`},
		{"commit *: lose", `1:15: the line ends, want request or reply`},
		{"commit *: fail, late", `1:17: only a lost reply can be late`},
		{"commit *: lose request, late", `1:25: only a lost reply can be late`},
		{"commit *: lose reply, forget me", `1:30: "me", want rows or outcome`},
		{"commit *: lose reply,", `1:22: the line ends, want a detail`},
		{"load *: hang, forget rows", `1:15: only what was lost can be forgotten`},
		{"load *: latency", `1:16: the line ends, want a duration`},
		{"load *: latency 5", `1:17: "5", want a duration`},
		{"load *: latency -5ms", `1:17: "-5ms", want a duration`},
		{"load *: latency 5ms..1ms", `1:22: the range ends at 1ms, before it starts at 5ms`},
		{"load *: latency 5ms..9999h", `1:22: "9999h", want a duration up to 24h`},
		{"load *: fail now", `1:14: "now", want the end of the statement`},
		{"load *: fail; commit ☃: fail", `1:22: "☃", want which ones`},
		{"☃☃ *: fail", `1:1: "☃☃", want an operation`},
	} {
		_, err := ParseScript(c.text)
		if err == nil {
			t.Errorf("%q is accepted", c.text)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid with %q", c.text, err, c.want)
		}
	}
}

// The last of two details won, without a word.
func TestADetailThatContradictsAnotherIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"commit 1: lose reply, forget rows, forget outcome":   "1:36: something is forgotten already",
		"commit 1: lose request, forget rows, forget rows":    "1:38: something is forgotten already",
		"commit 1: lose reply, late, late":                    "1:29: it is late already",
		"commit 1: lose reply, late, forget rows, late, late": "1:42: it is late already",
	} {
		if _, err := ParseScript(text); !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want ErrInvalid with %q", text, err, want)
		}
	}
	if _, err := ParseScript("commit 1: lose reply, forget rows, late"); err != nil {
		t.Error(err)
	}
}

func TestScriptSelects(t *testing.T) {
	for _, c := range []struct {
		which string
		want  []int // of the first ten
	}{
		{"3", []int{3}},
		{"3..5", []int{3, 4, 5}},
		{"8..", []int{8, 9, 10}},
		{"every 4", []int{4, 8}},
		{"0%", nil},
		{"100%", []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{"*", []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
	} {
		script := MustParse("commit " + c.which + ": fail # why\n")
		var got []int
		for n := 1; n <= 10; n++ {
			if script.plan(1, Commit, n).fault.kind == fail {
				got = append(got, n)
			}
			if script.plan(1, Load, n).fault.kind != nothing {
				t.Errorf("%s: a statement on commits concerns loads", c.which)
			}
		}
		if len(got) != len(c.want) || len(got) > 0 && (got[0] != c.want[0] || got[len(got)-1] != c.want[len(c.want)-1]) {
			t.Errorf("%s selects %v, want %v", c.which, got, c.want)
		}
	}
}

func TestScriptIsDrawnFromTheSeed(t *testing.T) {
	script := MustParse("load 20%: fail; load *: latency 1ms..5ms")
	failures := 0
	differ := false
	for n := 1; n <= 10_000; n++ {
		a, b, other := script.plan(1, Load, n), script.plan(1, Load, n), script.plan(2, Load, n)
		if a.before != b.before || a.after != b.after || a.fault != b.fault {
			t.Fatalf("load %d is planned in two ways by one seed", n)
		}
		differ = differ || a.before != other.before
		if sum := a.before + a.after; sum < time.Millisecond || sum > 5*time.Millisecond {
			t.Fatalf("load %d takes %v longer, want 1ms to 5ms", n, sum)
		}
		if a.fault.kind == fail {
			failures++
		}
	}
	if failures < 1800 || failures > 2200 {
		t.Errorf("of 10,000 loads %d fail, want about 20%%", failures)
	}
	if !differ {
		t.Error("two seeds plan the same")
	}
}

func TestLatenciesAddUpAndTheFirstFaultHappens(t *testing.T) {
	p := MustParse(`
		commit *: latency 2ms
		commit *: lose reply, late, forget rows
		commit *: fail
		commit *: latency 3ms
	`).plan(1, Commit, 1)
	if p.before+p.after != 5*time.Millisecond {
		t.Errorf("2ms and 3ms are %v", p.before+p.after)
	}
	if p.fault.kind != loseReply || !p.fault.late || p.fault.forget != forgetRows {
		t.Errorf("the fault is %+v", p.fault)
	}
}

// FuzzScript: a script is read or refused with a place inside it, and what was
// read can be played.
func FuzzScript(f *testing.F) {
	f.Add("commit 3: lose reply # why")
	f.Add("commit 5: lose reply, late, forget outcome; load 2: hang after")
	f.Add("settle 1..2: fail\n\tload 0.5%: latency 1ms..5ms\nbegin every 3: panic\n")
	f.Fuzz(func(t *testing.T, text string) {
		script, err := ParseScript(text)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("the error is a %T", err)
			}
			lines := strings.Split(text, "\n")
			if syntax.Line < 1 || syntax.Line > len(lines) {
				t.Fatalf("%v: the script has %d lines", err, len(lines))
			}
			if width := len([]rune(lines[syntax.Line-1])); syntax.Column < 1 || syntax.Column > width+1 {
				t.Fatalf("%v: the line has %d characters", err, width)
			}
			return
		}
		for op := range ops {
			for n := 1; n <= 3; n++ {
				if p := script.plan(7, op, n); p.before < 0 || p.after < 0 {
					t.Fatalf("%s %d: a latency of %v and %v", op, n, p.before, p.after)
				}
			}
		}
	})
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep/internal/compare"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// compared runs lockstep compare, and returns its report.
func compared(t *testing.T, args ...string) (report compare.Report) {
	t.Helper()
	stdout, stderr, status := command(t, append([]string{"compare", "--json"}, args...)...)
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, on standard error %q", status, stderr)
	}
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&report); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	return report
}

func TestCompare(t *testing.T) {
	const patterns = "textbook,write-through"
	page := filepath.Join(t.TempDir(), "page.html")
	for name, args := range map[string][]string{
		"file":     {"--html", page},
		"postgres": {"--store", dbtest.Postgres(t)},
	} {
		t.Run(name, func(t *testing.T) {
			report := compared(t, append(args, "--duration", "600ms", "--patterns", patterns, "--writes", "0.5", "--keys", "200", "--memory", "100")...)
			if len(report.Patterns) != 2 {
				t.Fatalf("%d patterns", len(report.Patterns))
			}
			for _, p := range report.Patterns {
				t.Logf("%s: %d reads, %d writes, %d stale, %d lost", p.Pattern, p.Reads.Count, p.Writes.Count, p.StaleReads, p.Lost)
				if p.Reads.Count == 0 || p.Acknowledged == 0 || p.Lost != 0 || p.Errors != 0 {
					t.Errorf("%+v", p)
				}
			}
			if ours := report.Patterns[1]; ours.StaleReads != 0 {
				t.Errorf("write-through: %d stale reads", ours.StaleReads)
			}
		})
	}
	if drawn, err := os.ReadFile(page); err != nil || !strings.Contains(string(drawn), "write-through") {
		t.Errorf("the page: %v\n%s", err, drawn)
	}
}

// TestCompareLeavesNothing: not even a file that was not there before.
func TestCompareLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.db")
	compared(t, "--store", onFile(path), "--duration", "200ms", "--patterns", "write-through", "--keys", "100", "--memory", "10")
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestCompareRefusesWhatMakesNoSense(t *testing.T) {
	for want, args := range map[string][]string{
		"write-nowhere": {"--patterns", "write-nowhere"},
		"twice":         {"--patterns", "textbook,textbook"},
		"writes 2":      {"--writes", "2"},
		"skew 1":        {"--skew", "1"},
		"clients 0":     {"--clients", "0"},
		"keys 0":        {"--keys", "0"},
		"duration":      {"--duration", "0s"},
		"--html":        {"--html", filepath.Join(t.TempDir(), "no", "page.html")},
		"--store":       {"--store", "nothing:else"},
	} {
		stdout, stderr, status := command(t, append([]string{"compare"}, args...)...)
		if status != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: status %d, %q", args, status, stderr)
		}
	}
}

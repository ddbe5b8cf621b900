package main

import (
	"strings"
	"testing"
)

func TestRatiosAreWithinARound(t *testing.T) {
	var m measurements
	// The machine is three times as slow in the second round, and lockstep
	// twice as fast as its rival in each of the three.
	m.add(0, "cpu: Some CPU\nBenchmarkHit/cores=2/otter-2 100 50.0 ns/op 0 allocs/op\nBenchmarkHit/cores=2/lockstep-2 100 25.0 ns/op 0 allocs/op\n")
	m.add(1, "BenchmarkHit/cores=2/otter-2 100 150.0 ns/op 0 allocs/op\nBenchmarkHit/cores=2/lockstep-2 100 75.0 ns/op 0 allocs/op\n")
	m.add(2, "BenchmarkHit/cores=2/otter-2 100 60.0 ns/op 0 allocs/op\nBenchmarkHit/cores=2/lockstep-2 100 30.0 ns/op 0 allocs/op\n")
	var out strings.Builder
	m.Report(&out, "lockstep")
	want := []string{
		"case unit rival its median lockstep's ratio lowest highest",
		"Hit/cores=2 ns/op otter 60 30 0.50 0.50 0.50",
		"Hit/cores=2 allocs/op otter 0 0 - - -",
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i := range got {
		got[i] = strings.Join(strings.Fields(got[i]), " ")
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if m.cpu != "Some CPU" {
		t.Errorf("cpu %q", m.cpu)
	}
}

// Rivals that take turns in one benchmark report in one line.
func TestRivalsThatTakeTurns(t *testing.T) {
	var m measurements
	m.add(0, "BenchmarkHit/cores=2-2 \t 12 \t 315.1 lockstep:ns/hit \t 630.2 otter:ns/hit\n")
	var out strings.Builder
	m.Report(&out, "lockstep")
	if got, want := strings.Join(strings.Fields(out.String()), " "), "Hit/cores=2 ns/hit otter 630.2 315.1 0.50 0.50 0.50"; !strings.HasSuffix(got, want) {
		t.Errorf("got\n%s\nwant %s", got, want)
	}
}

func TestWithoutTheSubjectThereAreNoRatios(t *testing.T) {
	var m measurements
	m.add(0, "BenchmarkWrite/writers=1/direct-2 \t 100 \t 2.0 p99-ms \t 500 writes/s\n")
	var out strings.Builder
	m.Report(&out, "lockstep")
	if !strings.Contains(out.String(), "writes/s") || strings.Contains(out.String(), "1.00") {
		t.Errorf("got\n%s", out.String())
	}
}

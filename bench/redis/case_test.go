package main

import (
	"regexp"
	"testing"
)

func TestWhatRedisBenchmarkPrints(t *testing.T) {
	const head = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"` + "\n"
	r, err := parse(head + `"GET","92000.50","0.3","0.1","0.271","0.4","0.543","1.2"` + "\n")
	if want := (result{92000.50, 0.271, 0.543}); err != nil || r != want {
		t.Errorf("got %v, %v; want %v", r, err, want)
	}
	for _, wrong := range []string{"", head, "Could not connect", head + `"GET","fast","0","0","0","0","0","0"` + "\n"} {
		if r, err := parse(wrong); err == nil {
			t.Errorf("%q: %v and no error", wrong, r)
		}
	}
}

func TestCasesHaveNamesOfTheirOwn(t *testing.T) {
	all := cases(regexp.MustCompile("."))
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.name] {
			t.Errorf("two are named %s", c.name)
		}
		seen[c.name] = true
	}
	if got := cases(regexp.MustCompile("^SET/postgres")); len(all) != 6 || len(got) != 2 {
		t.Errorf("%d cases, of which %d are SET/postgres; want 6 and 2", len(all), len(got))
	}
}

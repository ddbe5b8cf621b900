package server

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/lockstep-cache/lockstep"
)

// TestMetricsAreWhatPrometheusReads: its own parser takes them, its rules for names find
// nothing, and they say what was done.
func TestMetricsAreWhatPrometheusReads(t *testing.T) {
	s, addr := start(t, Options{Store: openStore(t)})
	read := func() map[string]*dto.MetricFamily {
		t.Helper()
		var text bytes.Buffer
		if err := s.WriteMetrics(&text); err != nil {
			t.Fatal(err)
		}
		problems, err := promlint.New(bytes.NewReader(text.Bytes())).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(&text)
		if err != nil {
			t.Fatal(err)
		}
		return families
	}
	read() // before anything was done
	p := dial(t, addr)
	p.ask("SET a 1", "+OK\r\n")
	p.ask("GET a", "$1\r\n1\r\n")
	p.ask("GET a", "$1\r\n1\r\n")
	p.ask("GET b", "$-1\r\n")
	p.ask("INCR a", ":2\r\n")
	p.ask("SET a x XX", "+OK\r\n")
	p.ask("INCR a", "-"+notAnInteger+"\r\n")
	p.ask("GET", "-ERR wrong number of arguments for 'get' command\r\n")
	p.ask("PING", "+PONG\r\n")
	follower := dial(t, addr)
	follower.send("HELLO 3\r\n")
	if _, err := follower.replies.Decode(); err != nil {
		t.Fatal(err)
	}
	follower.ask("CLIENT TRACKING ON", "+OK\r\n")
	follower.ask("STRLEN a", ":1\r\n")
	if got := infoOf(s, "clients", "stats"); got["tracking_clients"] != "1" || got["tracking_total_keys"] != "1" {
		t.Errorf("%v", got)
	}
	families := read()
	value := func(name, label string) float64 {
		t.Helper()
		family := families[name]
		if family == nil {
			t.Fatalf("there is no %s", name)
		}
		for _, m := range family.Metric {
			if label != "" && (len(m.Label) != 1 || m.Label[0].GetValue() != label) {
				continue
			}
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				return m.Counter.GetValue()
			case dto.MetricType_GAUGE:
				return m.Gauge.GetValue()
			case dto.MetricType_SUMMARY:
				if m.Summary.GetSampleSum() <= 0 || math.IsNaN(m.Summary.Quantile[0].GetValue()) {
					t.Errorf("%s: %s", name, m.Summary)
				}
				return float64(m.Summary.GetSampleCount())
			}
		}
		t.Fatalf("there is no %s of %s", name, label)
		return 0
	}
	for _, c := range []struct {
		name, label string
		want        float64
	}{
		{"lockstep_connections", "", 2},
		{"lockstep_connections_accepted_total", "", 2},
		{"lockstep_tracking_connections", "", 1},
		{"lockstep_tracked_keys", "", 1},
		{"lockstep_commands_total", "get", 3},
		{"lockstep_commands_rejected_total", "get", 1},
		{"lockstep_commands_total", "incr", 2},
		{"lockstep_command_errors_total", "incr", 1},
		{"lockstep_error_replies_total", "ERR", 2},
		{"lockstep_writes_total", "committed", 3},
		{"lockstep_writes_total", "unknown", 0},
		{"lockstep_commit_rows_total", "", 3},
		{"lockstep_commits_total", "", 3},
		{"lockstep_commit_duration_seconds", "", 3},
		{"lockstep_write_duration_seconds", "", 3},
		{"lockstep_channels", "shard", 0},
		{"lockstep_connections_closed_total", "invalidations_late", 0},
	} {
		if got := value(c.name, c.label); got != c.want {
			t.Errorf("%s of %q is %v, want %v", c.name, c.label, got, c.want)
		}
	}
	if value("lockstep_cache_hits_total", "") < 2 || value("lockstep_cache_misses_total", "") < 1 || value("lockstep_received_bytes_total", "") < 50 || value("lockstep_command_seconds_total", "get") <= 0 {
		t.Error("hits, misses, bytes or seconds are not counted")
	}
}

// away is a store that does not answer.
type away struct {
	lockstep.Store[string, Value]
	err error
}

func (a away) Load(ctx context.Context, keys []string) (map[string]lockstep.Row[Value], error) {
	return nil, a.err
}

func TestReadyAsksTheStore(t *testing.T) {
	for _, c := range []struct {
		name  string
		store lockstep.Store[string, Value]
		want  string
	}{
		{"there", openStore(t), ""},
		{"away", away{openStore(t), errors.New("no route")}, "no route"},
		{"none", nil, ""},
	} {
		s, err := New(Options{Store: c.store})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Ready(t.Context()); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "shut down") {
			t.Errorf("%s, after Shutdown: %v", c.name, err)
		}
	}
}

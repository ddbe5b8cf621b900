package main

import (
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/sabotage"
	"github.com/lockstep-cache/lockstep/internal/verify"
)

var (
	verifyFor      = flag.Duration("verify.for", 3*time.Second, "how long each test of verify goes on")
	verifySabotage = flag.String("verify.sabotage", "stale-fill,unfenced-settlement,unchecked-reads", "the sabotages that verify is to find, or all")
)

// serveProgramName is the argument by which a test starts itself as lockstep serve.
const serveProgramName = "serve"

// TestMain is the command where it starts itself again as a program to be broken, or a
// test as a server.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{programVerbName, compareProgramName, serveProgramName}, os.Args[1]) {
		main()
		return
	}
	os.Exit(m.Run())
}

// verified runs lockstep verify, and returns its report.
func verified(t *testing.T, args ...string) (report verify.Report, status int) {
	t.Helper()
	stdout, stderr, status := command(t, append([]string{"verify", "--json", "--duration", verifyFor.String(), "--pages", t.TempDir()}, args...)...)
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&report); err != nil {
		t.Fatalf("%v in %q; status %d, on standard error %q", err, stdout, status, stderr)
	}
	if err := decoder.Decode(new(any)); err != io.EOF {
		t.Errorf("something follows the object: %v", err)
	}
	t.Logf("seed %d: %d rounds, %d operations, faults %v", report.Seed, report.Rounds, report.Operations, report.Faults)
	if status == exitUsage {
		t.Errorf("status %d: %s", status, stderr)
	}
	return report, status
}

// clean fails the test unless verify has found nothing, and has done something.
func clean(t *testing.T, report verify.Report, status int, faults ...verify.Fault) {
	t.Helper()
	for _, v := range report.Violations {
		t.Errorf("%s\n%s", v.Reason, v.Replay)
	}
	if status != 0 || report.Verdict != "clean" {
		t.Errorf("status %d, verdict %s", status, report.Verdict)
	}
	if report.Operations == 0 || report.Writes.Acknowledged == 0 || report.Hits == 0 || report.Loads == 0 {
		t.Error("nothing was done")
	}
	for _, f := range faults {
		if report.Faults[f] == 0 {
			t.Errorf("%s: not once", f)
		}
	}
}

func TestVerifyOnAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new.db")
	report, status := verified(t, "--store", onFile(path), "--seed", "1", "--parallel", "2")
	clean(t, report, status, verify.Kills, verify.Latency)
	if report.Rounds < 2 {
		t.Errorf("%d rounds: those that were begun in time are not ended", report.Rounds)
	}
	if want := []verify.Fault{verify.Cuts, verify.Stalls, verify.Stops, verify.ServerKill}; !slices.Equal(report.NotPossible, want) {
		t.Errorf("not possible: %v, want %v", report.NotPossible, want)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestVerifyOnServersThatAreThere(t *testing.T) {
	for _, k := range servers() {
		t.Run(k.scheme, func(t *testing.T) {
			t.Parallel()
			report, status := verified(t, "--store", emptyStore(t, k))
			clean(t, report, status, verify.Cuts, verify.Latency)
		})
	}
}

// Servers that verify starts are killed in most of the rounds.
func TestVerifyBreaksItsOwnServers(t *testing.T) {
	for kind := range startable {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			report, status := verified(t, "--start", kind, "--faults", "server-kills,server-stops,stalls,kills")
			clean(t, report, status, verify.Stops)
			if len(report.Faults) != 4 {
				t.Errorf("faults that nobody asked for: %v", report.Faults)
			}
		})
	}
}

func TestVerifyFindsSabotages(t *testing.T) {
	names := strings.Split(*verifySabotage, ",")
	if *verifySabotage == "all" {
		names = nil
		for _, s := range sabotage.All() {
			names = append(names, s.Name)
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			report, status := verified(t, "--sabotage", name, "--seed", "7", "--duration", "1m")
			if status != exitFailed || report.Verdict != "violated" || len(report.Violations) == 0 {
				t.Fatalf("status %d, verdict %s after %.1f s", status, report.Verdict, report.Seconds)
			}
			v := report.Violations[0]
			t.Logf("after %.1f s: %s", report.Seconds, v.Reason)
			if !strings.Contains(v.Replay, "lockstep verify") || !strings.Contains(v.Replay, "--sabotage "+name) {
				t.Errorf("to replay: %q", v.Replay)
			}
			page, err := os.ReadFile(v.Page)
			if err != nil || !strings.Contains(string(page), "<html") {
				t.Errorf("the page: %v", err)
			}
		})
	}
}

func TestVerifyListsItsSabotages(t *testing.T) {
	stdout, stderr, status := command(t, "verify", "--sabotage", "list")
	if names := strings.Fields(stdout); len(names) < 10 || status != 0 || stderr != "" || strings.Count(stdout, "\n") != len(names) {
		t.Errorf("status %d, %q, on standard error %q", status, stdout, stderr)
	}
}

func TestVerifyRefusesWhatItCannotDo(t *testing.T) {
	for _, c := range []struct {
		args  string
		names string
	}{
		{"--faults earthquakes", `"earthquakes"`},
		{"--faults server-kills", "--start"},
		{"--faults cuts", "not on a server"},
		{"--faults none,kills", "none"},
		{"--faults=", "--faults"},
		{"--start=", "mariadb, postgres"},
		{"--sabotage=", "stale-fill"},
		{"--duration 0s", "--duration"},
		{"--parallel -1", "--parallel"},
		{"--start oracle", "mariadb, postgres"},
		{"--start postgres --store sqlite:x.db", "--store"},
		{"--sabotage nothing-of-the-kind", "nothing-of-the-kind"},
		{"--store sqlite:/nowhere/at/all.db", "/nowhere/at/all.db"},
		{"--pages /nowhere/at/all --sabotage stale-fill", "/nowhere/at/all"},
	} {
		stdout, stderr, status := command(t, append([]string{"verify"}, strings.Fields(c.args)...)...)
		if status != exitUsage || stdout != "" || !strings.Contains(stderr, c.names) {
			t.Errorf("verify %s: status %d, printed %q, on standard error %q", c.args, status, stdout, stderr)
		}
	}
}

// The list of faults is not filled as a paragraph is.
func TestVerifyHelpListsTheFaults(t *testing.T) {
	stdout, _, _ := command(t, "verify", "--help")
	for _, line := range strings.Split(verify.FaultsHelp(), "\n") {
		if name := strings.Fields(line)[0]; !regexp.MustCompile(`(?m)^ +` + name + `  +[a-z]`).MatchString(stdout) {
			t.Errorf("no line of %s:\n%s", name, stdout)
		}
	}
}

// A command to replay a round can be pasted, and has no password.
func TestVerifyReplaysOnTheSameDatabase(t *testing.T) {
	for store, want := range map[string]string{
		"postgres://app:hunter2@db.example:5433/app?pooled=true": "'postgres://app@db.example:5433/app?pooled=true'",
		"mysql://app:hunter2@db.example/app":                     "mysql://app@db.example/app",
		"sqlite:/tmp/it's@home.db?readers=2":                     "'sqlite:/tmp/it%27s@home.db?readers=2'",
	} {
		url, err := parseStore(store)
		if err != nil {
			t.Fatal(err)
		}
		v := verifyVerb{Store: storeFlag(store), Faults: []string{"kills", "cuts"}}
		if got := v.replay(url, 7); got != "lockstep verify --store "+want+" --faults kills,cuts --seed 7" {
			t.Errorf("%s: %s", store, got)
		}
	}
}

// The proxy's address is stronger than the option host.
func TestPostgresThroughAProxy(t *testing.T) {
	t.Setenv("PGHOST", "elsewhere")
	url, err := parseStore("postgres://app@/app?host=db.example&sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	if at := url.at.address(); at != "db.example:5432" {
		t.Errorf("the server is at %q", at)
	}
	proxied, err := parseStore(url.at.through("127.0.0.1:7777"))
	if err != nil {
		t.Fatal(err)
	}
	if at := proxied.at.address(); at != "127.0.0.1:7777" {
		t.Errorf("the program goes to %q", at)
	}
}

// Somebody who reads has the same in words.
func TestVerifyForAPerson(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := command(t, "verify", "--duration", "1s", "--faults", "none", "--seed", "3")
	for _, part := range []string{"SQLite", "seed 3", "rounds", "faults\n  none\n", "violations             0", "\nCLEAN\n"} {
		if !strings.Contains(stdout, part) {
			t.Errorf("%q is not in it:\n%s", part, stdout)
		}
	}
	if status != 0 {
		t.Errorf("status %d: %s", status, stderr)
	}
}

// What is wrong with a table is said of a store, as what is wrong with the database is.
func TestVerifySaysWhichStoreRefusesATable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	url, err := parseStore(onFile(path))
	if err != nil {
		t.Fatal(err)
	}
	there, err := newTarget(t.Context(), url, false)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := there.Visit(t.Context(), "lockstep_verify_")
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Leave(t.Context())
	if _, err := guest.Table(t.Context(), "no\x00name"); err == nil || !strings.Contains(err.Error(), "--store "+onFile(path)) {
		t.Errorf("%v", err)
	}
}

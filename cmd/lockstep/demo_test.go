package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/lockstep-cache/lockstep/internal/demo"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// little is a demo with little to do.
func little(args ...string) []string { return append([]string{"demo", "--scale", "0.02"}, args...) }

func TestDemoShowsEveryPatternAndAgrees(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("TMP", dir)
	stdout, stderr, status := command(t, little()...)
	if status != 0 || stderr != "" {
		t.Errorf("status %d, on standard error %q", status, stderr)
	}
	for _, part := range []string{
		"1  Write-through", "hit rate", "evicted", "does not exist", "TTL", "Lifetime",
		"2  Retries", "attempts made", "given up",
		"3  Versions", "conflict: the row is at version", "Update", "created again",
		"4  Group commit", "directly, 1 connection", "through the cache",
		"5  Transactions", "rolled back", "insufficient funds",
		"6  Lost replies", "outcome unknown", "not applied",
		"7  All of it together",
		"Memory and database agree, row by row.",
	} {
		if !strings.Contains(stdout, part) {
			t.Errorf("%q is not in it", part)
		}
	}
	for _, part := range []string{"WRONG", "\x1b", "\r", "%!", "NaN", "Inf"} {
		if strings.Contains(stdout, part) {
			t.Errorf("%q is in it", part)
		}
	}
	for line := range strings.Lines(stdout) {
		if width := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); width > 80 {
			t.Errorf("a line of %d characters: %q", width, line)
		}
	}
	if t.Failed() {
		t.Log(stdout)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDemoAsJSONIsOneObject(t *testing.T) {
	dir := t.TempDir()
	stdout, stderr, status := command(t, little("--json", "--store", "sqlite:"+filepath.ToSlash(filepath.Join(dir, "new.db")))...)
	if status != 0 || stderr != "" {
		t.Errorf("status %d, on standard error %q", status, stderr)
	}
	var got demo.Result
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil {
		t.Fatalf("%v in:\n%s", err, stdout)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		t.Errorf("something follows the object: %v", err)
	}
	if !got.Agrees || got.Unmet != 0 || got.Differences != 0 || got.Checks == 0 || got.Elapsed <= 0 {
		t.Errorf("the verdict is %+v", got)
	}
	var names []string
	for _, scene := range got.Scenes {
		names = append(names, scene.Name)
		if len(scene.Checks) == 0 || scene.Figures == nil || scene.Elapsed <= 0 {
			t.Errorf("scene %s has %d checks, the figures %v, and took %v", scene.Name, len(scene.Checks), scene.Figures, scene.Elapsed)
		}
	}
	if want := "write-through retry versions group-commit transactions unknown-outcome together"; strings.Join(names, " ") != want {
		t.Errorf("the scenes are %v, want %v", names, want)
	}
	for _, c := range got.Comparison {
		if c.Rows == 0 {
			t.Errorf("table %s has no rows", c.Table)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("the demo made the file and left behind: %v", left)
	}
}

func TestDemoFindsARowThatWasTamperedWith(t *testing.T) {
	stdout, stderr, status := command(t, little("--tamper")...)
	if status != exitFailed {
		t.Errorf("status %d, want %d", status, exitFailed)
	}
	unwrapped := strings.Join(strings.Fields(stdout), " ")
	for _, part := range []string{"WRONG", "memory has {", "the database {", "disagree about 1 row."} {
		if !strings.Contains(unwrapped, part) {
			t.Errorf("%q is not in it:\n%s", part, stdout)
		}
	}
	if !strings.Contains(stderr, "see WRONG above") {
		t.Errorf("standard error does not say why the status is what it is: %q", stderr)
	}
}

func TestFailureAsJSONNamesTheFieldsThatTell(t *testing.T) {
	for _, c := range []struct {
		result demo.Result
		want   string
	}{
		{demo.Result{Unmet: 2}, "unmet is 2: see scenes[].checks[] whose met is false"},
		{demo.Result{Differences: 1}, "differences is 1: see comparison[].differences"},
		{demo.Result{Unmet: 1, Differences: 3}, "unmet is 1: see scenes[].checks[] whose met is false; differences is 3: see comparison[].differences"},
	} {
		const start = "the demo did not show what it should; in the JSON object, "
		if got := disagreement(&c.result, true).Error(); got != start+c.want {
			t.Errorf("%q, want %q", got, start+c.want)
		}
	}
}

// plainSQL opens a database file without Lockstep.
func plainSQL(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String())
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// content is what is in a database file, as text.
func content(t *testing.T, path string) string {
	t.Helper()
	db := plainSQL(t, path)
	defer db.Close()
	var text strings.Builder
	dump := func(query string) (first []string) {
		rows, err := db.Query(query)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		defer rows.Close()
		columns, _ := rows.Columns()
		row := make([]any, len(columns))
		for i := range row {
			row[i] = new(any)
		}
		for rows.Next() {
			if err := rows.Scan(row...); err != nil {
				t.Fatal(err)
			}
			for i := range row {
				fmt.Fprintf(&text, "%v|", *row[i].(*any))
			}
			text.WriteString("\n")
			first = append(first, fmt.Sprint(*row[0].(*any)))
		}
		return first
	}
	dump("PRAGMA journal_mode")
	dump("SELECT * FROM sqlite_schema WHERE type <> 'table' ORDER BY name")
	for _, table := range dump("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY name") {
		dump(`SELECT * FROM "` + table + `"`)
	}
	return text.String()
}

// foreign makes a database file of another program, in whose journal mode the
// demo cannot play.
func foreign(t *testing.T, path string) {
	db := plainSQL(t, path)
	defer db.Close()
	for _, s := range []string{
		"CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)",
		"CREATE INDEX by_name ON users (name)",
		"INSERT INTO users (name) VALUES ('Ada'), ('Bruno')",
		"CREATE TABLE lockstep_demo_notes (note TEXT)",
		"INSERT INTO lockstep_demo_notes VALUES ('mine')",
	} {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDemoLeavesAFileAsItFoundIt(t *testing.T) {
	// A wrapped line would break at the blanks.
	path := filepath.Join(t.TempDir(), "odd name? 100% of a hundred and something quite long.db")
	foreign(t, path)
	// The file of a program that has a cache has its list of tables too.
	store, err := sqlitestore.Open[string, demo.User](t.Context(), path, sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	before := content(t, path)
	stdout, stderr, status := command(t, little("--store", sqlitestore.URL{Path: path}.String())...)
	if status != 0 {
		t.Errorf("status %d, %s", status, stderr)
	}
	if !strings.Contains(stdout, path) {
		t.Error("it does not say which file it plays on")
	}
	if after := content(t, path); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// reader reads the demo's output up to a headline, and then does something.
type reader struct {
	until string
	then  func() error
	seen  strings.Builder
}

func (r *reader) Write(p []byte) (int, error) {
	r.seen.Write(p)
	if strings.Contains(r.seen.String(), r.until) {
		if err := r.then(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func TestDemoThatIsCutShortCleansUp(t *testing.T) {
	for _, c := range []struct {
		headline    string
		interrupted bool // else nobody listens any more
	}{
		{"1  Write", true}, {"2  Retries", false}, {"4  Group", true}, {"The comparison", true},
	} {
		t.Run(c.headline, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			path := filepath.Join(t.TempDir(), "app.db")
			foreign(t, path)
			before := content(t, path)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			reason := errors.New("the reason why")
			out := &reader{until: c.headline, then: func() error {
				if !c.interrupted {
					return reason
				}
				cancel(reason)
				return nil
			}}
			var stderr strings.Builder
			status := run(ctx, little("--store", "sqlite:"+filepath.ToSlash(path)), out, &stderr)
			if status != exitFailed || !strings.Contains(stderr.String(), reason.Error()) {
				t.Errorf("status %d, on standard error %q", status, stderr.String())
			}
			if after := content(t, path); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

func TestHelpOfTheDemoSaysWhatItsFlagsTake(t *testing.T) {
	stdout, _, status := command(t, "demo", "--help")
	unwrapped := strings.Join(strings.Fields(stdout), " ")
	for _, part := range []string{
		"sqlite:PATH, with options after a ?", "readers, checkpoint-bytes, page-size, allow-unsafe-durability",
		"removed afterwards, and so is the file if it was not there before",
		"above 0, at most 100; default 1, about twenty seconds",
	} {
		if status != 0 || !strings.Contains(unwrapped, part) {
			t.Errorf("status %d, and %q is not in it:\n%s", status, part, stdout)
		}
	}
}

func TestDemoRefusesWhatItCannotPlayOn(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	file := func(path string) string { return sqlitestore.URL{Path: path}.String() }
	for _, c := range []struct {
		args  []string
		names string // what the message must name
	}{
		{[]string{"--store", "postgers://localhost/app"}, `"postgers"`},
		{[]string{"--store", "app.db"}, "sqlite:app.db"},
		{[]string{"--store", "sqlite:"}, "lockstep: --store sqlite:: no file after sqlite:\n"},
		{[]string{"--store", "sqlite:app.db?readers=2&colour=red"}, "colour=red: unknown option colour; there are table, codec, readers, checkpoint-bytes, page-size, allow-unsafe-durability\n"},
		{[]string{"--store", "sqlite:app.db?readers=0"}, "--store sqlite:app.db?readers=0: the option readers: 0 is not from 1 to 1024\n"},
		{[]string{"--store", "sqlite://host/app.db"}, "--store sqlite://host/app.db: names a host"},
		{[]string{"--store", "sqlite:%zz"}, "--store sqlite:%zz: the path: invalid"},
		{[]string{"--store"}, "lockstep: --store needs a URL, such as sqlite:app.db\n"},
		{[]string{"--store", "--json"}, "lockstep: --store needs a URL"},
		{[]string{"--store", ""}, "lockstep: --store needs a URL"},
		{[]string{"--store", "sqlite:app.db?table=users"}, "table"},
		{[]string{"--store", file(dir)}, file(dir) + ": " + dir + " is a directory"},
		{[]string{"--store", file(filepath.Join(dir, "missing", "app.db"))}, "does not exist"},
		{[]string{"--store", file(text)}, "not an SQLite database"},
		{[]string{"--scale", "0"}, "lockstep: --scale 0: it must be a number above 0 and at most 100\n"},
		{[]string{"--scale", "-1"}, "lockstep: --scale -1: it must be a number above 0 and at most 100\n"},
		{[]string{"--scale=-1"}, "lockstep: --scale -1: it"},
		{[]string{"--scale", "101"}, "--scale 101"},
		{[]string{"--scale", "NaN"}, "--scale NaN"},
		{[]string{"--scale", "many"}, "lockstep: --scale many: it must be a number above 0 and at most 100\n"},
		{[]string{"--scale"}, "lockstep: --scale needs a number above 0 and at most 100, such as 0.1\n"},
		{[]string{"--scale", "--json"}, "lockstep: --scale needs"},
	} {
		stdout, stderr, status := command(t, append([]string{"demo"}, c.args...)...)
		if status != exitUsage || stdout != "" || !strings.Contains(stderr, c.names) {
			t.Errorf("demo %v: status %d, printed %q and %q", c.args, status, stdout, stderr)
		}
	}
	if data, err := os.ReadFile(text); err != nil || !strings.HasPrefix(string(data), "this is not") {
		t.Errorf("the text file was changed: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

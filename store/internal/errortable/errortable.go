// Package errortable reads the tables of docs/design/unknown.md that say what each error
// of a database's means, so that the stores' tests can hold them against the code.
package errortable

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// Row is one of a table's: the errors that it names, each `in backquotes`, and the fate
// that it says they stand for.
type Row struct {
	Names []string
	Fate  string
	// Rest: it is about all errors that no other row names.
	Rest bool
}

var quoted = regexp.MustCompile("`([^`]+)`")

// Read returns the rows of the table under a heading.
func Read(t testing.TB, heading string) []Row {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	path := filepath.Join(filepath.Dir(here), "../../../docs/design/unknown.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n### "+heading+"\n")
	if !found {
		t.Fatalf("%s has no heading %q", path, heading)
	}
	section, _, _ = strings.Cut(section, "\n#")
	var rows []Row
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 3 {
			continue
		}
		fate := strings.TrimSpace(cells[2])
		r := Row{Fate: fate, Rest: strings.Contains(cells[0], "any other")}
		for _, m := range quoted.FindAllStringSubmatch(cells[0], -1) {
			r.Names = append(r.Names, m[1])
		}
		if len(r.Names) > 0 || r.Rest {
			rows = append(rows, r)
		}
	}
	if len(rows) < 3 {
		t.Fatalf("the table under %q has %d rows that name errors", heading, len(rows))
	}
	return rows
}

// Fates returns what the table says of each name, and of the rest: "" if nothing. A name
// that has two fates fails the test.
func Fates(t testing.TB, rows []Row) (fates map[string]string, rest string) {
	t.Helper()
	fates = map[string]string{}
	for _, r := range rows {
		for _, name := range r.Names {
			if fates[name] != "" {
				t.Errorf("the table names %s twice", name)
			}
			fates[name] = r.Fate
		}
		if r.Rest {
			rest = r.Fate
		}
	}
	return fates, rest
}

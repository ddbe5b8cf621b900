package main

import (
	"io"
	"os"
	"strings"
	"testing"
)

// TestThePageShowsWhatIsPrinted runs the program twice, as the page has its reader do.
func TestThePageShowsWhatIsPrinted(t *testing.T) {
	page, err := os.ReadFile("../../getting-started.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for _, time := range []string{"first", "second"} {
		if output := "```text\n" + printed(t) + "```\n"; !strings.Contains(string(page), output) {
			t.Errorf("the %s time it prints this, which is not in the page:\n%s", time, output)
		}
	}
}

// printed is what run prints.
func printed(t *testing.T) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	err = run(t.Context())
	os.Stdout = stdout
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

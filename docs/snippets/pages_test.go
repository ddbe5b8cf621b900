// Package snippets is the code that the documents for users show. It is here, and not
// only in the documents, so that it is compiled, formatted, vetted and run as all other
// code is; this file holds the documents to it. Code of the page guide/reads.md is in
// reads_test.go, and a block of the page is some consecutive lines of it, indented less.
//
// Rejected: code in the documents alone, which a test extracts and compiles. What a block
// needs around it would have to be hidden in comments, where no tool looks at it, and
// the test would have to run a compiler.
package snippets

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const root = "../.."

// A block is what stands between two fences.
type block struct {
	line     int // of its first line
	language string
	text     []string
}

// split parts a page into its blocks and the rest, in which their lines are empty.
func split(page string) (blocks []block, prose []string) {
	in := false
	for i, line := range strings.Split(page, "\n") {
		switch fence, ok := strings.CutPrefix(line, "```"); {
		case ok && !in:
			blocks = append(blocks, block{line: i + 2, language: fence})
			in, line = true, ""
		case ok:
			in, line = false, ""
		case in:
			last := &blocks[len(blocks)-1]
			last.text = append(last.text, line)
			line = ""
		}
		prose = append(prose, line)
	}
	return blocks, prose
}

// find looks for the lines of a block in code, where all of them may be indented
// further. It returns how many lines it has at the place that has most of them, and
// that place, counted from 1.
func find(text, code []string) (most, at int) {
	for start, line := range code {
		indent, ok := strings.CutSuffix(line, text[0])
		if !ok || strings.Trim(indent, "\t") != "" {
			continue
		}
		n := 1
		for n < len(text) && start+n < len(code) {
			want := text[n]
			if want != "" {
				want = indent + want
			}
			if code[start+n] != want {
				break
			}
			n++
		}
		if n > most {
			most, at = n, start+1
		}
	}
	return most, at
}

// codeOf returns the code of a page, each file of it.
func codeOf(page string) (code map[string][]string, err error) {
	name := strings.TrimSuffix(filepath.Base(page), ".md")
	files, err := filepath.Glob(name + "/*.go")
	if err != nil {
		return nil, err
	}
	code = map[string][]string{}
	for _, file := range append(files, strings.ReplaceAll(name, "-", "_")+"_test.go") {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		code[file] = strings.Split(string(text), "\n")
	}
	return code, nil
}

// TestCodeInPagesIsCompiled: every block of Go in the documents for users is in the code
// of its page.
func TestCodeInPagesIsCompiled(t *testing.T) {
	for _, page := range pages(t, "docs/*.md", "docs/guide/*.md") {
		code, err := codeOf(page)
		if err != nil {
			t.Fatal(err)
		}
		blocks, _ := split(read(t, page))
		for _, b := range blocks {
			if b.language != "go" {
				continue
			}
			if len(b.text) == 0 {
				t.Errorf("%s:%d: an empty block", page, b.line)
				continue
			}
			near := "its first line is nowhere"
			best := 0
			for file, lines := range code {
				if n, at := find(b.text, lines); n > best {
					best = n
					near = fmt.Sprintf("docs/snippets/%s:%d begins like it, but %s:%d is not docs/snippets/%s:%d",
						file, at, page, b.line+n, file, at+n)
				}
			}
			if best < len(b.text) {
				t.Errorf("%s:%d: this code is not in docs/snippets, where it would be compiled and run: %s", page, b.line, near)
			}
		}
	}
}

// TestABlockIsLinesThatFollowEachOther: find can fail.
func TestABlockIsLinesThatFollowEachOther(t *testing.T) {
	code := strings.Split("func f() {\n\tg()\n\n\tif x {\n\t\th()\n\t}\n}", "\n")
	for text, want := range map[string]bool{
		"g()\n\nif x {\n\th()\n}": true,
		"\tif x {\n\t\th()\n\t}":  true,
		"func f() {\n\tg()":       true,
		"g()\nif x {":             false, // the empty line is not there
		"if x {\nh()\n}":          false, // not indented
		"g()\n\nh()":              false, // lines are left out
		"()":                      false, // half a line
		"h()\n}\n}\n}":            false, // goes on behind the end
	} {
		lines := strings.Split(text, "\n")
		if n, _ := find(lines, code); (n == len(lines)) != want {
			t.Errorf("%q: %d of %d lines were found", text, n, len(lines))
		}
	}
}

var (
	// A link, in text whose code is empty.
	link    = regexp.MustCompile(`\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)`)
	code    = regexp.MustCompile("`[^`]*`")
	heading = regexp.MustCompile(`^#{1,6} +(.*?) *#*$`)
)

// anchors are the names that a page's headings have in links, as GitHub makes them.
func anchors(page string) map[string]bool {
	names := map[string]bool{}
	_, prose := split(page)
	for _, line := range prose {
		found := heading.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		text := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(found[1], "$1")
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, text)
		unique := name
		for n := 1; names[unique]; n++ {
			unique = fmt.Sprintf("%s-%d", name, n)
		}
		names[unique] = true
	}
	return names
}

// broken returns a line for each link of a page that leads nowhere. There are links to
// files of this repository and to headings in them; those to the web are not followed.
func broken(page, text string, files fs.FS) (faults []string) {
	_, prose := split(text)
	for i, line := range prose {
		for _, found := range link.FindAllStringSubmatch(code.ReplaceAllString(line, "code"), -1) {
			target := found[1]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(target, "#")
			to := page
			if file != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(page), file))
			}
			if _, err := fs.Stat(files, to); err != nil {
				faults = append(faults, fmt.Sprintf("%s:%d: %s: there is no %s", page, i+1, target, to))
				continue
			}
			if anchor == "" {
				continue
			}
			other, err := fs.ReadFile(files, to)
			if err != nil || !anchors(string(other))[anchor] {
				faults = append(faults, fmt.Sprintf("%s:%d: %s: %s has no such heading", page, i+1, target, to))
			}
		}
	}
	return faults
}

// TestLinksLeadSomewhere: in every document of the repository.
func TestLinksLeadSomewhere(t *testing.T) {
	for _, page := range pages(t, "*.md", "docs/*.md", "docs/*/*.md", "deploy/*.md", "examples/*.md", "examples/*/*.md", "bench/*.md") {
		for _, fault := range broken(page, read(t, page), os.DirFS(root)) {
			t.Error(fault)
		}
	}
}

// TestALinkToNowhereIsFound: broken can fail.
func TestALinkToNowhereIsFound(t *testing.T) {
	page := strings.Join([]string{
		"# A `code` & more, twice", "# A `code` & more, twice", "```sh", "# no heading", "```",
		"[a](#a-code--more-twice) [b](#a-code--more-twice-1) [c](../README.md) [web](https://example.org/x)",
		"`[in code](nowhere)` [d](#no-heading)", "[e](nowhere.md)", "[f](../README.md#nothing)",
	}, "\n")
	dir := t.TempDir()
	for name, text := range map[string]string{"README.md": "# Something", "docs/page.md": page} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got := broken("docs/page.md", page, os.DirFS(dir))
	want := []string{
		"docs/page.md:7: #no-heading: docs/page.md has no such heading",
		"docs/page.md:8: nowhere.md: there is no docs/nowhere.md",
		"docs/page.md:9: ../README.md#nothing: README.md has no such heading",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%s", strings.Join(got, "\n"))
	}
}

// TestEveryPageIsInTheIndex: who begins at docs/README.md finds every page.
func TestEveryPageIsInTheIndex(t *testing.T) {
	index := read(t, "docs/README.md")
	for _, page := range pages(t, "docs/*.md", "docs/guide/*.md") {
		if to := strings.TrimPrefix(page, "docs/"); to != "README.md" && !strings.Contains(index, "]("+to) {
			t.Errorf("docs/README.md has no link to %s", to)
		}
	}
}

// pages are the documents that match one of the patterns, with names from the root.
func pages(t *testing.T, patterns ...string) (found []string) {
	t.Helper()
	for _, pattern := range patterns {
		names, err := fs.Glob(os.DirFS(root), pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, names...)
	}
	return found
}

func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
}

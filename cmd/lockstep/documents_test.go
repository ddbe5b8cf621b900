package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCommandsInDocumentsAreUnderstood: each lockstep that a document calls in a block of sh
// can be parsed, its flags and their values included. Nothing is run.
func TestCommandsInDocumentsAreUnderstood(t *testing.T) {
	root := os.DirFS(filepath.Join("..", ".."))
	found := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "deploy/*.md", "examples/*.md", "examples/*/*.md"} {
		pages, err := fs.Glob(root, pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			text, err := fs.ReadFile(root, page)
			if err != nil {
				t.Fatal(err)
			}
			for _, command := range commands(string(text)) {
				found++
				if err := understood(t.Context(), command); err != nil {
					t.Errorf("%s: lockstep %s: %v", page, strings.Join(command, " "), err)
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d commands were found", found)
	}
}

var (
	shell  = regexp.MustCompile("(?ms)^```sh\n(.*?)^```")
	called = regexp.MustCompile(`(?m)(?:^|[\s;&|])(?:go run (?:\./cmd/lockstep|\S+/cmd/lockstep)|(?:\./|bin/)?lockstep)[ \t]+(\S.*)$`)
	ended  = regexp.MustCompile(`\s+(#|[<>|&;]).*$`)
)

// commands are the arguments of each lockstep that a document calls.
func commands(text string) (all [][]string) {
	for _, block := range shell.FindAllStringSubmatch(text, -1) {
		lines := strings.ReplaceAll(block[1], "\\\n", " ")
		for _, command := range called.FindAllStringSubmatch(lines, -1) {
			all = append(all, words(ended.ReplaceAllString(command[1], "")))
		}
	}
	return all
}

// words splits a command line as a shell does where nothing is escaped.
func words(line string) (words []string) {
	for _, word := range regexp.MustCompile(`(?:[^\s'"]|'[^']*'|"[^"]*")+`).FindAllString(line, -1) {
		words = append(words, strings.NewReplacer("'", "", `"`, "").Replace(word))
	}
	return words
}

// understood returns what is wrong with a command line.
func understood(ctx context.Context, args []string) (err error) {
	type helped struct{}
	defer func() { // --help exits
		if p := recover(); p != nil && p != (helped{}) {
			panic(p)
		}
	}()
	_, err = parser(ctx, new(verbs), new(strings.Builder), new(strings.Builder), func(int) { panic(helped{}) }).Parse(spoken(args))
	return err
}

// TestACommandThatIsWrongIsFound: the test above can fail.
func TestACommandThatIsWrongIsFound(t *testing.T) {
	page := "`lockstep nothing`\n```sh\n" +
		"PGPASSWORD=… lockstep serve --store 'postgres://app@localhost/app' # a comment --nothing\n" +
		"go run ./cmd/lockstep serve \\\n  --config lockstep.conf\n" +
		"bin/lockstep hash-password --user ann < password >> users\n" +
		"lockstep serve --stores sqlite:app.db\n" +
		"lockstep serve --ttl 5\n" +
		"lockstep serves\n" +
		"```\n```go\nlockstep.New()\n```\n"
	var wrong []string
	for _, command := range commands(page) {
		if err := understood(t.Context(), command); err != nil {
			wrong = append(wrong, strings.Join(command, " "))
		}
	}
	if got := strings.Join(wrong, "; "); got != "serve --config lockstep.conf; serve --stores sqlite:app.db; serve --ttl 5; serves" {
		t.Errorf("%s", got)
	}
}

// Package imports keeps the arrows between the packages pointing at contracts.
// It has nothing but its test, which reads the import lines of every file that
// a user would compile, on whatever platform, and compares them with the rules.
//
// It reads the files itself and does not ask go list, so that the test cache
// knows what the answer depends on.
package imports

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/lockstep-cache/lockstep"

// A rule limits what some packages import. A pattern is an import path, or one
// with /... for it and all below; packages of this module are written without
// the module's path, and the root is ".".
type rule struct {
	why string
	// of are the packages that the rule is about, less those in except.
	of, except []string
	// module, when set, are the only packages of this module that they import.
	module []string
	// never is what they do not import.
	never []string
	// others, when set, are the only packages, neither standard nor of this
	// module, that they import.
	others []string
	// deep rules are about what they import through packages of this module too.
	deep bool
}

var rules = []rule{
	{
		why:    "the root imports internal packages and the standard library",
		of:     []string{"."},
		module: []string{"internal/..."},
		others: []string{},
	},
	{
		why:    "a program that imports the root gets no driver and no command-line library",
		of:     []string{"."},
		never:  []string{"database/sql/..."},
		others: []string{"github.com/maypok86/otter/v2/..."},
		deep:   true,
	},
	{
		why:   "what decides knows neither SQL nor sockets",
		of:    []string{"internal/commit", "internal/gate"},
		never: []string{"database/sql/...", "net/..."},
		deep:  true,
	},
	{
		why:    "the eviction engine stays behind one interface",
		of:     []string{"..."},
		except: []string{"internal/memory"},
		never:  []string{"github.com/maypok86/otter/v2/..."},
	},
	{
		why:    "the command-line library belongs to the command",
		of:     []string{"..."},
		except: []string{"cmd/..."},
		never:  []string{"github.com/alecthomas/kong/..."},
	},
	{
		why:   "nothing imports commands, benchmarks, examples or tools",
		of:    []string{"..."},
		never: []string{"cmd/...", "bench/...", "examples/...", "tools/..."},
	},
	{
		why:    "stores import the root and what they share",
		of:     []string{"store/..."},
		module: []string{".", "internal/...", "store/internal/...", "store/codec", "store/rows", "store/storetest/..."},
	},
	{
		why:   "examples are what users copy, and so import what users can",
		of:    []string{"examples/..."},
		never: []string{"internal/...", "store/internal/...", "store/storetest/..."},
	},
	{
		why:   "what is bound to a test is for tests",
		of:    []string{"..."},
		never: []string{"internal/dbtest"},
	},
	{
		why:    "database servers are started, and networks broken, by commands and for tests",
		of:     []string{"..."},
		except: []string{"cmd/...", "internal/verify", "internal/dbtest"},
		never:  []string{"internal/dbserver", "internal/netfault"},
	},
	{
		why:    "resilience and coherence import the root, whatever the database",
		of:     []string{"resilience/...", "coherence/..."},
		module: []string{".", "internal/...", "resilience/...", "coherence/..."},
	},
	{
		why:    "the journal imports the root and the codecs, whatever the database",
		of:     []string{"journal/..."},
		module: []string{".", "internal/...", "store/codec"},
		others: []string{},
	},
	{
		why:    "the protocol's reader and writer know nothing of the cache",
		of:     []string{"resp/..."},
		module: []string{"resp/..."},
	},
	{
		why:    "the server imports the root and the protocol, whatever the database",
		of:     []string{"server/..."},
		module: []string{".", "internal/...", "resp/...", "server/...", "store/rows"},
	},
}

// matches tells whether an import path, written as the rules write it, is one
// of the patterns.
func matches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		below, tree := strings.CutSuffix(pattern, "...")
		if !tree {
			return pkg == pattern
		}
		return below == "" || strings.HasPrefix(pkg+"/", below)
	})
}

// graph maps each package of the module to what it imports.
type graph map[string][]string

// reach is what a package imports through packages of the module, with the
// first chain found to each of them.
func (g graph) reach(pkg string) map[string][]string {
	chains := map[string][]string{}
	var visit func(chain []string)
	visit = func(chain []string) {
		for _, imported := range g[chain[len(chain)-1]] {
			if _, seen := chains[imported]; !seen {
				chains[imported] = append(slices.Clone(chain), imported)
				visit(chains[imported])
			}
		}
	}
	visit([]string{pkg})
	return chains
}

// broken returns a line for each import that breaks the rule.
func (g graph) broken(r rule) (faults []string) {
	for _, pkg := range slices.Sorted(maps.Keys(g)) {
		if !matches(r.of, pkg) || matches(r.except, pkg) {
			continue
		}
		chains := map[string][]string{}
		for _, imported := range g[pkg] {
			chains[imported] = []string{pkg, imported}
		}
		if r.deep {
			chains = g.reach(pkg)
		}
		for _, imported := range slices.Sorted(maps.Keys(chains)) {
			_, own := g[imported]
			first, _, _ := strings.Cut(imported, "/")
			other := !own && strings.Contains(first, ".")
			if matches(r.never, imported) ||
				own && r.module != nil && !matches(r.module, imported) ||
				other && r.others != nil && !matches(r.others, imported) {
				faults = append(faults, fmt.Sprintf("%s must not import %s (%s): %s",
					pkg, imported, strings.Join(chains[imported], " imports "), r.why))
			}
		}
	}
	return faults
}

// read returns the imports of every package below root, tests left out.
func read(root string) (graph, error) {
	g := graph{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if file != root {
				if name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
					return filepath.SkipDir
				}
				if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil {
					return filepath.SkipDir // a module of its own
				}
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(dir)
		imports := g[pkg]
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if below, own := strings.CutPrefix(imported+"/", module+"/"); own {
				imported = path.Clean(below)
			}
			imports = append(imports, imported)
		}
		g[pkg] = imports
		return nil
	})
	return g, err
}

func TestEveryPackageImportsOnlyWhatItMay(t *testing.T) {
	g, err := read(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if len(g["."]) == 0 {
		t.Fatal("the root package was not found")
	}
	for _, r := range rules {
		for _, fault := range g.broken(r) {
			t.Error(fault)
		}
	}
}

// TestForbiddenImportsAreFound adds one import to a house in order; each must
// be found, and named.
func TestForbiddenImportsAreFound(t *testing.T) {
	house := func() graph {
		return graph{
			".":                  {"context", "internal/memory", "internal/commit"},
			"internal/memory":    {"github.com/maypok86/otter/v2"},
			"internal/commit":    {"internal/clock", "log/slog"},
			"internal/clock":     {"time"},
			"internal/textbook":  {"."},
			"store/internal/sql": {".", "database/sql"},
			"store/sqlitestore":  {".", "store/internal/sql", "modernc.org/sqlite"},
			"store/storetest":    {"."},
			"internal/dbtest":    {"internal/dbserver", "internal/netfault"},
			"internal/verify":    {".", "internal/dbserver", "internal/netfault"},
			"resilience":         {".", "github.com/failsafe-go/failsafe-go"},
			"resp":               {"bufio"},
			"server":             {".", "resp"},
			"cmd/lockstep":       {"server", "store/sqlitestore", "internal/dbserver", "github.com/alecthomas/kong"},
			"examples/bank":      {".", "store/sqlitestore"},
		}
	}
	check := func(g graph) (faults []string) {
		for _, r := range rules {
			faults = append(faults, g.broken(r)...)
		}
		return faults
	}
	if faults := check(house()); len(faults) != 0 {
		t.Fatalf("a house in order has faults:\n%s", strings.Join(faults, "\n"))
	}
	for _, c := range []struct{ pkg, imported, blamed string }{
		{".", "store/storetest", ". must not import store/storetest"},
		{".", "github.com/maypok86/otter/v2", ". must not import github.com/maypok86/otter/v2"},
		{"internal/memory", "modernc.org/sqlite", ". must not import modernc.org/sqlite (. imports internal/memory imports modernc.org/sqlite)"},
		{"internal/clock", "database/sql/driver", "internal/commit must not import database/sql/driver (internal/commit imports internal/clock imports database/sql/driver)"},
		{"internal/commit", "net", "internal/commit must not import net "},
		{"internal/clock", "net/http", "internal/commit must not import net/http"},
		{"resilience", "store/sqlitestore", "resilience must not import store/sqlitestore"},
		{"resilience", "github.com/maypok86/otter/v2", "resilience must not import github.com/maypok86/otter/v2"},
		{"store/sqlitestore", "resilience", "store/sqlitestore must not import resilience"},
		{"store/sqlitestore", "internal/dbtest", "store/sqlitestore must not import internal/dbtest"},
		{"store/sqlitestore", "internal/dbserver", "store/sqlitestore must not import internal/dbserver"},
		{"internal/memory", "internal/netfault", "internal/memory must not import internal/netfault"},
		{"store/storetest", "cmd/lockstep", "store/storetest must not import cmd/lockstep"},
		{"internal/textbook", "examples/bank", "internal/textbook must not import examples/bank"},
		{"examples/bank", "internal/memory", "examples/bank must not import internal/memory"},
		{"examples/bank", "store/storetest/fault", "examples/bank must not import store/storetest/fault"},
		{"resp", ".", "resp must not import . "},
		{"server", "store/sqlitestore", "server must not import store/sqlitestore"},
		{"server", "github.com/alecthomas/kong", "server must not import github.com/alecthomas/kong"},
	} {
		g := house()
		g[c.pkg] = append(g[c.pkg], c.imported)
		faults := check(g)
		if !slices.ContainsFunc(faults, func(f string) bool { return strings.HasPrefix(f, c.blamed) }) {
			t.Errorf("%s imports %s: %q is not among the faults:\n%s", c.pkg, c.imported, c.blamed, strings.Join(faults, "\n"))
		}
	}
}

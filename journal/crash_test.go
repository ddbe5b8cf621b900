package journal_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/journal"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

var kills = flag.Int("kills", 2, "how often each test of crashes kills a writing program")

// stores are the tables of a killed program.
type stores struct {
	rows      lockstep.Store[string, int]
	positions lockstep.Store[string, int64]
	db        *sql.DB // past the stores
	deleted   string  // what a tombstone has
	// others counts the sessions of programs that were killed; "" where there are none.
	others string
}

// connect opens the tables at a place, which is a URL of PostgreSQL's or a path.
func connect(t testing.TB, place string) stores {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	if !strings.HasPrefix(place, "postgres") {
		db, err := sqlitestore.OpenDatabase(ctx, place, sqlitestore.DatabaseOptions{})
		must(err)
		t.Cleanup(func() { db.Close() })
		rows, err := sqlitestore.OpenIn[string, int](ctx, db, sqlitestore.Options{Table: "written"})
		must(err)
		positions, err := sqlitestore.OpenIn[string, int64](ctx, db, sqlitestore.Options{Table: "positions"})
		must(err)
		past, err := sql.Open("sqlite", place)
		must(err)
		t.Cleanup(func() { past.Close() })
		return stores{rows, positions, past, "deleted = 1", ""}
	}
	pool, err := pgxpool.New(ctx, place)
	must(err)
	t.Cleanup(pool.Close)
	db, err := pgstore.OpenDatabase(ctx, pool, pgstore.DatabaseOptions{})
	must(err)
	t.Cleanup(func() { db.Close() })
	rows, err := pgstore.OpenIn[string, int](ctx, db, pgstore.Options{Table: "written"})
	must(err)
	positions, err := pgstore.OpenIn[string, int64](ctx, db, pgstore.Options{Table: "positions"})
	must(err)
	past, err := sql.Open("pgx", place)
	must(err)
	t.Cleanup(func() { past.Close() })
	return stores{rows, positions, past, "deleted_at IS NOT NULL",
		"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = '" + killedName + "'"}
}

// table reads the rows of a run, in one statement that knows nothing of the store.
func (s stores) table(t testing.TB, prefix string) map[string]int {
	t.Helper()
	rows, err := s.db.QueryContext(t.Context(), "SELECT key, value FROM written WHERE NOT ("+s.deleted+")")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := map[string]int{}
	for rows.Next() {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil {
			t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscan(value, &n); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(key, prefix) {
			found[key] = n
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

const (
	killedName     = "a program to be killed" // by which PostgreSQL knows its sessions
	placeVariable  = "LOCKSTEP_BEHIND_PLACE"
	dirVariable    = "LOCKSTEP_BEHIND_JOURNAL" // "" for none
	prefixVariable = "LOCKSTEP_BEHIND_PREFIX"

	workers = 4
	keys    = 5 // of each worker
	bound   = 60
)

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// opened is a cache in Mode WriteBehind over the stores, and how it is closed.
func opened(t testing.TB, s stores, dir string) (cache *lockstep.Cache[string, int], kept *journal.Journal[string, int]) {
	t.Helper()
	o := lockstep.Options[string, int]{Mode: lockstep.WriteBehind, Logger: silent}
	o.Behind.MaxWrites, o.Behind.MaxDelay = bound, time.Duration(rand.IntN(3))*2*time.Millisecond
	if dir != "" {
		var err error
		// Small files, so that kills meet their beginnings and removals.
		kept, err = journal.Open(t.Context(), dir, journal.Options[string, int]{Positions: s.positions, FileBytes: 4096, Logger: silent})
		if err != nil {
			t.Fatal(err)
		}
		o.Behind.Journal = kept
	}
	cache, err := lockstep.New(s.rows, o)
	if err != nil {
		t.Fatal(err)
	}
	return cache, kept
}

// A write is worker w's i-th: it sets one of the worker's keys to i, or, now and then, all
// of them; which, i tells.
func keysOf(prefix string, w, i int) (names []string) {
	if i%7 == 0 {
		for k := range keys {
			names = append(names, fmt.Sprintf("%s%d/%d", prefix, w, k))
		}
		return names
	}
	return []string{fmt.Sprintf("%s%d/%d", prefix, w, i*i%keys)}
}

// writes is the program that is killed. It says of each write that it begins, and that it
// was acknowledged, each with one call of the kernel.
func writes(t *testing.T) {
	prefix := os.Getenv(prefixVariable)
	cache, _ := opened(t, connect(t, os.Getenv(placeVariable)), os.Getenv(dirVariable))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				fmt.Fprintf(os.Stdout, "write: began %d %d\n", w, i)
				names := keysOf(prefix, w, i)
				var err error
				if len(names) == 1 {
					_, err = cache.Set(ctx, names[0], i)
				} else {
					values := map[string]int{}
					for _, name := range names {
						values[name] = i
					}
					err = cache.SetMany(ctx, values)
				}
				if err != nil {
					fmt.Fprintf(os.Stdout, "write: failed %v\n", err)
					return
				}
				fmt.Fprintf(os.Stdout, "write: done %d %d\n", w, i)
			}
		})
	}
	running.Wait()
}

// told is what the killed program has said: when each write began and was acknowledged, by
// the line; 0 for never.
type told struct {
	began, done [workers][]int // by i
}

func (s *told) note(lines *[workers][]int, w, i, line int) {
	for len(lines[w]) <= i {
		lines[w] = append(lines[w], 0)
	}
	lines[w][i] = line
}

func (s *told) acknowledged(w int) int {
	n := 0
	for i, line := range s.done[w] {
		if line > 0 {
			n = i
		}
	}
	return n
}

// killed runs the program and kills it.
func killed(t *testing.T, place, dir, prefix string) (s told) {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), placeVariable+"="+place, dirVariable+"="+dir, prefixVariable+"="+prefix, "PGAPPNAME="+killedName)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	left := rand.IntN(800)
	var said strings.Builder
	dead := false
	lines := bufio.NewReader(out)
	for line := 1; ; line++ {
		text, err := lines.ReadString('\n')
		if err != nil { // the last may be half of one, of a write that is not known to have begun
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break
		}
		var w, i int
		switch {
		case strings.HasPrefix(text, "write: began"):
			fmt.Sscanf(text, "write: began %d %d", &w, &i)
			s.note(&s.began, w, i, line)
		case strings.HasPrefix(text, "write: done"):
			fmt.Sscanf(text, "write: done %d %d", &w, &i)
			s.note(&s.done, w, i, line)
			left--
		case strings.HasPrefix(text, "write: failed"):
			t.Fatalf("a write has failed in a program that was not dead yet: %s", text)
		default:
			said.WriteString(text)
		}
		if left <= 0 && !dead {
			dead = true
			time.Sleep(rand.N(3 * time.Millisecond))
			if err := cmd.Process.Kill(); err != nil {
				t.Fatalf("%v\n%s", err, &said)
			}
		}
	}
	if err := cmd.Wait(); !dead {
		t.Fatalf("the program ended by itself: %v\n%s", err, &said)
	}
	return s
}

// prefixOf returns how far each worker's writes are in the table, and fails the test if the
// table is not what all writes up to there come to.
func prefixOf(t *testing.T, table map[string]int, prefix string, s *told) (upTo [workers]int) {
	t.Helper()
	for w := range workers {
		for _, name := range keysOf(prefix, w, 0) {
			upTo[w] = max(upTo[w], table[name])
		}
		want := map[string]int{}
		for i := 1; i <= upTo[w]; i++ {
			for _, name := range keysOf(prefix, w, i) {
				want[name] = i
			}
		}
		for _, name := range keysOf(prefix, w, 0) {
			if table[name] != want[name] {
				t.Errorf("%s is %d; with the writes up to %d of that worker it would be %d", name, table[name], upTo[w], want[name])
			}
		}
		if upTo[w] >= len(s.began[w]) && upTo[w] > 0 {
			t.Errorf("write %d of worker %d is there, and had not begun", upTo[w], w)
		}
	}
	// A write that is there, and had begun when another one was acknowledged that is not.
	for w := range workers {
		for v := range workers {
			first := upTo[v] + 1 // the first that is not there
			if upTo[w] == 0 || first >= len(s.done[v]) || s.done[v][first] == 0 {
				continue
			}
			if s.began[w][upTo[w]] > s.done[v][first] {
				t.Errorf("write %d of worker %d is there, and write %d of worker %d is not, which was acknowledged before that had begun", upTo[w], w, first, v)
			}
		}
	}
	return upTo
}

// place is an empty database.
func places(t *testing.T, run func(t *testing.T, place string)) {
	t.Run("SQLite", func(t *testing.T) { run(t, filepath.Join(t.TempDir(), "test.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { run(t, dbtest.Postgres(t)) })
}

// With a journal, a program that is killed loses nothing that it has acknowledged, and what
// another program has written after a flush is not written over by the next one.
func TestNoAcknowledgedWriteIsLostWhenAProgramWithAJournalIsKilled(t *testing.T) {
	if os.Getenv(placeVariable) != "" {
		writes(t)
		return
	}
	places(t, func(t *testing.T, place string) {
		dir := filepath.Join(t.TempDir(), "journal")
		acknowledged, replayed, others := 0, 0, 0
		s := connect(t, place)
		for n := range *kills {
			prefix := fmt.Sprintf("%d/", n)
			said := killed(t, place, dir, prefix)
			table := s.table(t, prefix)
			// Another program writes rows whose last write is in the database: the journal has
			// nothing more to make of them.
			elsewhere := map[string]int{}
			for w := range workers {
				for _, name := range keysOf(prefix, w, 0) {
					last := 0
					for i := range said.began[w] {
						if said.began[w][i] > 0 && slices.Contains(keysOf(prefix, w, i), name) {
							last = i
						}
					}
					if last > 0 && table[name] == last {
						elsewhere[name] = -last
					}
				}
			}
			for name, value := range elsewhere {
				write(t, s, name, value)
			}
			others += len(elsewhere)

			cache, kept := opened(t, s, dir)
			replayed += kept.Report().Records
			if err := cache.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(cache.Close(t.Context()), kept.Close()); err != nil {
				t.Fatal(err)
			}
			after := s.table(t, prefix)
			for name, value := range elsewhere {
				if after[name] != value {
					t.Errorf("after kill no. %d: %s was written by another program, as %d, and is %d after the replay", n+1, name, value, after[name])
				}
				after[name] = -value // as it was
			}
			upTo := prefixOf(t, after, prefix, &said)
			for w := range workers {
				if last := said.acknowledged(w); upTo[w] < last {
					t.Errorf("after kill no. %d: the writes of worker %d after no. %d are lost, and %d was acknowledged", n+1, w, upTo[w], last)
				}
				acknowledged += said.acknowledged(w)
			}
			if t.Failed() {
				t.FailNow()
			}
		}
		t.Logf("%d kills: %d writes acknowledged, %d records replayed, %d rows written by others", *kills, acknowledged, replayed, others)
		if acknowledged == 0 || replayed == 0 && *kills > 5 || others == 0 && *kills > 5 {
			t.Error("nothing was tested")
		}
	})
}

// Without one, what is lost are the last writes, and no more of them than the bound.
func TestWhatAKilledProgramWithoutAJournalLoses(t *testing.T) {
	if os.Getenv(placeVariable) != "" {
		writes(t)
		return
	}
	places(t, func(t *testing.T, place string) {
		s := connect(t, place)
		acknowledged, lost, most := 0, 0, 0
		for n := range *kills {
			prefix := fmt.Sprintf("%d/", n)
			said := killed(t, place, "", prefix)
			upTo := prefixOf(t, settled(t, s, prefix), prefix, &said)
			changes := 0
			for w := range workers {
				acknowledged += said.acknowledged(w)
				for i := upTo[w] + 1; i < len(said.done[w]); i++ {
					if said.done[w][i] > 0 {
						changes += len(keysOf(prefix, w, i))
					}
				}
			}
			if changes > bound {
				t.Errorf("after kill no. %d: %d acknowledged changes are lost, and the bound is %d", n+1, changes, bound)
			}
			lost, most = lost+changes, max(most, changes)
			if t.Failed() {
				t.FailNow()
			}
		}
		t.Logf("%d kills: %d writes acknowledged, %d changes lost, at most %d at once; the bound is %d", *kills, acknowledged, lost, most, bound)
		if acknowledged == 0 || lost == 0 && *kills > 5 {
			t.Error("nothing was tested")
		}
	})
}

// settled is the table when nothing of a dead program can change it any more: its last
// transaction may be under way, until the server has ended its sessions.
func settled(t *testing.T, s stores, prefix string) map[string]int {
	t.Helper()
	for left := 1; left > 0 && s.others != ""; {
		if err := s.db.QueryRowContext(t.Context(), s.others).Scan(&left); err != nil {
			t.Fatal(err)
		}
	}
	return s.table(t, prefix)
}

// write is another program's, by way of a store.
func write(t *testing.T, s stores, name string, value int) {
	t.Helper()
	change := lockstep.Change[string, int]{Key: name, Value: value}
	change, _, err := s.rows.Capabilities().Prepare(change)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.rows.Commit(t.Context(), []lockstep.ChangeSet[string, int]{{Changes: []lockstep.Change[string, int]{change}}}); err != nil {
		t.Fatal(err)
	}
}

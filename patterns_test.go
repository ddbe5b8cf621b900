package lockstep_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// The lines of docs/patterns.md.

// A pattern is a program that follows one.
type pattern struct {
	*scene
	mode  lockstep.Mode
	cache *lockstep.Cache[string, int]
	set   func(key string, value int) error
	get   func(key string) (int, error)
}

const patternWrites = 8 // Behind.MaxWrites

var patterns = []lockstep.Mode{lockstep.WriteThrough, lockstep.WriteAround, lockstep.ReadOnly, lockstep.CacheAside, lockstep.WriteBehind}

// inPattern plays a scene of each.
func inPattern(t *testing.T, mode lockstep.Mode, play func(p *pattern)) {
	o := options{Mode: mode, TTL: time.Minute}
	if mode == lockstep.CacheAside {
		inByHand(t, o, func(h *byHand) {
			play(&pattern{scene: h.scene, mode: mode, cache: h.cache,
				set: func(key string, value int) error { return h.set(h.ctx, key, value) },
				get: func(key string) (int, error) { return h.get(h.ctx, key) },
			})
		})
		return
	}
	if mode == lockstep.WriteBehind {
		o.Behind.MaxWrites, o.Behind.MaxOps = patternWrites, 2
	}
	inBubble(t, o, func(s *scene) {
		p := &pattern{scene: s, mode: mode, cache: s.Cache,
			set: func(key string, value int) error { return second(s.Set(s.ctx, key, value)) },
			get: func(key string) (int, error) { return s.Get(s.ctx, key) },
		}
		if mode == lockstep.ReadOnly { // somebody else writes, and tells
			p.set = func(key string, value int) error {
				s.behind(key, value)
				s.Invalidate(key)
				return nil
			}
		}
		play(p)
	})
}

func (p *pattern) writes(key string, value int) {
	p.Helper()
	if err := p.set(key, value); err != nil {
		p.Fatalf("write %s = %d: %v", key, value, err)
	}
}

func (p *pattern) finds(key string, want int) {
	p.Helper()
	if value, err := p.get(key); value != want || err != nil {
		p.Errorf("%s is %d, %v, want %d", key, value, err, want)
	}
}

// crash ends the program in the middle of whatever it does: a closed context leaves nobody
// time for anything, and a commit that has not been sent by then never is.
func (p *pattern) crash() {
	now, cancel := context.WithCancel(p.ctx)
	cancel()
	_ = p.cache.Close(now)
	synctest.Wait()
}

func TestPatterns(t *testing.T) {
	for _, mode := range patterns {
		t.Run(mode.String(), func(t *testing.T) {
			for column, play := range map[string]func(p *pattern){
				"durability": (*pattern).durability, "freshness": (*pattern).freshness,
				"order": (*pattern).order, "what a crash loses": (*pattern).loss,
			} {
				t.Run(column, func(t *testing.T) { inPattern(t, mode, play) })
			}
		})
	}
}

func (p *pattern) durability() {
	if p.mode == lockstep.ReadOnly {
		p.refusedCall("Set", p.mode, second(p.cache.Set(p.ctx, "k", 1)))
		p.notStored("k")
		return
	}
	commit := p.store.Block(fault.BeforeCommit)
	defer commit.Pass()
	writer := p.start(func() error { return p.set("k", 1) })
	<-commit.Reached
	if p.mode == lockstep.WriteBehind {
		if err := writer.returned(); err != nil {
			p.Error(err)
		}
		p.notStored("k")
		commit.Pass()
		if err := p.cache.Flush(p.ctx); err != nil {
			p.Error(err)
		}
	} else {
		writer.hangs()
		commit.Pass()
		writer.succeeds()
	}
	p.stored("k", 1)
}

func (p *pattern) freshness() {
	p.behind("k", 1)
	p.finds("k", 1)
	load := p.store.Block(fault.AfterLoad, "l")
	reader := p.start(func() error { _, _ = p.get("l"); return nil })
	<-load.Reached // which finds nothing
	for i := 2; i < 5; i++ {
		p.writes("k", i)
		p.finds("k", i)
	}
	p.writes("l", 7)
	load.Pass()
	reader.succeeds()
	p.finds("l", 7)
	if p.mode == lockstep.WriteBehind {
		if err := p.cache.Flush(p.ctx); err != nil {
			p.Error(err)
		}
	}
	p.finds("k", 4)
	p.behind("k", 9) // and nobody tells
	p.finds("k", 4)
	time.Sleep(time.Minute)
	p.finds("k", 9)
}

func (p *pattern) order() {
	for i := range 20 {
		p.writes("k", i)
	}
	if p.mode == lockstep.WriteBehind {
		if err := p.cache.Flush(p.ctx); err != nil {
			p.Error(err)
		}
	}
	p.stored("k", 19)
}

// loss says that of what was acknowledged before a crash the last writes are lost, and how
// many at most.
func (p *pattern) loss() {
	const acknowledged = 12
	for i := range acknowledged {
		if p.mode == lockstep.WriteBehind && i == acknowledged-patternWrites {
			if err := p.cache.Flush(p.ctx); err != nil {
				p.Error(err)
			}
			p.script("commit *: hang")
		}
		p.writes(fmt.Sprint("k", i), i)
	}
	if p.mode != lockstep.WriteBehind && p.mode != lockstep.ReadOnly {
		p.script("commit *: hang") // and one under way
		unknown := p.start(func() error { _ = p.set("under way", 1); return nil })
		defer unknown.succeeds()
		defer p.store.Release()
		synctest.Wait()
	}
	p.crash()
	stored := 0
	for i := range acknowledged {
		if p.row(fmt.Sprint("k", i)).Exists {
			if stored != i {
				p.Errorf("the table has k%d, and not k%d, which was acknowledged before", i, stored)
			}
			stored++
		}
	}
	most := 0
	if p.mode == lockstep.WriteBehind {
		most = patternWrites
		if stored == acknowledged {
			p.Error("nothing was lost, so nothing is shown")
		}
	}
	if lost := acknowledged - stored; lost > most {
		p.Errorf("%d acknowledged writes are lost, want %d at most", lost, most)
	}
}

// The document has a line for each mode, and each names tests that there are.
func TestTheTableOfPatternsIsTheTests(t *testing.T) {
	text, err := os.ReadFile("docs/patterns.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := make(map[string]bool)
	for _, where := range []string{"*_test.go", "*/*_test.go", "store/*/*_test.go"} {
		files, err := filepath.Glob(where)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(code, -1) {
				tests[string(m[1])] = true
			}
		}
	}
	lines := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) == 8 {
			lines[strings.Trim(cells[1], " `")] = cells[6]
		}
	}
	for _, mode := range patterns {
		held := lines[mode.String()]
		if !strings.Contains(held, "`TestPatterns/"+mode.String()+"`") {
			t.Errorf("the line of %v is not there, or does not name TestPatterns/%v: %q", mode, mode, held)
		}
	}
	for name, held := range lines {
		for _, m := range regexp.MustCompile("`(Test[^`/]*)").FindAllStringSubmatch(held, -1) {
			if !tests[m[1]] {
				t.Errorf("the line of %s names %s, which there is not", name, m[1])
			}
		}
	}
	for mode := lockstep.Mode(0); !strings.HasPrefix(mode.String(), "Mode("); mode++ {
		if lines[mode.String()] == "" {
			t.Errorf("there is no line for %v", mode)
		}
	}
}

package gate

import (
	"flag"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// More and longer runs than rapid's own defaults, which the command line still
// overrides.
func init() {
	for name, value := range map[string]string{"rapid.checks": "2000", "rapid.steps": "60"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}

// world is a table, the writers and readers of it, and what is known about it.
//
// The table has for each key the number of the last commit. known is the highest
// number of a key that anybody has been told: by an acknowledgement, by a read, or
// by the look that an observer took. Memory may hold nothing older than what is
// known, and no reader is told anything older than what was known when it asked.
// That is the whole model.
type world struct {
	*rig
	t       *rapid.T
	table   map[string]int
	known   map[string]int
	commits map[int]commit // by number

	numbers int
	owners  uint64
	batches []*batch
	all     []*allKeys
	flights []*running
	readers []*reader
	looks   []*look
	inserts []*insertion
}

var keys = []string{"a", "b"}

// commit is what one transaction has left.
type commit struct {
	wrote   map[string]int // key: number
	foreign bool           // somebody else's, whom no promise covers
}

type batch struct {
	owner     uint64
	sets      [][]string // the keys of each
	committed bool
	results   []map[string]int // of each set; nil for one that was left out
}

type allKeys struct {
	committed bool
	wrote     map[string]int
}

type running struct {
	flight *flight
	read   bool
	value  int
}

type reader struct {
	key     string
	flight  *flight
	floor   int // what was known when it asked
	refresh bool
	expired bool // it found a copy that was not usable
}

type look struct {
	seen map[string]int
	scan bool
}

func TestModel(t *testing.T) { inWorlds(t, (*world).act) }

// TestModelBesideInsertions takes steps of fewer kinds: what another program makes of a
// row before its insertion is published is rare among steps of all.
func TestModelBesideInsertions(t *testing.T) {
	inWorlds(t, func(w *world) {
		w.t.Repeat(map[string]func(*rapid.T){
			"insert": w.insert, "insert commit": w.insertCommit, "insert publish": w.insertPublish,
			"foreign": w.foreign, "forget": w.forget, "read": func(*rapid.T) { w.read(usable) },
			"load and land": func(t *rapid.T) {
				if len(w.flights) == 0 {
					t.Skip()
				}
				f := w.flights[0]
				f.read, f.value = true, w.table[f.flight.Key]
				w.land(t)
			},
			"": func(*rapid.T) { w.check() },
		})
	})
}

func inWorlds(t *testing.T, act func(*world)) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{
			rig: newRig(t), t: rt,
			table: make(map[string]int), known: make(map[string]int), commits: make(map[int]commit),
		}
		act(w)
		w.finish()
	})
}

// act takes random steps. Each run leaves some kinds of them out: what goes wrong
// takes a few steps of a few kinds, and is rare among steps of all.
func (w *world) act() {
	steps := map[string]func(*rapid.T){
		"refresh":        func(*rapid.T) { w.read(nil) },
		"expire":         func(*rapid.T) { w.read(func(int) bool { return false }) },
		"leave":          w.leave,
		"doubt":          w.doubt,
		"hold all":       w.holdAll,
		"foreign":        w.foreign,
		"invalidate":     w.invalidate,
		"invalidate all": w.invalidateAll,
		"look":           w.look,
		"forget":         w.forget,
		"insert":         w.insert,
	}
	names := slices.Sorted(maps.Keys(steps))
	for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID).Draw(w.t, "left out") {
		delete(steps, name)
	}
	if steps["look"] != nil {
		steps["observe"] = w.observe
	}
	if steps["hold all"] != nil {
		steps["commit all"], steps["publish all"] = w.commitAll, w.publishAll
	}
	if steps["insert"] != nil {
		steps["insert commit"], steps["insert publish"], steps["insert doubt"] = w.insertCommit, w.insertPublish, w.insertDoubt
	}
	steps["read"] = func(*rapid.T) { w.read(usable) }
	steps["load"], steps["land"] = w.load, w.land
	steps["queue"], steps["commit"], steps["publish"] = w.queue, w.commit, w.publish
	steps[""] = func(*rapid.T) { w.check() }
	w.t.Repeat(steps)
}

// check is the invariant.
func (w *world) check() {
	for key, number := range w.memory {
		if number < w.known[key] {
			w.t.Fatalf("memory has %s = %d, and %d is known", key, number, w.known[key])
		}
	}
}

// tell notes that somebody learns a row. Of a commit of several keys, whoever
// knows one knows them all.
func (w *world) tell(key string, number int, observed bool) {
	c := w.commits[number]
	if c.foreign {
		if observed {
			w.known[key] = max(w.known[key], number)
		}
		return
	}
	for other, n := range c.wrote {
		w.known[other] = max(w.known[other], n)
	}
}

func (w *world) key() string { return rapid.SampledFrom(keys).Draw(w.t, "key") }

func (w *world) rarely(what string) bool { return rapid.IntRange(0, 4).Draw(w.t, what) == 4 }

// pick draws one of the things, or skips the step when there is none.
func pick[T any](w *world, list []T, what string) (T, int) {
	if len(list) == 0 {
		w.t.Skip()
	}
	i := rapid.IntRange(0, len(list)-1).Draw(w.t, what)
	return list[i], i
}

func (w *world) read(usable func(int) bool) {
	key := w.key()
	e, expired := w.memory[key]
	if expired && usable != nil && usable(e) {
		w.tell(key, e, false)
		return
	}
	f, start, e := w.Join(key, usable)
	if f == nil {
		w.tell(key, e, false)
		return
	}
	r := &reader{key: key, flight: f, floor: w.known[key], expired: expired}
	if usable == nil { // somebody who knows what the table holds
		r.floor, r.refresh = w.table[key], true
	}
	w.readers = append(w.readers, r)
	if start {
		w.flights = append(w.flights, &running{flight: f})
	}
}

// load is the moment at which a load reads the row.
func (w *world) load(*rapid.T) {
	f, _ := pick(w, w.flights, "load")
	if f.read {
		w.t.Skip()
	}
	f.read, f.value = true, w.table[f.flight.Key]
}

func (w *world) land(*rapid.T) {
	f, i := pick(w, w.flights, "land")
	if !f.read {
		w.t.Skip()
	}
	w.flights = slices.Delete(w.flights, i, i+1)
	next := w.Land(f.flight, f.value, nil, !w.rarely("not kept"))
	if next != nil {
		w.flights = append(w.flights, &running{flight: next})
	}
	for _, r := range w.readersOf(f.flight) {
		if f.value < r.floor {
			w.t.Fatalf("a reader of %s who knew of %d is told %d", r.key, r.floor, f.value)
		}
		// Also what somebody else has written: memory must not be older then.
		w.tell(r.key, f.value, true)
		w.drop(r)
	}
}

func (w *world) readersOf(f *flight) (list []*reader) {
	for _, r := range w.readers {
		if r.flight == f {
			list = append(list, r)
		}
	}
	return list
}

func (w *world) drop(r *reader) {
	w.Leave(r.flight, nil)
	w.readers = slices.DeleteFunc(w.readers, func(other *reader) bool { return other == r })
}

func (w *world) leave(*rapid.T) {
	r, _ := pick(w, w.readers, "leave")
	w.drop(r)
}

// queue makes the keys of a new batch busy.
func (w *world) queue(*rapid.T) {
	if len(w.batches) == 3 {
		w.t.Skip()
	}
	w.owners++
	b := &batch{owner: w.owners}
	sets := rapid.SliceOfN(rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 2, rapid.ID), 1, 3)
	b.sets = sets.Draw(w.t, "sets")
	w.batches = append(w.batches, b)
	for _, set := range b.sets {
		for _, key := range set {
			w.Hold(key, b.owner, len(set) > 1)
		}
	}
}

// commit is the moment at which the database commits a batch.
func (w *world) commit(*rapid.T) {
	b, _ := pick(w, w.batches, "commit")
	if b.committed {
		w.t.Skip()
	}
	b.committed = true
	for _, set := range b.sets {
		if w.rarely("left out") {
			b.results = append(b.results, nil)
			continue
		}
		b.results = append(b.results, w.apply(set, false))
	}
}

func (w *world) apply(set []string, foreign bool) map[string]int {
	wrote := make(map[string]int)
	for _, key := range set {
		n := w.number(rapid.Bool().Draw(w.t, "deleted"))
		w.table[key], wrote[key] = n, n
		w.commits[n] = commit{wrote: wrote, foreign: foreign}
	}
	return wrote
}

// number is the next one; an absence's is even, as in a rig.
func (w *world) number(absent bool) int {
	w.numbers++
	if w.numbers%2 == 0 != absent {
		w.numbers++
	}
	return w.numbers
}

// publish ends a batch. Then its writers are answered.
func (w *world) publish(*rapid.T) {
	b, i := pick(w, w.batches, "publish")
	if !b.committed {
		w.t.Skip()
	}
	w.batches = slices.Delete(w.batches, i, i+1)
	for i, set := range b.sets {
		for _, key := range set {
			p := Unchanged[int]()
			switch {
			case b.results[i] != nil && !w.rarely("not known"):
				p = Install(b.results[i][key])
			case b.results[i] != nil, rapid.Bool().Draw(w.t, "conflict"):
				p = Drop[int]()
			}
			w.Release(key, p)
		}
	}
	for _, wrote := range b.results {
		for key, number := range wrote {
			w.tell(key, number, true)
		}
	}
}

// doubt is a writer who leaves, and is told that nobody knows.
func (w *world) doubt(*rapid.T) {
	b, _ := pick(w, w.batches, "doubt")
	for _, key := range b.sets[0] {
		w.Evict(key)
	}
}

func (w *world) holdAll(*rapid.T) {
	if len(w.all) == 2 {
		w.t.Skip()
	}
	w.all = append(w.all, &allKeys{})
	w.HoldAll()
}

func (w *world) commitAll(*rapid.T) {
	a, _ := pick(w, w.all, "commit all")
	if a.committed {
		w.t.Skip()
	}
	a.committed, a.wrote = true, w.apply(keys, false)
}

func (w *world) publishAll(*rapid.T) {
	a, i := pick(w, w.all, "publish all")
	if !a.committed {
		w.t.Skip()
	}
	w.all = slices.Delete(w.all, i, i+1)
	w.ReleaseAll()
	for key, number := range a.wrote {
		w.tell(key, number, true)
	}
}

// foreign is a commit past the cache.
func (w *world) foreign(*rapid.T) { w.apply([]string{w.key()}, true) }

// invalidate is done by somebody who knows what the table holds.
func (w *world) invalidate(*rapid.T) {
	key := w.key()
	w.tell(key, w.table[key], true)
	w.Invalidate(key)
}

func (w *world) invalidateAll(*rapid.T) {
	for key, number := range w.table {
		w.tell(key, number, true)
	}
	w.InvalidateAll()
}

// look is the moment at which somebody reads rows past memory: one, or, as a
// scan, a page of them, from which others are absent.
func (w *world) look(*rapid.T) {
	l := &look{seen: make(map[string]int), scan: rapid.Bool().Draw(w.t, "scan")}
	if l.scan {
		for key, number := range w.table {
			l.seen[key] = number
		}
	} else {
		key := w.key()
		l.seen[key] = w.table[key]
	}
	w.looks = append(w.looks, l)
}

// observe is the moment before the reader tells. What a scan saw of absent rows
// it did not see as rows: of those it knows only what commits under way, or known
// before, have done to them.
func (w *world) observe(*rapid.T) {
	l, i := pick(w, w.looks, "observe")
	w.looks = slices.Delete(w.looks, i, i+1)
	if l.scan {
		w.ObserveBusy()
	}
	for key, number := range l.seen {
		absent := l.scan && number%2 == 0
		if !absent {
			w.Observe(key, func(e int) bool { return e >= number })
		}
		w.tell(key, number, !absent)
	}
}

// forget is an eviction.
func (w *world) forget(*rapid.T) { w.memory.Delete(w.key()) }

// finish ends everything. Nothing is then left in the gate, and memory works.
func (w *world) finish() {
	for len(w.inserts) > 0 {
		w.endInsertion(0)
		w.check()
	}
	for len(w.batches) > 0 {
		b := w.batches[0]
		if !b.committed {
			b.committed, b.results = true, make([]map[string]int, len(b.sets))
		}
		w.publish(nil)
		w.check()
	}
	for len(w.all) > 0 {
		w.all[0].committed = true
		w.publishAll(nil)
		w.check()
	}
	for len(w.flights) > 0 {
		for _, f := range w.flights {
			f.read, f.value = f.read || true, max(f.value, w.table[f.flight.Key])
		}
		w.land(nil)
		w.check()
	}
	if len(w.readers) > 0 {
		w.t.Fatalf("%d readers wait for nothing", len(w.readers))
	}
	for i := range w.shards {
		if len(w.shards[i].slots) > 0 {
			w.t.Fatal("the gate remembers a key on which nothing is under way")
		}
	}
	for _, key := range keys {
		w.memory.Delete(key)
		f, start, _ := w.Join(key, usable)
		if !start {
			w.t.Fatal("a load is under way")
		}
		w.Land(f, w.table[key], nil, true)
		w.Leave(f, nil)
		if w.memory[key] != w.table[key] {
			w.t.Fatal("a load does not fill memory")
		}
	}
}

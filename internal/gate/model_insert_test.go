package gate

import (
	"slices"

	"pgregory.net/rapid"
)

// insertion is a commit whose key is not known before it is published.
type insertion struct {
	number    uint64
	key       string
	wrote     int // 0: not committed
	in, doubt bool
}

// insert may begin in doubt, and be sent only then: its writer has left.
func (w *world) insert(*rapid.T) {
	if len(w.inserts) == 2 {
		w.t.Skip()
	}
	n := &insertion{}
	w.inserts = append(w.inserts, n)
	if w.rarely("left") {
		n.doubt = true
		w.DoubtInsertion()
		return
	}
	n.in, n.number = true, w.BeginInsertion()
}

// insertCommit is the moment at which the database finds a key that has no row. What
// somebody else has deleted past the cache is left out: the copy of such a row is old
// whatever becomes of the insertion.
func (w *world) insertCommit(*rapid.T) {
	n, _ := pick(w, w.inserts, "insert")
	var free []string
	for _, key := range keys {
		if last := w.table[key]; last%2 == 0 && !w.commits[last].foreign {
			free = append(free, key)
		}
	}
	if n.wrote > 0 || len(free) == 0 {
		w.t.Skip()
	}
	if !n.in {
		n.in, n.number = true, w.BeginInsertion()
	}
	n.key = rapid.SampledFrom(free).Draw(w.t, "free")
	n.wrote = w.number(false)
	w.table[n.key] = n.wrote
	w.commits[n.wrote] = commit{wrote: map[string]int{n.key: n.wrote}}
	if n.doubt {
		w.tell(n.key, n.wrote, true) // anybody may have found it
	}
}

// insertDoubt is a writer who is told that nobody knows.
func (w *world) insertDoubt(*rapid.T) {
	n, _ := pick(w, w.inserts, "insert")
	if n.doubt {
		w.t.Skip()
	}
	n.doubt = true
	w.DoubtInsertion()
	if n.wrote > 0 {
		w.tell(n.key, n.wrote, true)
	}
}

func (w *world) insertPublish(*rapid.T) {
	_, i := pick(w, w.inserts, "insert")
	w.endInsertion(i)
}

// endInsertion publishes what was committed. A settlement need not tell the key.
func (w *world) endInsertion(i int) {
	n := w.inserts[i]
	w.inserts = slices.Delete(w.inserts, i, i+1)
	if n.wrote > 0 && !(n.doubt && w.rarely("key not told")) {
		p := Install(n.wrote)
		if w.rarely("row not told") {
			p = Drop[int]()
		}
		w.Inserted(n.key, n.number, p)
	}
	if n.doubt {
		w.SettleInsertion()
	}
	if n.in {
		w.EndInsertion()
	}
	if n.wrote > 0 {
		w.tell(n.key, n.wrote, true)
	}
}

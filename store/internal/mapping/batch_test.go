package mapping

import (
	"database/sql/driver"
	"errors"
	"slices"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// What sets come to, in order, and each row once in a wave.
func TestSetsArePlannedInOrder(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	type set = lockstep.ChangeSet[int64, V]
	type change = lockstep.Change[int64, V]
	m := fitted[int64, V](t, Table{Name: "t", Columns: []Column{column("id", "int", 1), column("name", "text", 0), column("version", "int", 0)}}, Options{VersionColumn: "version"})
	b := m.NewBatch([]set{
		{Changes: []change{{Key: 1, Value: V{"a"}}, {Key: 2, Delete: true}}},
		{Changes: []change{{Key: 3, Value: V{"c"}}, {Key: 4, Delete: true}}, Checks: []lockstep.Check[int64]{{Key: 1, Version: 20}}},
		{Changes: []change{{Key: 2, Value: V{"b"}}}},
		{DeleteAll: true, Changes: []change{{Key: 9}}},
	})
	if active := b.Active(); !slices.Equal(active, []int{0, 1, 2}) || !errors.Is(b.Outcomes[3].Err, kv.ErrNotAlone) {
		t.Fatalf("active: %v, %v", active, b.Outcomes[3].Err)
	}
	keys, texts := b.Named([]int{0, 1})
	if len(keys) != 4 || len(texts) != 4 || texts[0] != b.Sets[0].Text(1) {
		t.Errorf("named: %v, %v", keys, texts)
	}
	var removed []int64
	w := b.NewWork(slices.Clone(b.Outcomes))
	w.Removed = func(_ string, version int64) { removed = append(removed, version) }
	w.Clock = 10
	for _, key := range []int64{1, 2} {
		row := []driver.Value{key, "old", 10 * key}
		w.Rows[KeyText(row[:1])] = row
	}
	w.Found()
	for i := range 2 {
		if err := w.Plan(i); (err != nil) != (i == 1) || i == 1 && !errors.Is(err, lockstep.ErrConflict) {
			t.Errorf("set %d: %v", i, err)
		}
	}
	if !w.Crosses(&w.Sets[2]) || len(w.Wave.Updates) != 1 || len(w.Wave.Deletes) != 1 || len(w.Wave.Inserts) != 0 || !slices.Equal(removed, []int64{21}) {
		t.Fatalf("the wave is %+v; removed %v", w.Wave, removed)
	}
	// The store has written the wave, and read back what became of it.
	one, two := w.Sets[0].Text(1), w.Sets[0].Text(2)
	w.Rows[one] = []driver.Value{int64(1), "made", int64(11)}
	delete(w.Rows, two)
	w.Written()
	o := w.Out[0]
	if o.Rows[0] != (lockstep.Row[V]{Value: V{"made"}, Version: 11, Exists: true}) || o.Rows[1].Version != 21 || !o.Existed[1] {
		t.Errorf("%+v", o)
	}
	if err := w.Plan(2); err != nil || len(w.Wave.Inserts) != 1 || w.Wave.Inserts[0].Version != 22 {
		t.Errorf("a row that was deleted comes back as %+v, %v", w.Wave.Inserts, err)
	}
	if w.First[two] == nil || w.Last[two].Delete || w.Last[one].Version != 11 {
		t.Errorf("first %v, last %+v", w.First, w.Last)
	}
}

// What a row shows of a commit whose outcome nobody knows.
func TestWhatARowTellsOfACommit(t *testing.T) {
	type V struct {
		Name string `db:"name"`
		Made string `db:"made,readonly"`
	}
	columns := []Column{column("id", "int", 1), column("name", "text", 0), column("made", "text", 0), column("version", "int", 0)}
	plain := fitted[int64, V](t, Table{Name: "t", Columns: columns}, Options{})
	versioned := fitted[int64, V](t, Table{Name: "t", Columns: columns}, Options{VersionColumn: "version"})
	row := func(name string) []driver.Value { return []driver.Value{int64(1), name, "by the database"} }
	at := func(version int64) []driver.Value { return append(row("any"), version) }
	put, remove := &Write{Columns: []any{"ours", "", nil}, Version: 5}, &Write{Delete: true, Version: 5}
	type told struct{ applied, told bool }
	yes, no, silent := told{true, true}, told{false, true}, told{false, false}
	for i, x := range []struct {
		m           *Mapping[int64, V]
		write       *Write
		before, now []driver.Value
		want        told
	}{
		{plain, put, row("old"), row("ours"), yes}, {plain, put, nil, row("ours"), yes}, {plain, put, row("old"), row("old"), no}, {plain, put, nil, nil, no},
		{plain, put, row("old"), row("theirs"), silent}, {plain, put, nil, row("theirs"), silent}, {plain, put, row("old"), nil, silent},
		{plain, put, row("ours"), row("ours"), silent}, {plain, remove, row("old"), nil, yes}, {plain, remove, row("old"), row("old"), no},
		{plain, remove, row("old"), row("theirs"), silent}, {plain, remove, nil, nil, silent}, {plain, remove, nil, row("theirs"), silent},
		{versioned, put, at(4), at(5), yes}, {versioned, put, at(4), at(4), no}, {versioned, put, at(4), at(6), silent}, {versioned, put, nil, at(5), yes},
		{versioned, put, nil, nil, no}, {versioned, put, at(4), nil, silent}, {versioned, remove, at(4), nil, yes}, {versioned, remove, at(4), at(4), no},
	} {
		applied, is := x.m.Tells(x.write, x.before, x.now)
		if got := (told{applied, is}); got != x.want {
			t.Errorf("%d: %v and then %v tells %v, want %v", i, x.before, x.now, got, x.want)
		}
	}
}

package pgstore

import (
	"database/sql/driver"
	"testing"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// What the rows show, where the server no longer knows of the transaction.
func TestWhatARowTellsOfACommit(t *testing.T) {
	type V struct {
		Name  string `db:"name"`
		Total int64  `db:"total"`
	}
	c := connect(t, `CREATE TABLE plain (id int PRIMARY KEY, name text, total bigint GENERATED ALWAYS AS (id + 1) STORED)`,
		`CREATE TABLE versioned (id int PRIMARY KEY, name text, total bigint, version bigint)`)
	row := func(columns ...driver.Value) []driver.Value { return append([]driver.Value{int64(1)}, columns...) }
	ours, old, theirs := row("ours", int64(2)), row("old", int64(2)), row("theirs", int64(2))
	touched := row("ours", int64(3)) // in a column that is not ours
	put, remove := &rowWrite{columns: []any{"ours", int64(0), nil}, version: 5}, &rowWrite{delete: true, version: 5}
	type told struct{ applied, told bool }
	yes, no, silent := told{true, true}, told{false, true}, told{false, false}
	plain, m := fitted[int, V](t, c, "plain")
	b := &tableBatch[int, V]{t: &Table[int, V]{shape: plain, m: m, sql: newTableSQL(plain, m.Key, m.Value, m.Version)}}
	for i, x := range []struct {
		write       *rowWrite
		before, now []driver.Value
		want        told
	}{
		{put, old, ours, yes}, {put, nil, ours, yes}, {put, old, old, no}, {put, nil, nil, no}, {put, old, theirs, silent},
		{put, nil, theirs, silent}, {put, old, nil, silent}, {put, ours, ours, silent}, {put, ours, nil, silent}, {put, ours, touched, silent}, {put, old, touched, yes},
		{remove, old, nil, yes}, {remove, old, old, no}, {remove, old, theirs, silent}, {remove, nil, nil, silent}, {remove, nil, theirs, silent},
	} {
		applied, is := b.tells(x.write, x.before, x.now)
		if got := (told{applied, is}); got != x.want {
			t.Errorf("%d: %v and then %v tells %v, want %v", i, x.before, x.now, got, x.want)
		}
	}
	shape, err := inspectTable(t.Context(), c, "versioned")
	if err != nil {
		t.Fatal(err)
	}
	v, err := mapTo[int, V](shape, mapping.Options{VersionColumn: "version"})
	if err != nil {
		t.Fatal(err)
	}
	b = &tableBatch[int, V]{t: &Table[int, V]{shape: shape, m: v, sql: newTableSQL(shape, v.Key, v.Value, v.Version)}}
	at := func(version int64) []driver.Value { return row("any", int64(2), version) }
	counted := &rowWrite{columns: []any{"ours", int64(2), nil}, version: 5, counted: true}
	for i, x := range []struct {
		write       *rowWrite
		before, now []driver.Value
		want        told
	}{
		{counted, at(4), at(5), silent}, {counted, at(4), row("ours", int64(2), int64(5)), yes},
		// Somebody has inserted it again, and gives it no version.
		{put, at(4), at(0), silent}, {put, nil, at(0), silent}, {put, at(2), at(4), no},
		{put, at(4), at(5), yes}, {put, at(4), at(4), no}, {put, at(4), at(6), silent}, {put, nil, at(5), yes}, {put, nil, nil, no},
		{put, at(4), nil, silent}, {remove, at(4), nil, yes}, {remove, at(4), at(4), no}, {remove, at(4), at(6), silent},
	} {
		applied, is := b.tells(x.write, x.before, x.now)
		if got := (told{applied, is}); got != x.want {
			t.Errorf("versioned %d: %v and then %v tells %v, want %v", i, x.before, x.now, got, x.want)
		}
	}
}

package pgstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"hash/fnv"
	"slices"
	"strconv"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// tableWork is what some sets come to, inside a transaction.
type tableWork[K comparable, V any] struct {
	b   *tableBatch[K, V]
	out []lockstep.Outcome[V]
	// rows are the rows of the keys that are named, the key's columns first, as the
	// work has left them; an absent row is not in it. first has them as they were found.
	rows, first map[string][]driver.Value
	// last is the last change of each row, for finding out an unknown outcome.
	last map[string]*rowWrite
	// versions are the highest that the work has given each row.
	versions map[string]int64
	clock    int64
	xact     uint64
	// wave is what has been decided and not been sent.
	wave  wave
	wrote bool // something has been sent
	tally *tally
}

// decide locks the rows that the sets name, decides the sets in order, and sends
// what they write but for the last wave. Its first round trip begins with before.
//
// A row that is there is locked as it is read. One that is not, is read again under
// the lock of its stripe if a set relies on its absence; if a set inserts it, the
// primary key says whether it was absent.
func (b *tableBatch[K, V]) decide(ctx context.Context, s *session, sets []int, out []lockstep.Outcome[V], waits *string, before ...command) (*tableWork[K, V], error) {
	w := &tableWork[K, V]{b: b, out: out, rows: map[string][]driver.Value{}, last: map[string]*rowWrite{}, versions: map[string]int64{}, tally: b.t.tally()}
	commands := append(before, w.tally.begin()...)
	if waits != nil {
		commands = append(commands, command{sql: waitSQL, args: []any{*waits}})
	}
	commands = append(commands, b.t.outside.mark()...)
	hard := false
	for _, i := range sets {
		if b.sets[i].deleteAll {
			// With nobody else writing, rows that it takes in no order cannot be waited for
			// in a circle.
			commands = append(commands, command{sql: b.t.sql.lockAll})
			break
		}
		hard = hard || slices.ContainsFunc(b.sets[i].changes, func(c lockstep.Change[K, V]) bool { return c.Delete })
	}
	keys, texts := b.named(sets)
	commands = append(commands, w.lock(keys, hard)...)
	if err := s.run(ctx, append(commands, w.readClock())...); err != nil {
		return w, err
	}
	if err := w.guard(ctx, s, sets, keys, texts, hard); err != nil {
		return w, err
	}
	b.t.db.heard(w.clock, 0)
	w.clock = max(w.clock, min(b.t.floor.Load(), 1<<63-2)+1)
	w.first = make(map[string][]driver.Value, len(w.rows))
	for text, row := range w.rows {
		w.first[text] = row
	}
	for _, i := range sets {
		set := &b.sets[i]
		if set.deleteAll {
			if err := w.give(ctx, s); err != nil {
				return w, err
			}
		}
		if set.deleteAll || slices.ContainsFunc(set.texts, func(text string) bool { return w.wave.keys[text] }) {
			// What a deferred constraint has against these sets, the later ones must not hide.
			if err := w.send(ctx, s, command{sql: immediateSQL}, command{sql: deferredSQL}); err != nil {
				return w, err
			}
		}
		if set.deleteAll {
			if err := w.removeAll(ctx, s, i); err != nil {
				return w, err
			}
			continue
		}
		plan := w.plan
		if set.inserts {
			plan = w.planInsertion
		}
		if err := plan(i, set); err != nil {
			out[i] = lockstep.Outcome[V]{Err: err}
		}
	}
	return w, w.give(ctx, s)
}

// lock reads and locks rows.
func (w *tableWork[K, V]) lock(keys [][]any, hard bool) []command {
	if len(keys) == 0 {
		return nil
	}
	query := w.b.t.sql.lock
	if hard {
		query = w.b.t.sql.lockHard
	}
	return []command{w.read(query, keys)}
}

func (w *tableWork[K, V]) read(query string, keys [][]any) command {
	n := len(w.b.t.m.Key)
	return command{sql: query, args: w.b.t.keyArgs(keys), row: w.b.t.row(func(row []driver.Value) error {
		w.rows[mapping.KeyText(row[:n])] = slices.Clone(row)
		return nil
	})}
}

func (w *tableWork[K, V]) readClock() command {
	return command{sql: clockXactSQL, row: func(scan func(...any) error) (err error) {
		var xact string
		if err := scan(&w.clock, &xact); err != nil {
			return err
		}
		w.xact, err = strconv.ParseUint(xact, 10, 64)
		return err
	}}
}

// stripes is how many advisory locks a table has: as few as a commit of any size may
// take without filling the server's lock table, and enough that transactions which
// have nothing in common seldom meet.
const stripes = 128

func stripeOf(text string) int32 {
	h := fnv.New32a()
	h.Write([]byte(text))
	return int32(h.Sum32() % stripes)
}

// class tells the locks of one table from those of others, and of other programs.
func (s *shape) class() int32 { return int32(s.oid ^ 0x6c6f636b) }

// guard reads again, under locks that keep stores of this package from inserting
// them, the absent rows on whose absence some set relies: by a check, by a
// deletion that belongs to something else, which has to happen at one moment with
// it, or by an insertion that somebody else's has come before once. The locks of the rows
// that the sets insert are taken in the same pass, for two passes could wait for each
// other in a circle. A row that is to be absent is looked for in any case: see errReplaced.
func (w *tableWork[K, V]) guard(ctx context.Context, s *session, sets []int, keys [][]any, texts []string, hard bool) error {
	alone := map[int32]bool{}
	relied, anew, missed := false, false, false
	for _, i := range sets {
		set := &w.b.sets[i]
		if set.inserts {
			anew = true
			continue
		}
		inserts := map[string]bool{}
		for _, c := range set.changes {
			text := set.text(c.Key)
			if w.rows[text] != nil {
				if c.Delete && w.b.t.m.Versioned() {
					alone[stripeOf(text)], relied = true, true
				}
				continue
			}
			inserts[text] = !c.Delete
			if !c.Delete {
				// Who has found a row where there was none inserts it with nobody beside him:
				// on a key that many write and delete, he could lose again and again.
				again := w.b.taken > 0
				alone[stripeOf(text)] = alone[stripeOf(text)] || again
				relied = relied || again
				continue
			}
			missed = true
			if len(set.texts) > 1 || c.Expect.Kind != lockstep.ExpectAnything {
				alone[stripeOf(text)], relied = true, true
			}
		}
		for _, c := range set.checks {
			if text := set.text(c.Key); w.rows[text] == nil && c.Absent && !inserts[text] {
				alone[stripeOf(text)], relied, missed = true, true, true
			}
		}
	}
	if !relied && !missed {
		return nil
	}
	for stripe := range int32(stripes) {
		if anew { // any may turn out to be its own
			alone[stripe] = alone[stripe] || false
		}
	}
	var absent [][]any
	for i, text := range texts {
		if w.rows[text] == nil {
			absent = append(absent, keys[i])
		}
	}
	var commands []command
	if relied {
		commands = append([]command{w.b.t.shape.guard(alone)}, w.lock(absent, hard)...)
	}
	there := map[string]bool{}
	if missed {
		commands = append(commands, w.b.t.present(absent, there))
	}
	if err := s.run(ctx, append(commands, w.readClock())...); err != nil {
		return err
	}
	for text := range there {
		if w.rows[text] == nil {
			return errReplaced
		}
	}
	return nil
}

// errReplaced: a transaction that deleted a row and inserted it again was waited for. The
// statement that waits finds the row deleted, and does not see the one in its place. A
// deletion that took it for absent would leave it where it is, and there was no moment at
// which it was not there.
var errReplaced = errors.New("the row of a key was replaced while its lock was waited for")

// present notes which of the keys have a row, without waiting for locks.
func (t *Table[K, V]) present(keys [][]any, there map[string]bool) command {
	n := len(t.m.Key)
	return command{sql: t.sql.read, args: t.keyArgs(keys), row: t.row(func(row []driver.Value) error {
		there[mapping.KeyText(row[:n])] = true
		return nil
	})}
}

// guard takes stripes, alone or with others who insert.
func (s *shape) guard(alone map[int32]bool) command {
	var which []int32
	for stripe := range alone {
		which = append(which, stripe)
	}
	slices.Sort(which)
	modes := make([]bool, len(which))
	for i, stripe := range which {
		modes[i] = alone[stripe]
	}
	return command{sql: guardSQL, args: []any{s.class(), which, modes}}
}

// plan decides one set, and adds what it writes to the wave.
func (w *tableWork[K, V]) plan(i int, set *tableSet[K, V]) error {
	m := w.b.t.m
	n := len(m.Key)
	err := m.Admits(set.changes, set.checks, func(k K) []driver.Value {
		if row := w.rows[set.text(k)]; row != nil {
			return row[n:]
		}
		return nil
	})
	if err != nil {
		return err
	}
	out := lockstep.Outcome[V]{Rows: make([]lockstep.Row[V], len(set.changes)), Existed: make([]bool, len(set.changes))}
	writes := make([]*rowWrite, len(set.changes))
	for j, c := range set.changes {
		p := c.Prepared.(*mapping.Prepared)
		r := &rowWrite{set: i, change: j, key: p.Key, text: set.text(c.Key), delete: c.Delete, columns: p.Columns}
		row := w.rows[r.text]
		out.Existed[j] = row != nil
		if m.Versioned() {
			last := w.versions[r.text]
			if row != nil {
				last = max(last, m.VersionOf(row[n:]))
			}
			if r.version, err = kv.NextVersion(last, w.clock); err != nil {
				return invalid("key %v: %w", c.Key, err)
			}
			r.counted = r.version > w.clock
			if r.least = r.version; row != nil {
				r.least = min(r.version, m.VersionOf(row[n:])+1)
			}
		}
		writes[j] = r
	}
	for j, r := range writes {
		w.versions[r.text] = r.version
		if r.delete {
			// No tombstone keeps this version; the floor does while this process runs.
			raise(&w.b.t.floor.Int64, r.version)
			out.Rows[j].Version = lockstep.Version(r.version)
			if !out.Existed[j] {
				continue
			}
		}
		w.wave.add(r, out.Existed[j])
		w.last[r.text] = r
	}
	w.out[i] = out
	return nil
}

// commands are the wave's statements. The rows are read again after all of them: an
// AFTER trigger may have changed what RETURNING has returned.
func (w *tableWork[K, V]) commands() (commands []command) {
	t := w.b.t
	changed := len(w.wave.given)
	change := func(query string, rows []*rowWrite, columns bool) {
		if len(rows) == 0 || query == "" {
			return
		}
		changed += len(rows)
		args := t.keyArgs(keysOf(rows))
		for _, place := range t.sql.set {
			if !columns {
				break
			}
			values := make([]any, len(rows))
			for i, r := range rows {
				if values[i] = r.columns[place]; place == t.m.Version {
					values[i] = r.version
				}
			}
			args = append(args, wire(t.m.Value[place].Type).pack(values))
		}
		commands = append(commands, command{sql: query, args: append(args, int64(len(rows)))})
	}
	if fresh := slices.Concat(w.wave.inserts, w.wave.given); len(fresh) > 0 {
		shared := map[int32]bool{}
		for _, r := range fresh {
			shared[stripeOf(r.text)] = false
		}
		commands = append(commands, t.shape.guard(shared))
	}
	change(t.sql.remove, w.wave.deletes, false)
	change(t.sql.update, w.wave.updates, true)
	change(t.sql.insert, w.wave.inserts, true)
	if len(w.wave.rows) > 0 {
		for _, r := range w.wave.rows {
			delete(w.rows, r.text)
		}
		commands = append(commands, w.read(t.sql.read, keysOf(w.wave.rows)))
		commands = append(commands, w.kept()...)
		commands = append(commands, w.tally.end(changed)...)
	}
	return commands
}

// kept fails if a row that the wave has written is not there: a trigger may have given
// it another key, which nobody has named. It fails, too, if one has not got a higher
// version than it had, with which two writers who have read the same row would both find
// it unchanged. A trigger may count from the row's last version; a new row, which may
// follow one of its key that was deleted, has no last one.
func (w *tableWork[K, V]) kept() []command {
	var there []*rowWrite
	for _, r := range w.wave.rows {
		if !r.delete {
			there = append(there, r)
		}
	}
	if !w.b.t.shape.triggers || len(there) == 0 {
		return nil
	}
	args := w.b.t.keyArgs(keysOf(there))
	if w.b.t.m.Versioned() {
		least := make([]any, len(there))
		for i, r := range there {
			least[i] = r.least
		}
		args = append(args, wireInt.pack(least))
	}
	return []command{{sql: w.b.t.sql.kept, args: append(args, int64(len(there)))}}
}

func keysOf(rows []*rowWrite) [][]any {
	keys := make([][]any, len(rows))
	for i, r := range rows {
		keys[i] = r.key
	}
	return keys
}

// send makes the wave's changes, reads what has become of its rows, and goes on with
// after.
func (w *tableWork[K, V]) send(ctx context.Context, s *session, after ...command) error {
	commands := w.commands()
	if len(commands) == 0 {
		return nil
	}
	w.wrote = true
	if err := s.run(ctx, append(commands, after...)...); err != nil {
		return err
	}
	w.finish()
	return nil
}

// finish tells the outcomes what has become of the wave's rows, which have been read.
func (w *tableWork[K, V]) finish() {
	n := len(w.b.t.m.Key)
	for _, r := range w.wave.rows {
		out, row := &w.out[r.set], w.rows[r.text]
		if row == nil || out.Rows == nil {
			continue
		}
		var err error
		if out.Rows[r.change], err = w.b.t.m.Row(w.b.sets[r.set].changes[r.change].Key, row[n:]); err != nil {
			// The schema accepts what the fields cannot hold: the row is committed, and
			// its readers will say what is wrong with it.
			out.Rows = nil
		}
	}
	w.wave = wave{}
}

// withoutRows are the outcomes as they are known before the last wave has been
// answered: a row that was not read must not be taken for a row that is not there.
func (w *tableWork[K, V]) withoutRows() []lockstep.Outcome[V] {
	out := slices.Clone(w.out)
	for _, r := range w.wave.rows {
		out[r.set].Rows = nil
	}
	return out
}

// removeAll deletes every row, under the lock of the table.
func (w *tableWork[K, V]) removeAll(ctx context.Context, s *session, i int) error {
	t := w.b.t
	left := false
	removed := int64(0)
	commands := []command{{sql: t.sql.removeAll, row: func(scan func(...any) error) error { return scan(&removed) }}, {sql: "SELECT EXISTS (SELECT FROM " + t.shape.sql() + ")",
		row: func(scan func(...any) error) error { return scan(&left) }}}
	highest := int64(0)
	if t.m.Versioned() {
		commands = append([]command{{sql: t.sql.highest, row: func(scan func(...any) error) error { return scan(&highest) }}}, commands...)
	}
	w.wrote = true
	if err := s.run(ctx, commands...); err != nil {
		return err
	}
	if end := w.tally.end(int(removed)); len(end) > 0 {
		if err := s.run(ctx, end...); err != nil {
			return err
		}
	}
	if left {
		return invalid("table %s: a trigger keeps rows from being deleted, or has made new ones", t.shape)
	}
	if _, err := kv.NextVersion(highest, 0); err != nil {
		return invalid("table %s: %w", t.shape, err)
	}
	raise(&t.floor.Int64, highest+1)
	w.clock = max(w.clock, highest+2)
	for text, row := range w.rows {
		w.last[text] = &rowWrite{text: text, key: boundOf(row[:len(t.m.Key)]), delete: true, version: w.clock}
	}
	w.rows = map[string][]driver.Value{}
	w.out[i] = lockstep.Outcome[V]{Rows: []lockstep.Row[V]{}, Existed: []bool{}}
	return nil
}

func boundOf(row []driver.Value) []any {
	key := make([]any, len(row))
	for i, v := range row {
		key[i] = v
	}
	return key
}

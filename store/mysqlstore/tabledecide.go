package mysqlstore

import (
	"context"
	"database/sql/driver"
	"slices"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// keyed is a key and its mapping.KeyText.
type keyed struct {
	key  []any
	text string
}

func keysOf(keys []keyed) [][]any {
	out := make([][]any, len(keys))
	for i, k := range keys {
		out[i] = k.key
	}
	return out
}

// sorted are the keys that some sets name, in the table's order: whoever locks several
// rows locks them in the same one.
func (w *tableWork[K, V]) sorted(sets []int) []keyed {
	bound, texts := w.Named(sets)
	keys := make([]keyed, len(bound))
	for i := range bound {
		keys[i] = keyed{bound[i], texts[i]}
	}
	slices.SortFunc(keys, func(a, b keyed) int {
		return slices.CompareFunc(a.key, b.key, compareKeys)
	})
	return keys
}

// lock reads the rows of all keys under their locks, and the clock after that.
func (w *tableWork[K, V]) lock(ctx context.Context, sets []int) error {
	wait, query := impatience, w.t.sql.lockSkip
	if w.patient {
		wait, query = lockPatience(ctx, w.retries), w.t.sql.lock
	}
	if err := w.a.s.waits(ctx, wait); err != nil {
		return err
	}
	keys := w.sorted(sets)
	if w.serial && !w.everything {
		var err error
		if keys, err = w.spare(ctx, sets, keys); err != nil {
			return err
		}
	}
	if err := w.read(ctx, query, keysOf(keys)); err != nil {
		return err
	}
	if !w.patient {
		held := keys
		for _, pause := range append(slices.Clip(skipPauses), 0) {
			var err error
			if held, err = w.held(ctx, held); err != nil {
				return err
			}
			if len(held) == 0 || pause == 0 {
				break
			}
			if err := sleep(ctx, pause); err != nil {
				return gaveUp(ctx, "waiting for locked rows")
			}
			if err := w.read(ctx, query, keysOf(held)); err != nil {
				return err
			}
		}
		for _, k := range held {
			w.blocked[k.text] = true
		}
	}
	if w.now == 0 {
		err := w.a.s.query(ctx, w.t.sql.clock, nil, func(row []driver.Value) error {
			w.now, _ = integer(row[0])
			return nil
		})
		if err != nil {
			return err
		}
	}
	w.t.db.clock.read(w.now)
	w.Clock = max(w.now, w.t.clock.least())
	return nil
}

// spare leaves out the keys of rows that are not there and that sets insert: their
// insertion says if they have appeared. To look for them under a lock would lock the
// gaps that they go into, and of two transactions that do so each waits for the
// other.
func (w *tableWork[K, V]) spare(ctx context.Context, sets []int, keys []keyed) ([]keyed, error) {
	inserts := map[string]bool{}
	mention := func(text string, inserting bool) {
		before, named := inserts[text]
		inserts[text] = inserting && (before || !named)
	}
	for _, i := range sets {
		set := &w.Sets[i]
		if set.Inserts {
			continue
		}
		own := map[string]bool{}
		for _, c := range set.Changes {
			text := set.Text(c.Key)
			own[text] = !c.Delete && c.Expect.Kind != lockstep.ExpectVersion
			mention(text, own[text])
		}
		for _, c := range set.Checks {
			text := set.Text(c.Key)
			mention(text, own[text] && c.Absent)
		}
	}
	var may []keyed
	for _, k := range keys {
		if inserts[k.text] {
			may = append(may, k)
		}
	}
	there, err := w.there(ctx, may)
	return slices.DeleteFunc(keys, func(k keyed) bool { return inserts[k.text] && !there[k.text] }), err
}

// there are the keys that have rows, locked or not.
func (w *tableWork[K, V]) there(ctx context.Context, keys []keyed) (there map[string]bool, err error) {
	there = map[string]bool{}
	err = w.t.sql.peek.byKeys(keysOf(keys), func(query string, args []any) error {
		return w.a.s.query(ctx, query, args, func(cols []driver.Value) error {
			there[w.keyText(cols)] = true
			return nil
		})
	})
	return there, err
}

// read reads rows into the work's.
func (w *tableWork[K, V]) read(ctx context.Context, query *listText, keys [][]any) error {
	return query.byKeys(keys, func(text string, args []any) error {
		if err := w.a.left(ctx); err != nil {
			return err
		}
		return w.a.s.query(ctx, text, args, func(cols []driver.Value) error {
			row := w.t.normal(cols)
			w.Rows[mapping.KeyText(row[:w.t.sql.keys])] = row
			micros, _ := integer(cols[len(row)])
			w.now = max(w.now, micros)
			return nil
		})
	})
}

// held are those of the keys whose rows are there and were passed over, because
// somebody has locked them.
func (w *tableWork[K, V]) held(ctx context.Context, keys []keyed) (held []keyed, err error) {
	var missing []keyed
	for _, k := range keys {
		if w.Rows[k.text] == nil {
			missing = append(missing, k)
		}
	}
	there, err := w.there(ctx, missing)
	for _, k := range missing {
		if there[k.text] {
			held = append(held, k)
		}
	}
	return held, err
}

func (w *tableWork[K, V]) keyText(cols []driver.Value) string {
	key := make([]driver.Value, w.t.sql.keys)
	for i := range key {
		key[i] = w.t.wires[i].normal(cols[i])
	}
	return mapping.KeyText(key)
}

// absences are the sets of several keys that are decided by the absence of a row that
// nothing inserts: until such a set is committed the row must not appear, or somebody
// could see it and not yet the set's other rows. Where a set has one key, the moment
// when it was looked at is the moment when it took effect; where it inserts the row,
// the primary key says whether it was absent.
func (w *tableWork[K, V]) absences(sets []int) (relying []int) {
	for _, i := range sets {
		if w.reliesOnAbsence(&w.Sets[i]) {
			relying = append(relying, i)
		}
	}
	return relying
}

func (w *tableWork[K, V]) reliesOnAbsence(set *mapping.Set[K, V]) bool {
	if len(set.Keys) < 2 {
		return false
	}
	inserts := map[string]bool{}
	for _, c := range set.Changes {
		text := set.Text(c.Key)
		if inserts[text] = !c.Delete; c.Delete && w.Rows[text] == nil && !w.blocked[text] {
			return true
		}
	}
	for _, c := range set.Checks {
		if text := set.Text(c.Key); c.Absent && w.Rows[text] == nil && !inserts[text] && !w.blocked[text] {
			return true
		}
	}
	return false
}

// flush makes the wave's changes, and reads what has become of its rows: after all of
// them, since a statement's triggers see, and change, only its own row and other
// tables.
func (w *tableWork[K, V]) flush(ctx context.Context) error {
	if w.Wave.Empty() {
		return nil
	}
	w.wrote = true
	q := w.t.sql
	insert, update, remove := q.insertNow, q.updateNow, q.delNow
	if w.patient {
		insert, update, remove = q.insert, q.update, q.remove
	}
	if err := w.unseen(ctx); err != nil {
		return err
	}
	if err := remove.byKeys(keysIn(w.Wave.Deletes), func(query string, args []any) error {
		return w.exec(ctx, query, args)
	}); err != nil {
		return err
	}
	if update != nil {
		if err := w.update(ctx, update); err != nil {
			return err
		}
	}
	if err := w.insert(ctx, insert); err != nil {
		return err
	}
	if err := w.give(ctx); err != nil {
		return err
	}
	var back [][]any
	before := make(map[string][]driver.Value, len(w.Wave.Rows))
	for _, r := range w.Wave.Rows {
		before[r.Text] = w.Rows[r.Text]
		delete(w.Rows, r.Text)
		if !r.Delete {
			back = append(back, r.Key)
		}
	}
	// A locking read: at REPEATABLE READ another would show a row that was written as
	// it had been as it was before others changed it.
	if err := w.read(ctx, q.lock, back); err != nil {
		return err
	}
	for _, r := range w.Wave.Rows {
		if w.Rows[r.Text] == nil && !r.Delete {
			return invalid("table %s: key %v: a trigger has given the row another key", w.t.shape, w.Sets[r.Set].Changes[r.Change].Key)
		}
		if err := w.grown(r, before[r.Text]); err != nil {
			return err
		}
		if !r.Delete {
			// What the server has made of it (JSON has a form of its own on MySQL) is what
			// a lost commit is known by.
			r.Columns = boundOf(w.Rows[r.Text][len(w.M.Key):])
		}
	}
	fresh := w.Wave.Inserts
	w.Written()
	for _, r := range fresh {
		if w.M.Versioned() && r.Version <= w.t.removed.of(r.Text).Load() {
			return errAppeared // and has gone again
		}
	}
	return nil
}

// grown refuses a write whose version a trigger has kept from growing: two writers who have
// read the same row would both find it unchanged. A trigger may count from the row's last
// version; a new row, which may follow one of its key that was deleted, has no last one.
func (w *tableWork[K, V]) grown(r *mapping.Write, before []driver.Value) error {
	if r.Delete || !w.M.Versioned() {
		return nil
	}
	n := len(w.M.Key)
	least := r.Version
	if before != nil {
		least = min(least, w.M.VersionOf(before[n:])+1)
	}
	if got := w.M.VersionOf(w.Rows[r.Text][n:]); got < least {
		return invalid("table %s: key %v: a trigger has given the row the version %d, and it must be at least %d", w.t.shape, w.Sets[r.Set].Changes[r.Change].Key, got, least)
	}
	return nil
}

func (w *tableWork[K, V]) update(ctx context.Context, text *listText) error {
	return text.byRows(w.Wave.Updates, w.t.db.statementRoom(), true, func(query string, rows []*mapping.Write) error {
		return w.exec(ctx, query, w.updateArgs(rows))
	})
}

func (w *tableWork[K, V]) exec(ctx context.Context, query string, args []any) error {
	if err := w.a.left(ctx); err != nil {
		return err
	}
	_, _, err := w.a.s.exec(ctx, query, args...)
	return err
}

// value is what a column is written as.
func (w *tableWork[K, V]) value(r *mapping.Write, place int) any {
	if place == w.M.Version {
		return r.Version
	}
	return r.Columns[place]
}

func (w *tableWork[K, V]) insertArgs(rows []*mapping.Write) (args []any) {
	for _, r := range rows {
		args = append(args, r.Key...)
		for _, place := range w.t.sql.set {
			args = append(args, w.value(r, place))
		}
	}
	return args
}

func (w *tableWork[K, V]) updateArgs(rows []*mapping.Write) (args []any) {
	for _, place := range w.t.sql.set {
		for _, r := range rows {
			if len(rows) > 1 {
				args = append(args, r.Key...)
			}
			args = append(args, w.value(r, place))
		}
	}
	for _, r := range rows {
		args = append(args, r.Key...)
	}
	return args
}

// insert makes the wave's insertions. One that collides with a row of its key, which
// somebody has inserted since it was looked for, is errAppeared; with a row that
// another unique index keeps apart, the server's error. The message of the server would
// tell, in its language.
func (w *tableWork[K, V]) insert(ctx context.Context, text *listText) error {
	return text.byRows(w.Wave.Inserts, w.t.db.statementRoom(), false, func(query string, rows []*mapping.Write) error {
		err := w.exec(ctx, query, w.insertArgs(rows))
		if number(err) != errDuplicate {
			return err
		}
		// A collision leaves the row locked for sharing, for us and for everybody else who
		// has met it: no other lock could be had.
		there := false
		if lerr := w.t.sql.peekShared.byKeys(keysIn(rows), func(query string, args []any) error {
			return w.a.s.query(ctx, query, args, func([]driver.Value) error { there = true; return nil })
		}); lerr != nil {
			return lerr
		}
		if there {
			return errAppeared
		}
		return err
	})
}

func keysIn(rows []*mapping.Write) [][]any {
	keys := make([][]any, len(rows))
	for i, r := range rows {
		keys[i] = r.Key
	}
	return keys
}

// deleteAll deletes every row, where no row can appear behind its back.
func (w *tableWork[K, V]) deleteAll(ctx context.Context, i int) error {
	if !w.serial {
		return errSerial
	}
	var n, highest int64
	if err := w.a.s.query(ctx, w.t.sql.count, nil, func(row []driver.Value) error {
		n, _ = integer(row[0])
		highest, _ = integer(row[1])
		return nil
	}); err != nil {
		return err
	}
	if _, err := kv.NextVersion(highest, 0); err != nil {
		return invalid("table %s: %w", w.t.shape, err)
	}
	w.t.clock.raise(highest + 1)
	w.Clock = max(w.Clock, highest+2)
	w.Out[i] = lockstep.Outcome[V]{Rows: []lockstep.Row[V]{}, Existed: []bool{}}
	if n == 0 {
		return nil
	}
	// A few rows are there to tell, should the reply be lost.
	if err := w.a.s.query(ctx, w.t.sql.witnesses, nil, func(cols []driver.Value) error {
		row := w.t.normal(cols)
		text := mapping.KeyText(row[:w.t.sql.keys])
		w.Rows[text] = row
		if w.Last[text] == nil {
			w.First[text] = row
		}
		return nil
	}); err != nil {
		return err
	}
	if err := w.unseenOfAll(ctx); err != nil {
		return err
	}
	w.wrote = true
	if err := w.exec(ctx, w.t.sql.removeAll, nil); err != nil {
		return err
	}
	for text, row := range w.Rows {
		w.Last[text] = &mapping.Write{Text: text, Key: boundOf(row[:w.t.sql.keys]), Delete: true, Version: w.Clock}
	}
	clear(w.Rows)
	return nil
}

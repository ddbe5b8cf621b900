package mysqlstore

import (
	"slices"
	"strings"
	"sync"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// tableSQL are the texts of what is run on one mapped table. Those with lists exist in
// a few lengths, each made when it is first needed.
//
// What names rows by their keys forces the primary index: with another one, or none,
// it would lock, or wait for, rows that nobody has named. Rows are named one by one,
// (a = ? AND b = ?) OR …: MariaDB finds (a, b) IN (…) by reading everything.
type tableSQL struct {
	read, lock, lockSkip         *listText // by keys
	peek, peekShared             *listText // by keys; the keys alone
	insert, update, remove       *listText // by rows; update is nil where nothing is written
	insertNow, updateNow, delNow *listText // which do not wait for a lock
	give, giveNow                string    // a row without its key; MariaDB returns that
	scanFirst, scanNext          string
	count, removeAll, witnesses  string
	clock                        string
	returns                      bool  // give does
	set                          []int // the places in Value of the columns that are written
	keys                         int   // columns of the key
}

// listText is a statement with a list, by its length.
type listText struct {
	sizes []int
	build func(n int) string
	once  []sync.Once
	made  []string
}

func newListText(sizes []int, build func(n int) string) *listText {
	return &listText{sizes: sizes, build: build, once: make([]sync.Once, len(sizes)), made: make([]string, len(sizes))}
}

func (l *listText) text(i int) string {
	l.once[i].Do(func() { l.made[i] = l.build(l.sizes[i]) })
	return l.made[i]
}

// updateSizes are the lengths of an UPDATE's list. Each column of it looks the row up
// in the list, so that longer ones would cost more than another statement does.
var updateSizes = []int{1, 2, 4, 8, 16, 32}

// maxParams is how many parameters a statement may have.
const maxParams = 60000

func newTableSQL(s *shape, keys, values []mapping.Field, version int, mariadb bool) *tableSQL {
	table := s.sql()
	from := " FROM " + table + " FORCE INDEX (PRIMARY)"
	var names, reads, into []string
	for _, f := range keys {
		names = append(names, quote(f.Column))
		reads = append(reads, s.column(f.Column).reads())
	}
	into = slices.Clone(names)
	q := &tableSQL{keys: len(keys), returns: mariadb}
	for i, f := range values {
		reads = append(reads, s.column(f.Column).reads())
		if f.Written || i == version {
			into = append(into, quote(f.Column))
			q.set = append(q.set, i)
		}
	}
	one := strings.Join(names, " = ? AND ") + " = ?"
	where := func(n int) string {
		if len(names) == 1 {
			return names[0] + " IN (?" + strings.Repeat(",?", n-1) + ")"
		}
		return "(" + one + ")" + strings.Repeat(" OR ("+one+")", n-1)
	}
	order := " ORDER BY " + strings.Join(names, ", ")
	list := "SELECT " + strings.Join(reads, ", ") + ", "
	keyed := func(before, after string) *listText {
		return newListText(keySizes, func(n int) string { return before + " WHERE " + where(n) + after })
	}
	q.read = keyed(list+"0"+from, "")
	q.lock = keyed(list+clockSQL+from, order+" FOR UPDATE")
	q.lockSkip = keyed(list+clockSQL+from, order+" FOR UPDATE SKIP LOCKED")
	q.peek = keyed("SELECT "+strings.Join(names, ", ")+from, "")
	q.peekShared = keyed("SELECT "+strings.Join(names, ", ")+from, " LOCK IN SHARE MODE")
	q.clock = "SELECT " + clockSQL

	rows := make([]int, 0, len(rowSizes))
	for _, n := range rowSizes {
		if n == 1 || n*len(into) <= maxParams {
			rows = append(rows, n)
		}
	}
	// A new row's version is made when it is made: those of a row of its key that has
	// come and gone since the clock was read are lower.
	marks := slices.Repeat([]string{"?"}, len(into))
	for i, place := range q.set {
		if place == version {
			marks[len(keys)+i] = "GREATEST(?, " + clockSQL + ")"
		} else if values[place].Default != "" {
			marks[len(keys)+i] = "COALESCE(?, " + values[place].Default + ")"
		}
	}
	row := "(" + strings.Join(marks, ",") + ")"
	insert := func(n int) string {
		return "INSERT INTO " + table + " (" + strings.Join(into, ", ") + ") VALUES " + row + strings.Repeat(","+row, n-1)
	}
	// The columns of the key come first in all lists, and the version's column is
	// among the values.
	update := func(n int) string {
		var sets []string
		for _, name := range into[len(keys):] {
			if n == 1 {
				sets = append(sets, name+" = ?")
			} else {
				sets = append(sets, name+" = CASE"+strings.Repeat(" WHEN "+one+" THEN ?", n)+" END")
			}
		}
		return "UPDATE " + table + " FORCE INDEX (PRIMARY) SET " + strings.Join(sets, ", ") + " WHERE " + where(n)
	}
	remove := func(n int) string { return "DELETE " + table + from + " WHERE " + where(n) }
	now := func(build func(n int) string) func(n int) string {
		if !mariadb {
			return build
		}
		return func(n int) string { return "SET STATEMENT innodb_lock_wait_timeout=0 FOR " + build(n) }
	}
	q.insert, q.insertNow = newListText(rows, insert), newListText(rows, now(insert))
	give := func(int) string {
		own := into[len(keys):]
		text := "INSERT INTO " + table + " (" + strings.Join(own, ", ") + ") VALUES (" + strings.Join(marks[len(keys):], ",") + ")"
		if mariadb {
			text += " RETURNING " + reads[0]
		}
		return text
	}
	q.give, q.giveNow = give(1), now(give)(1)
	q.remove, q.delNow = newListText(keySizes, remove), newListText(keySizes, now(remove))
	if len(q.set) > 0 {
		q.update, q.updateNow = newListText(updateSizes, update), newListText(updateSizes, now(update))
	}

	q.scanFirst = list + "0" + from + order + " LIMIT ?"
	q.scanNext = list + "0" + from + " WHERE " + beyond(names) + order + " LIMIT ?"
	q.witnesses = list + "0" + from + order + " LIMIT 4 FOR UPDATE"
	highest := "0"
	if version >= 0 {
		highest = "COALESCE(MAX(" + quote(values[version].Column) + "), 0)"
	}
	q.count = "SELECT COUNT(*), " + highest + from + " FOR UPDATE"
	q.removeAll = "DELETE FROM " + table
	return q
}

// beyond is (a, b) > (?, ?), which neither server finds by the index: a > ? OR a = ?
// AND b > ?.
func beyond(names []string) string {
	var alternatives []string
	for i, name := range names {
		same := ""
		for _, before := range names[:i] {
			same += before + " = ? AND "
		}
		alternatives = append(alternatives, "("+same+name+" > ?)")
	}
	return strings.Join(alternatives, " OR ")
}

// afterArgs are the parameters of beyond.
func afterArgs(key []any) (args []any) {
	for i := range key {
		args = append(args, key[:i+1]...)
	}
	return args
}

// byKeys calls f with the keys, chunk by chunk, and the statement for each; a list is
// padded with its last key.
func (l *listText) byKeys(keys [][]any, f func(query string, args []any) error) error {
	for len(keys) > 0 {
		i, _ := slices.BinarySearch(l.sizes, len(keys))
		i = min(i, len(l.sizes)-1)
		n := min(len(keys), l.sizes[i])
		var args []any
		for j := range l.sizes[i] {
			args = append(args, keys[min(j, n-1)]...)
		}
		if err := f(l.text(i), args); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// byRows calls f with the rows, chunk by chunk, and the statement for each. A chunk is
// as long as some statement's list, unless padded: then it may be shorter.
func (l *listText) byRows(rows []*mapping.Write, most int, padded bool, f func(query string, rows []*mapping.Write) error) error {
	for len(rows) > 0 {
		n, bytes := 0, 0
		for n < min(len(rows), l.sizes[len(l.sizes)-1]) {
			size := writeBytes(rows[n])
			if n > 0 && bytes+size > most {
				break
			}
			bytes += size
			n++
		}
		i, exact := slices.BinarySearch(l.sizes, n)
		chunk := rows[:n:n]
		if !exact && padded && bytes+(l.sizes[i]-n)*writeBytes(rows[n-1]) <= most {
			for len(chunk) < l.sizes[i] {
				chunk = append(chunk, rows[n-1])
			}
		} else if !exact {
			i--
			n = l.sizes[i]
			chunk = rows[:n]
		}
		if err := f(l.text(i), chunk); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// writeBytes is about what a row takes of a statement.
func writeBytes(r *mapping.Write) (n int) {
	for _, v := range r.Key {
		n += keyLen(v)
	}
	for _, v := range r.Columns {
		n += keyLen(v)
	}
	return n
}

package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

type thing struct {
	N int `db:"n"`
}

// watching is a table things (id, n) that is watched, and what its watcher tells.
type watching struct {
	t     *testing.T
	pool  *sql.DB
	db    *Database
	table *Table[int, thing]
	told  chan lockstep.Event[int]
	ended chan error
}

func watchThings(t *testing.T) *watching {
	t.Helper()
	w := &watching{t: t, told: make(chan lockstep.Event[int], 1000)}
	var err error
	if w.pool, err = sql.Open("mysql", dbtest.MariaDB(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.pool.Close() })
	w.run("CREATE TABLE things (id INT PRIMARY KEY, n INT NOT NULL)")
	w.run("INSERT INTO things SELECT seq, 0 FROM " + Numbers(1, 99))
	if w.db, err = OpenDatabase(t.Context(), w.pool, DatabaseOptions{WatchInterval: 5 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.db.Close() })
	w.db.silence = 4 * tellPatience // the machine may be busy with other tests
	w.db.printEvery = 0
	if err := w.db.InstallWatch(t.Context(), "things", WatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.open()
	return w
}

func (w *watching) open() {
	w.t.Helper()
	var err error
	if w.table, err = NewTableIn[int, thing](w.t.Context(), w.db, "things", TableOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// start runs the watcher, and waits until it has begun.
func (w *watching) start() {
	w.t.Helper()
	w.ended = make(chan error, 1)
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(cancel)
	go func() { w.ended <- w.table.watch(ctx, func(e lockstep.Event[int]) { w.told <- e }) }()
	if e := w.next(); e.All || len(e.Changed) > 0 {
		w.t.Fatalf("the first event is %+v", e)
	}
}

const tellPatience = 30 * time.Second

func (w *watching) next() lockstep.Event[int] {
	w.t.Helper()
	select {
	case e := <-w.told:
		return e
	case err := <-w.ended:
		w.t.Fatalf("the watcher has ended: %v", err)
	case <-time.After(tellPatience):
		w.t.Fatal("nothing was told")
	}
	return lockstep.Event[int]{}
}

// tells checks which keys are told next, in whatever order and however often.
func (w *watching) tells(keys ...int) {
	w.t.Helper()
	told := map[int]bool{}
	for len(told) < len(keys) {
		for _, c := range w.next().Changed {
			if told[c.Key] = true; !slices.Contains(keys, c.Key) {
				w.t.Errorf("key %d was told, want %v", c.Key, keys)
			}
		}
	}
}

// ends waits for the watcher's end.
func (w *watching) ends(want error) {
	w.t.Helper()
	for {
		select {
		case <-w.told:
			continue
		case err := <-w.ended:
			if !errors.Is(err, want) {
				w.t.Errorf("the watcher has ended with %v, want %v", err, want)
			}
		case <-time.After(tellPatience):
			w.t.Fatal("the watcher has not ended")
		}
		return
	}
}

func (w *watching) run(query string, args ...any) {
	w.t.Helper()
	if _, err := w.pool.ExecContext(w.t.Context(), query, args...); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
}

func (w *watching) number(query string) (n int) {
	w.t.Helper()
	if err := w.pool.QueryRowContext(w.t.Context(), query).Scan(&n); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// begin is a transaction of another client.
func (w *watching) begin(statements ...string) *sql.Tx {
	w.t.Helper()
	return w.beginAt(sql.LevelDefault, statements...)
}

func (w *watching) beginAt(level sql.IsolationLevel, statements ...string) *sql.Tx {
	w.t.Helper()
	tx, err := w.pool.BeginTx(w.t.Context(), &sql.TxOptions{Isolation: level})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { tx.Rollback() })
	for _, s := range statements {
		if _, err := tx.Exec(s); err != nil {
			w.t.Fatalf("%s: %v", s, err)
		}
	}
	return tx
}

func (w *watching) commit(tx *sql.Tx) {
	w.t.Helper()
	if err := tx.Commit(); err != nil {
		w.t.Fatal(err)
	}
}

// A transaction that was begun first and is committed last delays nobody, and nothing
// of it is lost, of which numbers were passed long ago, and of which some were rolled
// back. Nor is one that was open already when the watch began.
func TestChangesAreToldInTheOrderOfTheirCommits(t *testing.T) {
	w := watchThings(t)
	before := w.begin("UPDATE things SET n = 1 WHERE id = 4")
	w.run("UPDATE things SET n = 1 WHERE id = 5")
	w.start()
	// At REPEATABLE READ, what is rolled back leaves the end of the log locked on MySQL.
	tx := w.beginAt(Of(t, sql.LevelDefault, sql.LevelReadCommitted), "UPDATE things SET n = 1 WHERE id = 1", "SAVEPOINT a", "UPDATE things SET n = 1 WHERE id = 2", "ROLLBACK TO a",
		"SAVEPOINT b", "UPDATE things SET n = 1 WHERE id = 3", "RELEASE SAVEPOINT b")
	for key := 10; key < 20; key++ {
		w.run("UPDATE things SET n = 1 WHERE id = ?", key)
		w.tells(key)
	}
	w.commit(tx)
	w.tells(1, 3)
	w.commit(before)
	w.tells(4)
	w.run("UPDATE things SET n = 1 WHERE id = 20")
	w.tells(20)
}

// The number of a transaction that was rolled back is taken away, and a statement that
// had drawn it and comes late is given another one: nothing is lost, and nobody waits.
func TestANumberThatWasTakenAwayIsDrawnAgain(t *testing.T) {
	w := watchThings(t)
	w.start()
	w.begin("UPDATE things SET n = 1 WHERE id = 1").Rollback()
	gone := w.number("SELECT MAX(id) + 1 FROM lockstep_changes")
	w.run("UPDATE things SET n = 1 WHERE id = 2")
	w.tells(2)
	// Polled, since the server tells nobody: the watcher waits a second by its clock.
	taken := fmt.Sprintf("SELECT COUNT(*) FROM lockstep_changes WHERE id = %d AND tbl IS NULL", gone)
	for end := time.Now().Add(30 * time.Second); w.number(taken) == 0; <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 30 s number %d has not been taken away", gone)
		}
	}
	c, err := w.pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	key := 100
	late := func(statement string, keys ...int) {
		t.Helper()
		for _, query := range []string{fmt.Sprintf("SET insert_id = %d", gone), statement} {
			if _, err := c.ExecContext(t.Context(), query); err != nil {
				t.Errorf("%s: %v", query, err)
				return
			}
		}
		w.tells(keys...)
		key++
	}
	late("UPDATE things SET n = 2 WHERE id IN (3, 4)", 3, 4)
	late("UPDATE IGNORE things SET n = 2 WHERE id = 5", 5)
	late("UPDATE things SET id = 1006 WHERE id = 6", 6, 1006)
	late("DELETE FROM things WHERE id = 7", 7)
	late("INSERT INTO things VALUES (7, 0), (101, 0)", 7, 101)
	late("INSERT IGNORE INTO things VALUES (7, 0), (102, 0)", 102)
	late("INSERT INTO things VALUES (7, 0), (103, 0) ON DUPLICATE KEY UPDATE n = 9", 7, 103)
	late("REPLACE INTO things VALUES (7, 0), (104, 0)", 7, 104)
	late("INSERT INTO things SELECT seq, 0 FROM "+Numbers(200, 202), 200, 201, 202)
	if n := w.number(fmt.Sprintf("SELECT COUNT(*) FROM lockstep_changes WHERE id = %d AND tbl IS NULL", gone)); n != 1 {
		t.Error("a number that was taken away was used")
	}
	// It is of use to show something only if the number was drawn at all.
	if _, err := c.ExecContext(t.Context(), "SET insert_id = 1000000"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecContext(t.Context(), "UPDATE things SET n = 7 WHERE id = 8"); err != nil {
		t.Fatal(err)
	}
	if n := w.number("SELECT MAX(id) FROM lockstep_changes"); n != 1000000 {
		t.Errorf("the number of a change is %d, which was to be a million", n)
	}
	w.tells(8)
	w.run("UPDATE things SET n = 8 WHERE id = 9")
	w.tells(9)
}

// hourglass is a watcher that looks when it is told to, at a time that is given.
type hourglass struct {
	*watching
	w   *watcher[int]
	now time.Time
	saw map[int]int // how often a key was told
}

func (w *watching) hourglass() *hourglass {
	w.t.Helper()
	l := &hourglass{watching: w, now: time.Now(), saw: map[int]int{}}
	l.w = &watcher[int]{db: w.db, log: w.table.outside.log, key: w.table.keyOf, check: w.table.checkActions, f: func(e lockstep.Event[int]) {
		for _, c := range e.Changed {
			l.saw[c.Key]++
		}
	}}
	var err error
	if l.w.s, err = w.db.open(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(l.w.s.close)
	if err := l.w.begin(w.t.Context(), func() {}); err != nil {
		w.t.Fatal(err)
	}
	return l
}

// look looks after a while, and checks what that has told, each once.
func (l *hourglass) look(after time.Duration, keys ...int) {
	l.t.Helper()
	l.now = l.now.Add(after)
	clear(l.saw)
	if err := l.w.lookAt(l.t.Context(), func() {}, l.now); err != nil {
		l.t.Fatal(err)
	}
	for _, key := range keys {
		if l.saw[key] != 1 {
			l.t.Errorf("key %d was told %d times", key, l.saw[key])
		}
	}
	if len(l.saw) != len(keys) {
		l.t.Errorf("%d keys were told, want %d", len(l.saw), len(keys))
	}
}

// Beside long transactions others are committed by the hundred. Their numbers are put
// together, and told when they are committed, whatever was rolled back meanwhile.
func TestLongTransactionsBesideManyOthers(t *testing.T) {
	w := watchThings(t)
	l := w.hourglass()
	in := func(tx *sql.Tx, statement string, args ...any) {
		t.Helper()
		if _, err := tx.Exec(fmt.Sprintf(statement, args...)); err != nil {
			t.Fatal(err)
		}
	}
	one, two, undone := w.begin(), w.begin("SAVEPOINT a"), w.begin()
	var others, ones, twos []int
	mix := func(from, to int) {
		for key := from; key < to; key++ {
			in(one, "INSERT INTO things VALUES (%d, 0)", 1000+key)
			in(two, "INSERT INTO things VALUES (%d, 0)", 2000+key)
			in(undone, "INSERT INTO things VALUES (%d, 0)", 3000+key)
			w.run("INSERT INTO things VALUES (?, 0)", 4000+key)
			ones, twos, others = append(ones, 1000+key), append(twos, 2000+key), append(others, 4000+key)
		}
	}
	mix(0, 100)
	l.look(0, others...)
	l.look(gapGrace) // which asks whose the numbers are
	if n, f := len(l.w.gaps.spans), len(l.w.gaps.flights); n > 3 || f != 3 {
		t.Errorf("there are %d gaps and %d flights beside three transactions", n, f)
	}
	others = nil
	mix(100, 200)
	l.look(gapGrace, others...)
	l.look(gapGrace)
	if n, f := len(l.w.gaps.spans), len(l.w.gaps.flights); n > 3 || f != 3 {
		t.Errorf("there are %d gaps and %d flights beside three transactions", n, f)
	}
	// The first number of a flight goes, and others of it stay.
	in(two, "ROLLBACK TO SAVEPOINT a")
	in(two, "INSERT INTO things VALUES (5000, 0)")
	if err := undone.Rollback(); err != nil {
		t.Fatal(err)
	}
	l.look(0)
	w.commit(one)
	l.look(0, ones...)
	w.commit(two)
	l.look(0, 5000)
	for i := 0; l.w.gaps.size() > 0; i++ {
		if i == 20 {
			t.Fatalf("%d gaps stay", l.w.gaps.size())
		}
		l.look(gapPause)
	}
	w.run("INSERT INTO things VALUES (6000, 0)")
	l.look(0, 6000)
}

// What a program does by itself in a transaction that it shares with a cache is not
// the cache's, which does not know of it. A store's own changes are told to others.
func TestTheCallersOwnStatementsAreTold(t *testing.T) {
	w := watchThings(t)
	w.run("CREATE TABLE plain (id INT PRIMARY KEY, n INT NOT NULL)")
	w.run("CREATE TABLE elsewhere (id INT PRIMARY KEY, n INT NOT NULL)")
	w.run("CREATE TRIGGER also AFTER INSERT ON elsewhere FOR EACH ROW UPDATE things SET n = n + 1 WHERE id = NEW.id")
	w.start()
	put := func(key int) lockstep.ChangeSet[int, thing] {
		return lockstep.ChangeSet[int, thing]{Changes: []lockstep.Change[int, thing]{{Key: key, Value: thing{7}}}}
	}
	caps := w.table.Capabilities()
	apply := func(table lockstep.Capabilities[int, thing], tx lockstep.Txn, key int) {
		t.Helper()
		if out, err := table.Apply(t.Context(), tx, put(key)); err != nil || out.Err != nil {
			t.Fatal(err, out.Err)
		}
	}
	tx, err := caps.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	apply(caps, tx, 1)
	mine, err := lend(tx)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []int{1, 101} {
		if _, err := mine.Exec("UPDATE things SET n = 1 WHERE id = ?", 10+key); err != nil {
			t.Fatal(err)
		}
		apply(caps, tx, key)
	}
	if _, err := mine.Exec("UPDATE things SET n = 1 WHERE id = 13"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.tells(11, 13)

	// A session that was this store's is another's: what that one's statements do to our
	// table is not ours.
	plain, err := NewTableIn[int, thing](t.Context(), w.db, "plain", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	commit := func(s *Table[int, thing], key int) {
		t.Helper()
		if out, err := s.Commit(t.Context(), []lockstep.ChangeSet[int, thing]{put(key)}); err != nil || out[0].Err != nil {
			t.Fatal(err, out)
		}
	}
	commit(w.table, 20)
	commit(plain, 20)
	other, err := OpenDatabase(t.Context(), w.pool, DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	elsewhere, err := NewTableIn[int, thing](t.Context(), other, "elsewhere", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	commit(elsewhere, 21)
	w.tells(21)
	second, err := NewTableIn[int, thing](t.Context(), w.db, "things", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	commit(w.table, 22)
	commit(second, 23)
	w.tells(23)

	// A trigger may give a row another key than the store has named. The watcher does not
	// trust its own any more, and tells all.
	w.run("CREATE TRIGGER judge BEFORE UPDATE ON things FOR EACH ROW SET NEW.n = NEW.n + 1")
	w.ends(errAltered)
	w.start()
	commit(w.table, 24)
	w.tells(24)
}

// A watcher that was away for longer than changes are kept says so.
func TestRemovedChangesAreNotMissedInSilence(t *testing.T) {
	w := watchThings(t)
	w.start()
	rows := func() int { return w.number("SELECT COUNT(*) FROM lockstep_changes") }
	sweep := func() { w.db.keeper.sweepAll() }
	purge := func() {
		t.Helper()
		w.run("UPDATE lockstep_horizon SET marked_at = marked_at - 3700000000")
		sweep()
	}
	w.run("UPDATE things SET n = 1")
	w.run("INSERT INTO things SELECT seq, 0 FROM " + Numbers(100, 5000))
	for n := 0; n < 99+4901; {
		n += len(w.next().Changed)
	}
	first := rows()
	sweep() // which notes what is there
	sweep() // which settles that
	purge() // which marks it
	if n := rows(); n != first {
		t.Errorf("%d rows of %d are left, and none is old", n, first)
	}
	w.run("UPDATE things SET n = 2 WHERE id = 5") // which shows that the watcher has looked since
	w.tells(5)
	purge()
	if n := rows(); n > 3 {
		t.Errorf("%d rows are left", n)
	}
	// The watcher had seen them all, and goes on.
	w.run("UPDATE things SET n = 2 WHERE id = 1")
	w.tells(1)

	// A transaction that is under way keeps what has come since.
	tx := w.begin("UPDATE things SET n = 1 WHERE id = 2")
	for key := 11; key < 16; key++ {
		purge()
		w.run("UPDATE things SET n = 2 WHERE id = ?", key)
		w.tells(key)
	}
	w.commit(tx)
	w.tells(2)
	for range 3 {
		purge()
	}
	if n := rows(); n > 3 {
		t.Errorf("%d rows are left", n)
	}
	// One that was rolled back keeps nothing, though nobody watches who could find out.
	w.begin("UPDATE things SET n = 1").Rollback()
	w.run("UPDATE things SET n = 3 WHERE id = 3")
	w.tells(3)
	for range 4 {
		purge()
	}
	if n, settled := rows(), w.number("SELECT settled FROM lockstep_horizon"); n > 3 || settled < 5000 {
		t.Errorf("%d rows are left, and all up to %d is settled", n, settled)
	}

	// Somebody removes what nobody has read.
	w.run("UPDATE lockstep_horizon SET purged = 1000000000")
	w.ends(errOutrun)
	w.run("UPDATE lockstep_horizon SET purged = 0")
	w.start()
	w.run("UPDATE things SET n = 3 WHERE id = 4")
	w.tells(4)
	w.run("TRUNCATE lockstep_changes")
	w.run("UPDATE things SET n = 4 WHERE id = 4")
	w.ends(errAltered)
	if err := w.table.watch(t.Context(), func(lockstep.Event[int]) { t.Error("a watch of an emptied log has begun") }); !errors.Is(err, errEmptied) {
		t.Error(err)
	}
	if err := w.db.InstallWatch(t.Context(), "things", WatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.run("UPDATE things SET n = 5 WHERE id = 4")
	w.tells(4)
}

func TestAWatchThatIsChangedEnds(t *testing.T) {
	w := watchThings(t)
	w.start()
	for name, statements := range map[string][]string{
		"replaced": {"DROP TRIGGER lockstep_watch_update_things", "CREATE TRIGGER lockstep_watch_update_things AFTER UPDATE ON things FOR EACH ROW SET @nothing = 1"},
		"dropped":  {"DROP TRIGGER lockstep_watch_insert_things"},
		"renamed":  {"RENAME TABLE things TO others", "CREATE TABLE things (id INT PRIMARY KEY, n INT NOT NULL)"},
		"unlisted": {"DROP TRIGGER lockstep_watch_delete_things", "DELETE FROM lockstep_watched"},
	} {
		for _, s := range statements {
			w.run(s)
		}
		w.ends(errAltered)
		err := w.table.watch(t.Context(), func(lockstep.Event[int]) { t.Error("a watch that is not whole has begun") })
		if !errors.Is(err, lockstep.ErrUnavailable) || !strings.Contains(err.Error(), "not whole") {
			t.Errorf("%s: %v", name, err)
		}
		_, err = NewTableIn[int, thing](t.Context(), w.db, "things", TableOptions{})
		if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "not whole") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "renamed" {
			w.run("DROP TABLE things")
			w.run("RENAME TABLE others TO things")
		}
		if err := w.db.InstallWatch(t.Context(), "things", WatchOptions{}); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.run("UPDATE things SET n = n + 1 WHERE id = 1")
		w.tells(1)
	}
	if err := w.db.RemoveWatch(t.Context(), "things"); err != nil {
		t.Fatal(err)
	}
	if n := w.number("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'lockstep%'"); n != 0 {
		t.Errorf("%d tables are left", n)
	}
	if n := w.number("SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()"); n != 0 {
		t.Errorf("%d triggers are left", n)
	}
	w.ends(lockstep.ErrUnavailable)
	w.open()
	if w.table.Capabilities().Watch != nil {
		t.Error("a table whose watch was removed is watched")
	}
	w.run("UPDATE things SET n = 9")

	if err := w.db.InstallWatch(t.Context(), "things", WatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.start()
	w.run("DROP TABLE things")
	w.ends(errAltered)
	if err := w.db.RemoveWatch(t.Context(), "things"); err != nil {
		t.Error(err)
	}
}

// A session that is of another server, after a failover perhaps, ends the watcher of
// the old one.
func TestAnotherServerEndsTheWatch(t *testing.T) {
	w := watchThings(t)
	w.start()
	w.db.which.Met(serverID{server: "another"})
	w.ends(errOtherServer)
}

func TestClosingTheDatabaseEndsTheWatch(t *testing.T) {
	w := watchThings(t)
	w.start()
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	w.ends(lockstep.ErrClosed)
}

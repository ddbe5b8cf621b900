package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

type thing struct {
	N int `db:"n"`
}

// watching is a table things (id, n) that is watched, and what its watcher tells.
type watching struct {
	t     *testing.T
	pool  *pgxpool.Pool
	db    *Database
	table *Table[int, thing]
	told  chan lockstep.Event[int]
	ended chan error
}

func watchThings(t *testing.T, opts DatabaseOptions) *watching {
	t.Helper()
	w := &watching{t: t, told: make(chan lockstep.Event[int], 1000)}
	var err error
	if w.pool, err = pgxpool.New(t.Context(), dbtest.Postgres(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
	w.run(`CREATE TABLE things (id int PRIMARY KEY, n int NOT NULL)`)
	w.run(`INSERT INTO things SELECT generate_series(1, 99), 0`)
	if w.db, err = OpenDatabase(t.Context(), w.pool, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.db.Close() })
	w.db.silence = 4 * tellPatience // the machine may be busy with other tests
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
	go func() { w.ended <- w.table.watchChanges(ctx, func(e lockstep.Event[int]) { w.told <- e }) }()
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
	if _, err := w.pool.Exec(w.t.Context(), query, args...); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
}

// A transaction that was begun first and is committed last delays nobody, and nothing
// of it is lost.
func TestChangesAreToldInTheOrderOfTheirCommits(t *testing.T) {
	w := watchThings(t, DatabaseOptions{})
	w.start()
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `UPDATE things SET n = 1 WHERE id = 1; SAVEPOINT a; UPDATE things SET n = 1 WHERE id = 2; ROLLBACK TO a; SAVEPOINT b; UPDATE things SET n = 1 WHERE id = 3; RELEASE b`); err != nil {
		t.Fatal(err)
	}
	for key := 10; key < 20; key++ {
		w.run(`UPDATE things SET n = 1 WHERE id = $1`, key)
		w.tells(key)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.tells(1, 3)
	w.run(`UPDATE things SET n = 1 WHERE id = 20`)
	w.tells(20)
}

// What a program does by itself in a transaction that it shares with a cache is not
// the cache's, which does not know of it; nor is what a trigger does in turn.
func TestTheCallersOwnStatementsAreTold(t *testing.T) {
	w := watchThings(t, DatabaseOptions{})
	w.start()
	put := func(key int) lockstep.ChangeSet[int, thing] {
		return lockstep.ChangeSet[int, thing]{Changes: []lockstep.Change[int, thing]{{Key: key, Value: thing{7}}}}
	}
	caps := w.table.Capabilities()
	share := func() {
		t.Helper()
		tx, err := caps.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		mine := func(key int) {
			t.Helper()
			if err := tx.(*txn).a.session.run(t.Context(), command{sql: fmt.Sprintf(`UPDATE things SET n = 1 WHERE id = %d`, key)}); err != nil {
				t.Fatal(err)
			}
		}
		mine(10)
		for _, key := range []int{1, 101} {
			if out, err := caps.Apply(t.Context(), tx, put(key)); err != nil || out.Err != nil {
				t.Fatal(err, out.Err)
			}
			mine(11 + key)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	share()
	w.tells(10, 12)
	w.run(`UPDATE things SET n = 1 WHERE id = 20`)
	w.tells(20)

	// The trigger changes another row whenever a row is changed. The watcher does not
	// trust its own any more, and tells all.
	w.run(`CREATE FUNCTION also() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF pg_trigger_depth() = 1 THEN UPDATE things SET n = n + 1 WHERE id = NEW.id + 30; END IF; RETURN NULL; END $$`)
	w.run(`CREATE TRIGGER also AFTER UPDATE ON things FOR EACH ROW EXECUTE FUNCTION also()`)
	w.ends(errChanged)
	w.open()
	w.start()
	w.run(`UPDATE things SET n = 5 WHERE id = 2`)
	w.tells(2, 32)
	if out, err := w.table.Commit(t.Context(), []lockstep.ChangeSet[int, thing]{put(3)}); err != nil || out[0].Err != nil {
		t.Fatal(err, out)
	}
	w.tells(3, 33)
}

// A watcher that was away for longer than changes are kept says so.
func TestRemovedChangesAreNotMissedInSilence(t *testing.T) {
	w := watchThings(t, DatabaseOptions{})
	w.start()
	rows := func(want int) {
		t.Helper()
		var n int
		if err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM lockstep_changes`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n != want {
			t.Errorf("the log has %d rows, want %d", n, want)
		}
	}
	purge := func() {
		t.Helper()
		w.run(`UPDATE lockstep_horizon SET marked_at = marked_at - interval '61 minutes'`)
		w.db.keeper.sweepAll(t.Context())
	}
	w.run(`UPDATE things SET n = 1`)
	w.run(`INSERT INTO things SELECT generate_series(100, 10000), 0`)
	for n := 0; n < 99+9901; {
		n += len(w.next().Changed)
	}
	rows(10000)
	w.db.keeper.sweepAll(t.Context()) // they are not old yet
	rows(10000)
	purge() // which sets the mark
	rows(10000)
	w.run(`UPDATE things SET n = 2 WHERE id = 5`) // which shows that the watcher has looked since
	w.tells(5)
	purge()
	rows(1)
	// The watcher had seen them all, and goes on.
	w.run(`UPDATE things SET n = 2 WHERE id = 1`)
	w.tells(1)

	// A transaction that is under way keeps what it has changed.
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `UPDATE things SET n = 1 WHERE id = 2`); err != nil {
		t.Fatal(err)
	}
	for key := 11; key < 14; key++ {
		purge()
		w.run(`UPDATE things SET n = 2 WHERE id = $1`, key)
		w.tells(key)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.tells(2)

	// Somebody removes what nobody has read.
	w.run(`UPDATE lockstep_horizon SET purged = (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1)::text::xid8`)
	w.run(`UPDATE things SET n = 3 WHERE id = 3`)
	w.ends(errOutrun)
	w.start()
	w.run(`UPDATE things SET n = 3 WHERE id = 4`)
	w.tells(4)

	// What was restored into another server is from the future there.
	w.run(`UPDATE lockstep_horizon SET purged = '9000000000000', mark = '9000000000000'`)
	w.run(`INSERT INTO lockstep_changes (xid, tbl, key) VALUES ('9000000000000', 'things'::regclass, '{5}')`)
	w.run(`UPDATE things SET n = 3 WHERE id = 6`)
	w.tells(5, 6)
	purge()
	purge()
	rows(0)
}

func TestAWatchThatIsChangedEnds(t *testing.T) {
	w := watchThings(t, DatabaseOptions{})
	for name, statement := range map[string]string{
		"disabled": `ALTER TABLE things DISABLE TRIGGER lockstep_watch_update`,
		"replaced": `CREATE OR REPLACE FUNCTION lockstep_watch_things() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`,
		"dropped":  `DROP TRIGGER lockstep_watch_truncate ON things`,
		"renamed":  `ALTER TABLE things RENAME TO others; CREATE TABLE things (id int PRIMARY KEY, n int NOT NULL)`,
	} {
		w.start()
		w.run(statement)
		w.ends(errChanged)
		if name == "renamed" {
			w.run(`DROP TABLE things; ALTER TABLE others RENAME TO things`)
		} else {
			err := w.table.watchChanges(t.Context(), func(lockstep.Event[int]) { t.Error("a watch that is not whole has begun") })
			if !errors.Is(err, lockstep.ErrUnavailable) || !strings.Contains(err.Error(), "not whole") {
				t.Errorf("%s: %v", name, err)
			}
			_, err = NewTableIn[int, thing](t.Context(), w.db, "things", TableOptions{})
			if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "not whole") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := w.db.InstallWatch(t.Context(), "things", WatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	if err := w.db.RemoveWatch(t.Context(), "things"); err != nil {
		t.Fatal(err)
	}
	var left []string
	if err := w.pool.QueryRow(t.Context(), `SELECT array_agg(proname::text) FROM pg_proc WHERE proname LIKE 'lockstep%'`).Scan(&left); err != nil || left != nil {
		t.Errorf("%v are left, %v", left, err)
	}
	w.ends(lockstep.ErrUnavailable)
	w.open()
	if w.table.Capabilities().Watch != nil {
		t.Error("a table whose watch was removed is watched")
	}
	w.run(`UPDATE things SET n = 9`)

	if err := w.db.InstallWatch(t.Context(), "things", WatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.start()
	w.run(`DROP TABLE things`)
	w.ends(errChanged)
}

// A session that meets another server, after a failover perhaps, ends the watcher of
// the old one.
func TestAnotherServerEndsTheWatch(t *testing.T) {
	w := watchThings(t, DatabaseOptions{})
	w.start()
	w.db.server.Met(serverID{started: 1})
	w.ends(errOtherServer)
}

func TestClosingTheDatabaseEndsTheWatch(t *testing.T) {
	w := watchThings(t, DatabaseOptions{})
	w.start()
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	w.ends(lockstep.ErrClosed)
}

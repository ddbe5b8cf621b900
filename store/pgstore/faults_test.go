package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// A set that was left out of a batch, because somebody holds its row or its key
// cannot be stored, was not committed with the others when their reply is lost.
func TestASetThatWasLeftOutIsNotSettledAsCommitted(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	s, direct := openStore(t, via), openStore(t, url)
	long := put(string(make([]byte, 4000)), "v")
	for _, batch := range []struct {
		name   string
		others []changeSet
	}{
		{"Sets", []changeSet{set(put("k", "marker"))}},
		{"Deletions", []changeSet{set(put("k", "marker")), set(erase("gone"))}},
	} {
		t.Run(batch.name, func(t *testing.T) {
			write(t, s, put("held", "old"))
			write(t, s, put("k", "warm"))
			write(t, s, put("gone", "there"))
			somebody := connect(t, url)
			run(t, somebody, "BEGIN")
			run(t, somebody, "SELECT FROM rows WHERE key = 'held' FOR UPDATE")
			// The first attempt waits for the row in vain.
			_, release := proxy.HoldReply("marker")
			release()
			happened := proxy.CutReply("marker")
			_, err := s.Commit(t.Context(), append([]changeSet{set(put("held", "new")), set(long)}, batch.others...))
			<-happened
			wantError(t, err, lockstep.ErrUnknownOutcome)
			run(t, somebody, "ROLLBACK")
			settled, serr := s.Capabilities().Settle(t.Context(), err)
			if serr != nil || !settled.Applied || settled.Err != nil {
				t.Fatalf("settled as %+v, %v", settled, serr)
			}
			wantRow(t, direct, "held", "old")
			wantRow(t, direct, "k", "marker")
			if len(settled.Outcomes) != 2+len(batch.others) {
				t.Fatalf("nothing says that two sets were left out: %+v", settled)
			}
			for i, o := range settled.Outcomes {
				if (o.Err != nil) != (i < 2) || o.Blocked != (i == 0) {
					t.Errorf("set %d is settled as %+v", i, o)
				}
			}
		})
	}
}

// A row with the value that was to be written and another lifetime is not the one
// that was to be written.
func TestAnotherLifetimeIsNotTakenForOnesOwn(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	s, direct := openStore(t, via), openStore(t, url)
	mortal := put("k", "marker")
	mortal.Lifetime = time.Hour
	fixed := put("k", "marker")
	fixed.ExpiresAt = time.Now().Add(time.Hour).Truncate(time.Second)
	for _, c := range []struct {
		name         string
		theirs, ours change
	}{
		{"Lifetime", put("k", "marker"), mortal},
		{"ExpiresAt", put("k", "marker"), fixed},
		{"Forever", mortal, put("k", "marker")},
	} {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, applied), func(t *testing.T) {
				warm := c.ours
				warm.Value = "warm"
				write(t, s, warm)
				cut := proxy.CutReply
				if !applied {
					write(t, direct, c.theirs)
					cut = proxy.CutRequest
				}
				happened := cut("marker")
				_, err := s.Commit(t.Context(), []changeSet{set(c.ours)})
				<-happened
				wantError(t, err, lockstep.ErrUnknownOutcome)
				settled, serr := s.Capabilities().Settle(t.Context(), err)
				if serr != nil || settled.Applied != applied || applied && settled.Err != nil {
					t.Errorf("settled as %+v, %v; want applied=%t", settled, serr, applied)
				}
			})
		}
	}
}

// A deadline that is further away than a server's setting can say is no fault of the
// write.
func TestADeadlineThatIsFarAway(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	type V struct {
		N int `db:"n"`
	}
	table := mapTable[int, V](t, url, pgstore.TableOptions{}, "CREATE TABLE t (id int PRIMARY KEY, n int)")
	ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
	defer cancel()
	for _, c := range []change{put("k", "v"), ifAbsent(put("l", "v"))} {
		if out, err := s.Commit(ctx, []changeSet{set(c)}); err != nil || out[0].Err != nil {
			t.Errorf("%+v, %v", out, err)
		}
	}
	if out, err := table.Commit(ctx, []lockstep.ChangeSet[int, V]{{Changes: []lockstep.Change[int, V]{{Key: 1}}}}); err != nil || out[0].Err != nil {
		t.Errorf("%+v, %v", out, err)
	}
}

// Rows of a table of our own that a foreign key's action would delete or change, and
// those of a table that inherits from it, are not ours to keep.
func TestATableOfOursWhoseRowsAreAlsoOthers(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	c := connect(t, url)
	run(t, c, "CREATE TABLE users (id text PRIMARY KEY)")
	open := func() error {
		_, err := pgstore.OpenIn[string, string](t.Context(), s.Database(), pgstore.Options{Table: "rows"})
		return err
	}
	run(t, c, "ALTER TABLE rows ADD CONSTRAINT owner FOREIGN KEY (key) REFERENCES users")
	if err := open(); err != nil {
		t.Errorf("a foreign key that only refuses: %v", err)
	}
	run(t, c, "ALTER TABLE rows DROP CONSTRAINT owner, ADD CONSTRAINT owner FOREIGN KEY (key) REFERENCES users ON DELETE CASCADE")
	wantParts(t, open(), lockstep.ErrInvalid, "owner")
	run(t, c, "ALTER TABLE rows DROP CONSTRAINT owner")
	run(t, c, "CREATE TABLE heir () INHERITS (rows)")
	wantParts(t, open(), lockstep.ErrInvalid, "heir")
}

// A context that ends between the two round trips of a commit leaves it undone, and
// the error says so as any other does.
func TestAContextThatEndsBeforeTheCommitIsSent(t *testing.T) {
	url := dbtest.Postgres(t)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	var end afterBatch
	config.ConnConfig.Tracer = &end
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	db := overPool(pool)(t)
	s, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	type V struct {
		N int `db:"n"`
	}
	run(t, connect(t, url), "CREATE TABLE t (id int PRIMARY KEY, n int)")
	table, err := pgstore.NewTableIn[int, V](t.Context(), db, "t", pgstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, commit := range map[string]func(ctx context.Context) error{
		"Store": func(ctx context.Context) error {
			_, err := s.Commit(ctx, []changeSet{set(ifAbsent(put("k", "v")))})
			return err
		},
		"Table": func(ctx context.Context) error {
			_, err := table.Commit(ctx, []lockstep.ChangeSet[int, V]{{Changes: []lockstep.Change[int, V]{{Key: 1}}}})
			return err
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		end.f = cancel
		err := commit(ctx)
		end.f = nil
		if !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantAbsent(t, s, "k")
}

// afterBatch is called when the driver has the answer to a batch.
type afterBatch struct{ f func() }

func (a *afterBatch) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (a *afterBatch) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (a *afterBatch) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}
func (a *afterBatch) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (a *afterBatch) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {
	if a.f != nil {
		a.f()
	}
}

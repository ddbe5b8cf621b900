package pgstore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// A trigger that gives a row another key than it was written with has written
// somebody else's row.
func TestATriggerThatChangesTheKey(t *testing.T) {
	type V struct {
		N int `db:"n"`
	}
	type set = lockstep.ChangeSet[string, V]
	url := dbtest.Postgres(t)
	s := mapTable[string, V](t, url, pgstore.TableOptions{}, "CREATE TABLE t (id text PRIMARY KEY, n int)",
		"CREATE FUNCTION fold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.id := lower(NEW.id); RETURN NEW; END'",
		"CREATE TRIGGER fold BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION fold()")
	store1(t, s, "bob", V{1})
	one := func(k string) set { return set{Changes: []lockstep.Change[string, V]{{Key: k, Value: V{2}}}} }
	for _, k := range []string{"Alice", "BOB"} {
		out, err := s.Commit(t.Context(), []set{one("x"), one(k), one("y")})
		if err != nil {
			t.Fatalf("%s: %v", k, err)
		}
		wantError(t, out[1].Err, lockstep.ErrInvalid)
		for _, i := range []int{0, 2} {
			if out[i].Err != nil {
				t.Errorf("%s: set %d beside it: %v", k, i, out[i].Err)
			}
		}
		if out, err = s.Commit(t.Context(), []set{one(k)}); err != nil || !errors.Is(out[0].Err, lockstep.ErrInvalid) {
			t.Errorf("%s, alone: %+v, %v", k, out, err)
		}
	}
	if load1(t, s, "alice").Exists || load1(t, s, "bob").Value.N != 1 {
		t.Error("a row was written that nobody has named")
	}
}

// A trigger's own table may have an index of the same name as the primary key's.
func TestAnIndexOfTheSameNameElsewhere(t *testing.T) {
	type V struct {
		N int `db:"n"`
	}
	type set = lockstep.ChangeSet[string, V]
	url := dbtest.Postgres(t)
	s := mapTable[string, V](t, url, pgstore.TableOptions{}, "CREATE TABLE t (id text PRIMARY KEY, n int)",
		"CREATE SCHEMA audit", "CREATE TABLE audit.t (id text PRIMARY KEY)", "INSERT INTO audit.t VALUES ('k')",
		"CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO audit.t VALUES (NEW.id); RETURN NULL; END'",
		"CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()")
	one := func(k string) set { return set{Changes: []lockstep.Change[string, V]{{Key: k, Value: V{2}}}} }
	out, err := s.Commit(t.Context(), []set{one("x"), one("k"), one("y")})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, out[1].Err, lockstep.ErrInvalid)
	if out[0].Err != nil || out[2].Err != nil {
		t.Errorf("the sets beside it: %v, %v", out[0].Err, out[2].Err)
	}
}

// What Load returns can be copied, compared and written again.
func TestWhatIsReadCanBeWrittenAgain(t *testing.T) {
	type V struct {
		N     string      `db:"n"`
		Times []time.Time `db:"times"`
	}
	type set = lockstep.ChangeSet[int, V]
	url := dbtest.Postgres(t)
	run(t, connect(t, url), "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET TimeZone TO %L', current_database(), 'Europe/Amsterdam'); END $$")
	s := mapTable[int, V](t, url, pgstore.TableOptions{}, "CREATE TABLE t (id int PRIMARY KEY, n numeric, times timestamptz[])",
		"INSERT INTO t VALUES (1, 'NaN', '{1850-01-01 00:00:00+00,2026-11-25 12:00:00.5+00}'), (2, '1e200', '{}')")
	if connect(t, url).PgConn().ParameterStatus("server_version") >= "14" {
		run(t, connect(t, url), "UPDATE t SET n = '-Infinity' WHERE id = 2")
	}
	for id := 1; id <= 2; id++ {
		r := load1(t, s, id)
		if _, err := s.Capabilities().Clone(r.Value); err != nil {
			t.Errorf("a copy of %+v: %v", r, err)
		}
		out, err := s.Commit(t.Context(), []set{{Changes: []lockstep.Change[int, V]{{Key: id, Value: r.Value}}, Checks: []lockstep.Check[int]{{Key: id, Value: r.Value}}}})
		if err != nil || out[0].Err != nil {
			t.Errorf("%+v: %+v, %v", r, out, err)
		}
	}
}

// After a crash, a row that looks as it did before tells nothing where the column has
// a form of its own, and rows that contradict each other tell nothing either.
func TestRowsThatCannotTellAreNotBelieved(t *testing.T) {
	type V struct {
		Doc  string `db:"doc"`
		Name string `db:"name"`
	}
	type set = lockstep.ChangeSet[string, V]
	type change = lockstep.Change[string, V]
	server := dbtest.StartPostgres(t)
	proxy, via := dbtest.Via(t, server.URL())
	s := mapTable[string, V](t, via, pgstore.TableOptions{}, "CREATE TABLE t (id text PRIMARY KEY, doc jsonb NOT NULL, name text NOT NULL)",
		`INSERT INTO t SELECT x, '{"a": 1}', 'old' FROM unnest('{same,written,gone,kept,kept2,kept3,kept4,edited,gone2}'::text[]) AS x`)
	store1(t, s, "warm", V{"{}", "warm"})
	type N struct {
		Name string `db:"name"`
	}
	run(t, connect(t, server.URL()), "CREATE TABLE v (id text PRIMARY KEY, name text, version bigint NOT NULL DEFAULT 0)")
	versioned, err := pgstore.NewTableIn[string, N](t.Context(), s.Database(), "v", pgstore.TableOptions{VersionColumn: "version"})
	if err != nil {
		t.Fatal(err)
	}
	store1(t, versioned, "again", N{"old"})
	cut := proxy.CutReply("marker0")
	_, replaced := versioned.Commit(t.Context(), []lockstep.ChangeSet[string, N]{{Changes: []lockstep.Change[string, N]{{Key: "again", Value: N{"marker0"}}}}})
	<-cut
	wantError(t, replaced, lockstep.ErrUnknownOutcome)

	happened := proxy.CutReply("marker1")
	_, applied := s.Commit(t.Context(), []set{{Changes: []change{{Key: "same", Value: V{`{"a":1}`, "old"}}, {Key: "written", Value: V{"{}", "marker1"}}}}})
	<-happened
	happened = proxy.CutRequest("marker2")
	_, lost := s.Commit(t.Context(), []set{{Changes: []change{{Key: "kept", Value: V{"{}", "marker2"}}, {Key: "kept2", Value: V{"{}", "marker2"}},
		{Key: "kept3", Value: V{"{}", "marker2"}}, {Key: "kept4", Value: V{"{}", "marker2"}}, {Key: "gone", Delete: true}}}})
	<-happened
	happened = proxy.CutRequest("marker3")
	_, both := s.Commit(t.Context(), []set{{Changes: []change{{Key: "edited", Value: V{"{}", "marker3"}}, {Key: "gone2", Delete: true}}}})
	<-happened
	wantError(t, both, lockstep.ErrUnknownOutcome)
	wantError(t, applied, lockstep.ErrUnknownOutcome)
	wantError(t, lost, lockstep.ErrUnknownOutcome)
	server.Kill()
	server.Start()
	c := connect(t, server.URL())
	run(t, c, "UPDATE t SET name = 'theirs' WHERE id = 'written'")
	run(t, c, "DELETE FROM t WHERE id = 'gone'")
	run(t, c, "UPDATE t SET name = 'theirs' WHERE id = 'edited'")
	run(t, c, "DELETE FROM t WHERE id = 'gone2'")
	if settled, err := s.Capabilities().Settle(t.Context(), both); err != nil || settled.Applied {
		t.Errorf("what others have edited and deleted is settled as %+v, %v", settled, err)
	}
	run(t, c, "DELETE FROM v")
	run(t, c, "INSERT INTO v VALUES ('again', 'theirs')")
	if settled, err := s.Capabilities().Settle(t.Context(), replaced); err != nil || !settled.Applied && settled.Err == nil {
		t.Errorf("what was committed, deleted and inserted again is settled as %+v, %v", settled, err)
	}
	settled, err := s.Capabilities().Settle(t.Context(), applied)
	if err != nil || !settled.Applied && settled.Err == nil {
		t.Errorf("what was committed is settled as %+v, %v", settled, err)
	}
	for range 10 { // the rows are asked in no order
		if settled, err = s.Capabilities().Settle(t.Context(), lost); err != nil || settled.Applied {
			t.Errorf("what was not committed is settled as %+v, %v", settled, err)
		}
	}
}

// A version that does not grow would let two writers pass who have both read the same
// row. A trigger that keeps it from growing makes the write refused, at once and alone.
func TestATriggerThatKeepsTheVersionIsRefused(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	type change = lockstep.Change[string, V]
	s := mapTable[string, V](t, dbtest.Postgres(t), pgstore.TableOptions{VersionColumn: "version"},
		"CREATE TABLE t (id text PRIMARY KEY, name text, version bigint)",
		`CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			CASE NEW.name WHEN 'one' THEN NEW.version := 1; WHEN 'null' THEN NEW.version := NULL; WHEN 'kept' THEN NEW.version := OLD.version;
			WHEN 'lower' THEN NEW.version := OLD.version - 1; WHEN 'counted' THEN NEW.version := OLD.version + 1;
			ELSE NULL; END CASE; RETURN NEW; END $$`,
		"CREATE TRIGGER keeps BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION keep()")
	store1(t, s, "k", V{"first"})
	before := store1(t, s, "k", V{"before"})
	for _, name := range []string{"kept", "lower", "null"} {
		o := change1(t, s, change{Key: "k", Value: V{name}})
		wantParts(t, o.Err, lockstep.ErrInvalid, "key k", "column version", "trigger")
	}
	if after := load1(t, s, "k"); after != before {
		t.Errorf("the row is %+v, it was %+v", after, before)
	}
	if r := store1(t, s, "k", V{"counted"}); r.Version != before.Version+1 {
		t.Errorf("the version is %d, and was %d", r.Version, before.Version)
	}
	out, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, V]{
		{Changes: []change{{Key: "new", Value: V{"one"}}}}, {Changes: []change{{Key: "k", Value: V{"beside"}}}},
	})
	if err != nil || out[1].Err != nil {
		t.Fatal(err, out)
	}
	wantParts(t, out[0].Err, lockstep.ErrInvalid, "key new", "column version", "trigger")
}

// A uuid key that a field repeats as a string was refused where the field was left empty,
// which is no UUID.
func TestAFieldThatLeavesOutTheKey(t *testing.T) {
	type V struct {
		ID   string `db:"id"`
		Name string `db:"name"`
	}
	const key = "01234567-89ab-cdef-0123-456789abcdef"
	s := mapTable[string, V](t, dbtest.Postgres(t), pgstore.TableOptions{},
		"CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text)")
	if r := store1(t, s, key, V{Name: "a"}); r.Value != (V{key, "a"}) {
		t.Errorf("%+v", r)
	}
	if r := store1(t, s, key, V{strings.ToUpper(key), "b"}); r.Value != (V{key, "b"}) {
		t.Errorf("%+v", r)
	}
	wantParts(t, change1(t, s, lockstep.Change[string, V]{Key: key, Value: V{ID: "no uuid"}}).Err, lockstep.ErrInvalid, key, "V.ID", "column id")
	if v, err := s.Capabilities().Clone(V{Name: "a"}); err != nil || v != (V{Name: "a"}) {
		t.Errorf("Clone: %+v, %v", v, err)
	}
	out, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, V]{{Changes: []lockstep.Change[string, V]{{Insert: true, Value: V{Name: "new"}}}}})
	if err != nil || out[0].Err != nil || out[0].Keys[0] != any(out[0].Rows[0].Value.ID) {
		t.Errorf("Insert: %+v, %v", out, err)
	}
}

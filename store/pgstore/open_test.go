package pgstore_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// refused checks that an error is want and says each of the words.
func refused(t *testing.T, err, want error, words ...string) {
	t.Helper()
	wantError(t, err, want)
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	db := openPool(t, dbtest.Postgres(t))
	for name, opts := range map[string]pgstore.Options{
		"MaxKeyBytes":    {MaxKeyBytes: 3000},
		"MaxValueBytes":  {MaxValueBytes: -1},
		"Codec":          {Codec: codec.JSON[int]()},
		"reserved":       {Table: "lockstep_tables"},
		"not a table's":  {Table: "a.b.c"},
		"does not exist": {Table: "nowhere.t"},
	} {
		_, err := pgstore.OpenIn[string, string](t.Context(), db, opts)
		refused(t, err, lockstep.ErrInvalid, name)
	}
	_, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: strings.Repeat("x", 64)})
	refused(t, err, lockstep.ErrInvalid, "xxxx")
	_, err = pgstore.OpenIn[string, string](t.Context(), nil, pgstore.Options{})
	refused(t, err, lockstep.ErrInvalid, "database")
	_, err = pgstore.Open[string, string](t.Context(), nil, pgstore.Options{})
	refused(t, err, lockstep.ErrInvalid, "pool")
}

func TestTablesThatAreRefused(t *testing.T) {
	url := dbtest.Postgres(t)
	db := openPool(t, url)
	open := func(table string) error {
		_, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: table})
		return err
	}
	execute(t, url, `CREATE TABLE users (id int PRIMARY KEY)`)
	refused(t, open("users"), lockstep.ErrInvalid, "users", "not a key-value table")

	for _, table := range []string{"ours", "logless", "watched", "ruled"} {
		if err := open(table); err != nil {
			t.Fatal(err)
		}
	}
	_, err := pgstore.OpenIn[int, string](t.Context(), db, pgstore.Options{Table: "ours"})
	refused(t, err, lockstep.ErrInvalid, "ours", "text", "integer")
	_, err = pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: "ours", Codec: codec.CBOR[string]()})
	refused(t, err, lockstep.ErrInvalid, "ours", "json", "cbor")

	execute(t, url, `ALTER TABLE logless SET UNLOGGED`)
	refused(t, open("logless"), lockstep.ErrInvalid, "logless", "unlogged")
	execute(t, url, `CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
	execute(t, url, `CREATE TRIGGER spy BEFORE UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION f()`)
	refused(t, open("watched"), lockstep.ErrInvalid, "watched", "spy")
	execute(t, url, `CREATE RULE r AS ON DELETE TO ruled DO INSTEAD NOTHING`)
	refused(t, open("ruled"), lockstep.ErrInvalid, "ruled", "rules")
	execute(t, url, `UPDATE lockstep_tables SET layout = 99 WHERE name = 'ours'`)
	refused(t, open("ours"), lockstep.ErrInvalid, "ours", "99")
	execute(t, url, `CREATE TABLE other_list (x int); DROP TABLE lockstep_tables; ALTER TABLE other_list RENAME TO lockstep_tables`)
	refused(t, open("more"), lockstep.ErrInvalid, "lockstep_tables")
}

// A table that was dropped by hand is made again, and its versions go on.
func TestADroppedTableIsMadeAgain(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	write(t, s, put("k", "v"))
	execute(t, url, `DROP TABLE rows`)
	execute(t, url, `UPDATE lockstep_tables SET floor = 9000000000000000000`)
	s = openStore(t, url)
	wantAbsent(t, s, "k")
	if v := write(t, s, put("k", "v")).Rows[0].Version; v <= 9000000000000000000 {
		t.Errorf("version %d is not above the floor", v)
	}
}

// A role that owns nothing, and may do what it was granted, can use a table, and
// settle. One that lacks a privilege is told which.
func TestPrivileges(t *testing.T) {
	server := dbtest.Postgres(t)
	openStore(t, server)
	for _, q := range []string{`CREATE ROLE pgstore_plain LOGIN PASSWORD 'plain'`,
		`GRANT SELECT, INSERT, UPDATE ON rows, lockstep_tables TO pgstore_plain`} {
		execute(t, server, q)
	}
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		for _, q := range []string{`DROP OWNED BY pgstore_plain`, `DROP ROLE pgstore_plain`} {
			if _, err := c.Exec(context.Background(), q); err != nil {
				t.Errorf("%s: %v", q, err)
			}
		}
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("pgstore_plain", "plain")
	plain := openPool(t, u.String())
	_, err = pgstore.OpenIn[string, string](t.Context(), plain, pgstore.Options{Table: "rows"})
	refused(t, err, lockstep.ErrInvalid, "rows", "DELETE")
	_, err = pgstore.OpenIn[string, string](t.Context(), plain, pgstore.Options{Table: "more"})
	refused(t, err, lockstep.ErrInvalid, "permission")
	execute(t, server, `GRANT DELETE ON rows TO pgstore_plain`)

	proxy, via := dbtest.Via(t, u.String())
	s := openStore(t, via)
	write(t, s, put("k", "warm"))
	happened := proxy.CutReply("marker")
	_, err = s.Commit(t.Context(), []changeSet{set(put("k", "marker"))})
	<-happened
	wantError(t, err, lockstep.ErrUnknownOutcome)
	if settled, err := s.Capabilities().Settle(t.Context(), err); err != nil || !settled.Applied {
		t.Errorf("settled as %+v, %v", settled, err)
	}
}

func TestServersThatAreRefused(t *testing.T) {
	open := func(t *testing.T, url string, opts pgstore.DatabaseOptions) error {
		db, err := pgstore.OpenDatabase(t.Context(), newPool(t, url), opts)
		if err == nil {
			err = errors.Join(db.Close())
		}
		return err
	}
	t.Run("Settings", func(t *testing.T) {
		server := dbtest.StartPostgres(t, "fsync=off", "synchronous_commit=on").URL()
		refused(t, open(t, server, pgstore.DatabaseOptions{}), lockstep.ErrInvalid, "fsync")
		if err := open(t, server, pgstore.DatabaseOptions{AllowUnsafeDurability: true}); err != nil {
			t.Error(err)
		}
	})
	server := dbtest.Postgres(t)
	with := func(parameter, value string) string {
		u, err := url.Parse(server)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set(parameter, value)
		u.RawQuery = q.Encode()
		return u.String()
	}
	refused(t, open(t, with("synchronous_commit", "off"), pgstore.DatabaseOptions{}), lockstep.ErrInvalid, "synchronous_commit")
	refused(t, open(t, with("default_transaction_read_only", "on"), pgstore.DatabaseOptions{}), lockstep.ErrInvalid, "read_only")
	refused(t, open(t, with("client_encoding", "LATIN1"), pgstore.DatabaseOptions{}), lockstep.ErrInvalid, "client_encoding")

	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/nowhere"
	refused(t, open(t, u.String(), pgstore.DatabaseOptions{}), lockstep.ErrInvalid, "nowhere")
	u.User = url.UserPassword("nobody", "secret-word")
	err = open(t, u.String(), pgstore.DatabaseOptions{})
	refused(t, err, lockstep.ErrInvalid, "nobody")
	if strings.Contains(err.Error(), "secret-word") {
		t.Errorf("the error has the password: %v", err)
	}
}

func TestRelativesOfPostgreSQLAreTold(t *testing.T) {
	for version, other := range map[string]bool{"15.14 (Debian 15.14-0+deb12u1)": false, "11.2-YB-2.20.1.3-b0": true} {
		if got := pgstore.Relative(map[string]string{"server_version": version}); (got != "") != other {
			t.Errorf("%s is taken for %q", version, got)
		}
	}
	if got := pgstore.Relative(map[string]string{"server_version": "13.0.0", "crdb_version": "CockroachDB CCL v24.1.0"}); !strings.Contains(got, "CockroachDB") {
		t.Errorf("taken for %q", got)
	}
}

func TestAServerThatIsDown(t *testing.T) {
	server := dbtest.StartPostgres(t)
	pool := newPool(t, server.URL())
	server.Stop()
	_, err := pgstore.Open[string, string](t.Context(), pool, pgstore.Options{})
	refused(t, err, lockstep.ErrUnavailable, server.Addr())
	server.Start()
	s, err := pgstore.Open[string, string](t.Context(), pool, pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	write(t, s, put("k", "v"))
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = s.Load(ctx, []string{"k"})
	wantError(t, err, lockstep.ErrUnavailable)
	_, err = s.Commit(ctx, []changeSet{set(put("k", "new"))})
	wantError(t, err, lockstep.ErrUnavailable)
	server.Start()
	wantRow(t, s, "k", "v")
	write(t, s, put("k", "new"))
}

func TestAnotherDriverIsRefused(t *testing.T) {
	other, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, err = pgstore.OpenDatabaseSQL(t.Context(), other, pgstore.DatabaseOptions{})
	refused(t, err, lockstep.ErrUnsupported, "github.com/jackc/pgx/v5/stdlib")
	_, err = pgstore.OpenDatabaseSQL(t.Context(), nil, pgstore.DatabaseOptions{})
	refused(t, err, lockstep.ErrInvalid)
}

func TestAClosedStore(t *testing.T) {
	pool := newPool(t, dbtest.Postgres(t))
	s, err := pgstore.Open[string, string](t.Context(), pool, pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Load(t.Context(), []string{"k"})
	wantError(t, err, lockstep.ErrClosed)
	_, err = s.Commit(t.Context(), []changeSet{set(put("k", "v"))})
	wantError(t, err, lockstep.ErrClosed)
	_, err = s.Commit(t.Context(), nil)
	wantError(t, err, lockstep.ErrClosed)
	_, err = s.Capabilities().Begin(t.Context())
	wantError(t, err, lockstep.ErrClosed)
	if err := pool.Ping(t.Context()); err != nil {
		t.Errorf("the caller's pool is closed, too: %v", err)
	}
}

// With extra_float_digits below 1 a float comes as another one where the driver reads text:
// a write that had been committed was said to have been ignored by a trigger.
func TestSettingsThatChangeValuesOnTheWay(t *testing.T) {
	url := dbtest.Postgres(t)
	for setting, modes := range map[string][]string{
		"extra_float_digits=0": {"exec", "simple_protocol", "cache_statement"},
		"bytea_output=escape":  {"exec", "simple_protocol"},
		"DateStyle=German":     {"exec", "simple_protocol"},
	} {
		for _, mode := range modes {
			_, err := pgstore.OpenDatabase(t.Context(), newPool(t, url+"&"+setting+"&default_query_exec_mode="+mode), pgstore.DatabaseOptions{})
			name, _, _ := strings.Cut(setting, "=")
			refused(t, err, lockstep.ErrInvalid, name)
		}
	}
	for _, setting := range []string{"bytea_output=escape", "DateStyle=German"} {
		openPool(t, url+"&"+setting)
	}
	openPool(t, url+"&DateStyle=ISO,DMY&default_query_exec_mode=exec")
	db := openPool(t, url+"&default_query_exec_mode=exec")
	tenth := 0.1
	keys(t, db, tenth+0.2, 0.3)
}

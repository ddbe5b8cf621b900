package pgstore_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// lateContext ends between the answer to a statement and what is done about it.
type lateContext struct {
	context.Context
	cuts int
}

func (c *lateContext) AfterFunc(f func()) (stop func() bool) {
	return func() bool {
		c.cuts++
		f()
		return false
	}
}

// TestAConnectionThatWasCutBehindTheAnswerIsNotUsedAgain: a context that ends when the answer
// has come may cut the connection after that. The commit holds, and the program, whose pool
// it is, does not get the connection.
func TestAConnectionThatWasCutBehindTheAnswerIsNotUsedAgain(t *testing.T) {
	pool := onePool(t, dbtest.Postgres(t))
	s, err := pgstore.Open[string, string](t.Context(), pool, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, sets := range map[string][]changeSet{
		"proposal":  {set(put("k", "lone"))},
		"statement": {set(put("k", "batch")), set(put("l", "batch"))},
	} {
		t.Run(name, func(t *testing.T) {
			proposing(t, s, "k")
			write(t, s, put("l", "first"))
			ctx := &lateContext{Context: t.Context()}
			if _, err := s.Commit(ctx, sets); err != nil {
				t.Fatal(err)
			}
			if ctx.cuts != 1 {
				t.Errorf("%d statements were cut behind their answers, want 1", ctx.cuts)
			}
			if err := pool.Ping(t.Context()); err != nil {
				t.Errorf("the program has a connection that fails: %v", err)
			}
			wantRow(t, s, "k", sets[0].Changes[0].Value)
		})
	}
}

// TestACommitThatIsNotSentIsNoDoubt: one whose context ends when it has its connection says
// that it was not applied.
func TestACommitThatIsNotSentIsNoDoubt(t *testing.T) {
	config, err := pgxpool.ParseConfig(dbtest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	taken := func() {}
	config.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
		taken()
		return true, nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s, err := pgstore.Open[string, string](t.Context(), pool, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, sets := range map[string][]changeSet{
		"proposal":  {set(put("k", "never"))},
		"statement": {set(put("k", "never")), set(put("l", "never"))},
	} {
		t.Run(name, func(t *testing.T) {
			proposing(t, s, "k")
			write(t, s, put("k", "before"))
			commit(t, s, set(put("k", "before")), set(put("l", "before"))) // which prepares that statement
			ctx, cancel := context.WithCancel(t.Context())
			taken = cancel
			_, err := s.Commit(ctx, sets)
			taken = func() {}
			wantError(t, err, lockstep.ErrUnavailable)
			wantRow(t, s, "k", "before")
		})
	}
}

// TestTheCauseOfAContextIsNotTheServersAnswer: it may be anybody's error, as that of another
// goroutine of a group, and one that a server has answered that one.
func TestTheCauseOfAContextIsNotTheServersAnswer(t *testing.T) {
	url := dbtest.Postgres(t)
	s, watching := openStore(t, url), connect(t, url)
	write(t, s, put("l", "first"))
	execute(t, url, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF position('new' in NEW.value::text) > 0 THEN PERFORM pg_sleep(10); END IF; RETURN NULL; END $$`)
	execute(t, url, `CREATE TRIGGER slow AFTER INSERT OR UPDATE ON rows FOR EACH ROW EXECUTE FUNCTION slow()`)
	for _, code := range []string{"23505", "40001", "57014"} {
		for kind, sets := range map[string][]changeSet{
			"proposal":  {set(put("k", "new"))},
			"statement": {set(put("k", "new"), put("l", "new"))},
		} {
			t.Run(code+" "+kind, func(t *testing.T) {
				proposing(t, s, "k")
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				result := make(chan error, 1)
				go func() {
					_, err := s.Commit(ctx, sets)
					result <- err
				}()
				for asleep := false; !asleep; {
					const query = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
					if err := watching.QueryRow(t.Context(), query).Scan(&asleep); err != nil {
						t.Fatal(err)
					}
				}
				cancel(&pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: "somebody else's"})
				err := <-result
				wantError(t, err, lockstep.ErrUnknownOutcome)
				settled, err := s.Capabilities().Settle(t.Context(), err)
				if err != nil || settled.Applied {
					t.Errorf("settled as %+v, %v, want that it was not applied", settled, err)
				}
			})
		}
	}
}

// withoutDeadlines is a network connection that has none, as a tunnel may.
type withoutDeadlines struct{ net.Conn }

var errNoDeadlines = errors.New("there are no deadlines here")

func (withoutDeadlines) SetDeadline(time.Time) error { return errNoDeadlines }

func TestAConnectionWithoutDeadlinesIsCut(t *testing.T) {
	url := dbtest.Postgres(t)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		return withoutDeadlines{c}, err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s, err := pgstore.Open[string, string](t.Context(), pool, pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	proposing(t, s, "k")
	execute(t, url, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$`)
	execute(t, url, `CREATE TRIGGER slow AFTER INSERT OR UPDATE ON rows FOR EACH ROW EXECUTE FUNCTION slow()`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = s.Commit(ctx, []changeSet{set(put("k", "new"))})
	wantError(t, err, lockstep.ErrUnknownOutcome)
	if _, err := s.Capabilities().Settle(t.Context(), err); err != nil {
		t.Error(err)
	}
}

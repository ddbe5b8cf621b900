package dbtest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/internal/netfault"
)

// recorder is a test that records its failures, and ends when told.
type recorder struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Failed() bool     { return false }
func (r *recorder) Errorf(format string, a ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, a...))
}

func TestARuleThatDidNotComeAboutFailsTheTest(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := &recorder{TB: t}
	p := dbtest.NewProxy(r, l.Addr().String())
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p.CutReply("unanswered")
	p.CutReply("unsent")
	if _, err := io.WriteString(c, "unanswered"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, len("unanswered"))); err != nil {
		t.Fatal(err)
	}
	for _, f := range r.cleanups {
		f()
	}
	want := []string{
		`dbtest: proxy: nothing contained "unsent"`,
		`dbtest: proxy: the server did not answer what contained "unanswered"`,
	}
	if !slices.Equal(r.errors, want) {
		t.Errorf("the failures are %q, want %q", r.errors, want)
	}
}

// TestCommitsThroughTheProxy breaks the commits of real drivers.
func TestCommitsThroughTheProxy(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		url := k.database(t)
		p, via := dbtest.Via(t, url)
		direct, db := k.open(t, url), k.open(t, via)
		exec(t, direct, "CREATE TABLE t (a VARCHAR(20))")
		rows := func(want string) {
			t.Helper()
			if n := read(t, direct, "SELECT COUNT(*) FROM t"); n != want {
				t.Errorf("there are %s rows, want %s", n, want)
			}
		}

		cut := p.CutRequest(k.commit)
		tx := begin(t, db)
		exec(t, tx, "INSERT INTO t VALUES ('1')")
		if err := tx.Commit(); err == nil {
			t.Error("a commit that did not arrive has succeeded")
		}
		<-cut
		rows("0")

		cut = p.CutReply(k.commit)
		tx = begin(t, db)
		exec(t, tx, "INSERT INTO t VALUES ('2')")
		if err := tx.Commit(); err == nil {
			t.Error("a commit whose answer was lost has succeeded")
		}
		<-cut
		rows("1")

		held, release := p.HoldReply(k.commit)
		tx = begin(t, db)
		exec(t, tx, "INSERT INTO t VALUES ('3')")
		committed := make(chan error)
		go func() { committed <- tx.Commit() }()
		<-held
		rows("2")
		select {
		case err := <-committed:
			t.Errorf("Commit has returned %v before its answer came", err)
		default:
		}
		release()
		if err := <-committed; err != nil {
			t.Error(err)
		}

		// A prepared statement is known by its arguments.
		insert, err := db.Prepare(strings.ReplaceAll("INSERT INTO t VALUES (?)", "?", k.parameter))
		if err != nil {
			t.Fatal(err)
		}
		defer insert.Close()
		if _, err := insert.Exec("other"); err != nil {
			t.Fatal(err)
		}
		cut = p.CutReply("the marker")
		if _, err := insert.Exec("with the marker"); err == nil {
			t.Error("a statement whose answer was lost has succeeded")
		}
		<-cut
		rows("4")
	})
}

// A session that waits for a lock does not notice that its client has gone, and commits
// when it has the lock: until then the server's end of the connection is there, and
// AwaitServer waits for it.
func TestASessionThatWasCutOffIsThereUntilItHasCommitted(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		url := k.database(t)
		addr := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(url)
		p, err := netfault.New(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		direct, db := k.open(t, url), k.open(t, strings.ReplaceAll(url, addr, p.Addr()))
		exec(t, direct, "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20))")
		exec(t, direct, "INSERT INTO t VALUES (1, 'early')")
		lock := begin(t, direct)
		exec(t, lock, "SELECT a FROM t WHERE id = 1 FOR UPDATE")
		conn, err := db.Conn(t.Context()) // a pool would try again with another
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if n := read(t, direct, k.waiting); n != "0" { // and who has looked before sees it change
			t.Fatalf("%s statements wait already", n)
		}
		failed := make(chan error, 1)
		go func() {
			_, err := conn.ExecContext(t.Context(), "UPDATE t SET a = 'late' WHERE id = 1")
			failed <- err
		}()
		for read(t, direct, k.waiting) == "0" {
			time.Sleep(time.Millisecond)
		}
		// Held, too, is the request to cancel that pgx makes for a connection it has lost.
		release := p.Hold()
		p.CutAll()
		if err := <-failed; err == nil {
			t.Error("a statement that was cut off has succeeded")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := p.AwaitServer(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while the session waits: %v", err)
		}
		if err := lock.Commit(); err != nil {
			t.Fatal(err)
		}
		for read(t, direct, "SELECT a FROM t") != "late" {
			time.Sleep(time.Millisecond)
		}
		release()
		if err := p.AwaitServer(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/server"
)

// impatient has nobody wait for the claim of a dead program.
func impatient(t *testing.T) {
	before := claimPatience
	claimPatience = 0
	t.Cleanup(func() { claimPatience = before })
}

func asking(t *testing.T, addr string) client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return client{conn, t, resp.NewDecoder(conn, resp.DecodeLimits{})}
}

// TestASecondServerOfATableIsRefused, and one of another table is not.
func TestASecondServerOfATableIsRefused(t *testing.T) {
	impatient(t)
	for _, k := range kinds {
		t.Run(k.scheme, func(t *testing.T) {
			store := emptyStore(t, k)
			t.Setenv("LOCKSTEP_STORE", store)
			serveProgram(t, store, func(_ *exec.Cmd, addr string) {
				asking(t, addr).want("SET a 1", "OK")
				stdout, stderr, status := command(t, "serve", "--redis", "127.0.0.1:0")
				if status != exitFailed || stdout != "" || !strings.Contains(stderr, "another server serves this table") {
					t.Errorf("status %d, %q, %q", status, stdout, stderr)
				}
				if k.scheme == "sqlite" { // to which both are one table
					if _, stderr, status := command(t, "serve", "--redis", "127.0.0.1:0", "--keys-table", "LOCKSTEP_KEYS"); status != exitFailed || !strings.Contains(stderr, "another server serves this table") {
						t.Errorf("in capitals: status %d, %q", status, stderr)
					}
				}
				ctx, stop := context.WithCancel(t.Context())
				other, ended := &log{}, make(chan int)
				go func() {
					ended <- run(ctx, []string{"serve", "--redis", "127.0.0.1:0", "--keys-table", "others"}, other, other)
				}()
				for servedOn.FindString(other.String()) == "" && t.Context().Err() == nil {
					select {
					case status := <-ended:
						t.Fatalf("another table: status %d, %s", status, other.String())
					default:
						runtime.Gosched()
					}
				}
				stop()
				if status := <-ended; status != 0 {
					t.Errorf("another table: status %d, %s", status, other.String())
				}
				asking(t, addr).want("GET a", "1")
			})
		})
	}
}

// TestAServerThatHasLostItsClaim does not write, and reads what the one has written that
// has the table in the meantime, until it has it again.
func TestAServerThatHasLostItsClaim(t *testing.T) {
	for _, k := range servers() {
		t.Run(k.scheme, func(t *testing.T) {
			store := emptyStore(t, k)
			serveProgram(t, store, func(cmd *exec.Cmd, addr string) {
				said := func() string { return cmd.Stderr.(*log).String() }
				c := asking(t, addr)
				c.want("SET a 1", "OK")
				c.want("GET a", "1")
				release := stealClaim(t, k, store, func() {
					for !strings.Contains(said(), "another server serves the table now") {
						runtime.Gosched()
					}
				})
				if got := c.ask("SET a 2"); !strings.HasPrefix(got, "UNAVAILABLE ") || !strings.Contains(got, "lost its claim") {
					t.Errorf("a write without the claim is answered with %q", got)
				}
				neighbourOf(t, store).exec("UPDATE lockstep_keys SET value = 's9'")
				c.want("GET a", "9")
				release()
				for deadline := time.Now().Add(time.Minute); ; {
					got := c.ask("SET a 3")
					if got == "OK" {
						break
					}
					if !strings.HasPrefix(got, "UNAVAILABLE ") || time.Now().After(deadline) {
						t.Fatalf("afterwards a write is answered with %q: %s", got, said())
					}
				}
				c.want("GET a", "3")
			})
		})
	}
}

// TestWithoutTheClaimATransactionThatAnotherTableHasBegunIsRefused: whose store begins one
// that concerns two tables is a matter of chance.
func TestWithoutTheClaimATransactionThatAnotherTableHasBegunIsRefused(t *testing.T) {
	at, err := parseStore(emptyStore(t, sqliteKind))
	if err != nil {
		t.Fatal(err)
	}
	g, err := at.visit(t.Context(), "keys")
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	store, err := g.keys(t.Context(), "keys")
	if err != nil {
		t.Fatal(err)
	}
	s := &claimed[string, server.Value]{Store: store}
	txn, err := store.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Rollback(t.Context())
	set := lockstep.ChangeSet[string, server.Value]{Changes: []lockstep.Change[string, server.Value]{{Key: "a", Value: server.NewString("1")}}}
	for _, held := range []bool{false, true} {
		s.held.Store(held)
		o, err := s.Capabilities().Apply(t.Context(), txn, set)
		if err == nil {
			err = o.Err
		}
		if (err == nil) != held || !held && !errors.Is(err, errUnclaimed) {
			t.Errorf("held: %t; %v", held, err)
		}
	}
}

// stealClaim ends the session that has the claim, and takes it, until release. lost waits
// until the server has noticed.
func stealClaim(t *testing.T, k kind, store string, lost func()) (release func()) {
	t.Helper()
	n := neighbourOf(t, store)
	ctx := t.Context()
	conn, err := n.db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	do := func(query string) {
		t.Helper()
		if _, err := conn.ExecContext(ctx, query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	if k.scheme == "postgres" {
		var pid, id int64
		if err := conn.QueryRowContext(ctx, "SELECT pid, objid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = $1", claimClass).Scan(&pid, &id); err != nil {
			t.Fatal(err)
		}
		do(fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
		do(fmt.Sprintf("SELECT pg_advisory_lock(%d, %d)", claimClass, id))
		lost()
		return func() { do("SELECT pg_advisory_unlock_all()") }
	}
	var database string
	if err := conn.QueryRowContext(ctx, "SELECT DATABASE()").Scan(&database); err != nil {
		t.Fatal(err)
	}
	name := claimName(database, "lockstep_keys")
	var id int64
	if err := conn.QueryRowContext(ctx, "SELECT IS_USED_LOCK(?)", name).Scan(&id); err != nil {
		t.Fatal(err)
	}
	do(fmt.Sprintf("KILL %d", id))
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, 10)", name).Scan(&got); err != nil || got.Int64 != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	lost()
	return func() { do("DO RELEASE_LOCK('" + name + "')") }
}

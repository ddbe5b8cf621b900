package server

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// TestShortRequestDoesNotBuildAnEndlessReply: one that names a large value again and again, which
// would take all memory that there is.
func TestShortRequestDoesNotBuildAnEndlessReply(t *testing.T) {
	const limit = 64 << 10
	_, addr := start(t, Options{Store: memstore.New(memstore.Options[string, Value]{}), Limits: resp.Limits{MaxRequest: limit}})
	p := dial(t, addr)
	value := strings.Repeat("x", limit/4)
	p.ask("SET k "+value, "+OK\r\n")
	p.ask("HSET h f "+value, ":1\r\n")
	refused := fmt.Sprintf("-ERR too large: the reply would have more than %d bytes (Limits.MaxRequest)\r\n", limit)
	for request, want := range map[string]string{
		"MGET" + strings.Repeat(" k", 1000):    refused,
		"HMGET h" + strings.Repeat(" f", 1000): refused,
		"MGET k k k":                           "*3\r\n" + strings.Repeat(text(value), 3),
		"HMGET h f f f":                        "*3\r\n" + strings.Repeat(text(value), 3),
	} {
		p.ask(request, want)
		p.ask("MULTI", "+OK\r\n")
		p.ask(request, "+QUEUED\r\n")
		p.ask("EXEC", "*1\r\n"+want)
	}
}

// TestWhoIsReadOnlyByNowDoesNotAdministerByExec what he has queued before.
func TestWhoIsReadOnlyByNowDoesNotAdministerByExec(t *testing.T) {
	var readOnly atomic.Bool
	s, addr := start(t, Options{
		Store: memstore.New(memstore.Options[string, Value]{}),
		Users: func(name string) (User, bool) {
			return User{NoPassword: true, ReadOnly: readOnly.Load()}, name == defaultUser
		},
	})
	p, other := dial(t, addr), dial(t, addr)
	other.ask("PING", pong)
	p.exchange("MULTI", "CLIENT KILL TYPE normal", "SET k v", "PING")
	readOnly.Store(true)
	s.UsersChanged()
	p.ask("EXEC", "*3\r\n-"+notAnyMore+"\r\n-"+notAnyMore+"\r\n+PONG\r\n")
	other.ask("PING", pong)
}

// TestNoModeWithoutACommitIsServed: OK says that the database has it.
func TestNoModeWithoutACommitIsServed(t *testing.T) {
	for _, mode := range []lockstep.Mode{lockstep.WriteBehind, lockstep.CacheAside} {
		_, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{}), Cache: lockstep.Options[string, Value]{Mode: mode}})
		if want := "server: Options.Cache: its Mode is " + mode.String(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

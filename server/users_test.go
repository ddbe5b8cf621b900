package server

import (
	"strings"
	"sync"
	"testing"

	"net/url"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// people is a list of users that changes.
type people struct {
	mu  sync.Mutex
	all map[string]User
}

func (p *people) find(name string) (User, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u, ok := p.all[name]
	return u, ok
}

func (p *people) set(name string, u *User) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if delete(p.all, name); u != nil {
		p.all[name] = *u
	}
}

func password(text string) []PasswordHash { return []PasswordHash{HashPassword(text)} }

// TestReadOnlyUserWritesNothing: alone, and in a run of writes that a pipeline makes, beside
// which a user who may write is not held up.
func TestReadOnlyUserWritesNothing(t *testing.T) {
	users := &people{all: map[string]User{"default": {NoPassword: true}, "reader": {Passwords: password("secret"), ReadOnly: true}}}
	_, addr := start(t, Options{Store: openStore(t), Users: users.find})
	writer, reader := dial(t, addr), dial(t, addr)
	writer.ask("SET a 1", "+OK\r\n")
	reader.ask("AUTH reader secret", "+OK\r\n")
	for _, command := range []string{"set", "incr", "del", "flushall"} {
		arg := map[string]string{"set": " a 2", "flushall": ""}[command]
		if command == "incr" || command == "del" {
			arg = " a"
		}
		reader.ask(command+arg, "-NOPERM this user has no permissions to run the '"+command+"' command\r\n")
	}
	reader.ask("CLIENT LIST", "-NOPERM this user has no permissions to run the 'client|list' command\r\n")
	reader.ask("SET a", "-ERR wrong number of arguments for 'set' command\r\n")
	reader.send(strings.Repeat("SET a 2\r\nINCR a\r\n", 10))
	for range 10 {
		reader.want("-NOPERM this user has no permissions to run the 'set' command\r\n")
		reader.want("-NOPERM this user has no permissions to run the 'incr' command\r\n")
	}
	reader.ask("GET a", "$1\r\n1\r\n")
	reader.ask("TTL a", ":-1\r\n")
	reader.ask("CLIENT ID", ":2\r\n")
	reader.ask("RESET", "+RESET\r\n")
	reader.ask("INCR a", ":2\r\n")
}

// TestRefusalsAreRedis: the same commands of a user who is read-only.
func TestRefusalsAreRedis(t *testing.T) {
	u, err := url.Parse(dbtest.StartRedis(t, "databases 1").URL())
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := u.User.Password()
	redis := target{u.Host, secret}
	if got := redis.ask(t, nil, []string{"auth " + secret, "acl setuser reader on >secret ~* &* +@all -@write -@admin"}); got[1].Text != "OK" {
		t.Fatalf("%s", got)
	}
	_, addr := start(t, Options{Store: openStore(t), Users: (&people{all: map[string]User{"reader": {Passwords: password("secret"), ReadOnly: true}}}).find})
	begin := func(target) [][]byte { return [][]byte{[]byte("AUTH reader secret\r\n")} }
	for _, script := range []string{"set a 1", "set a", "get a", "flushall", "client list", "client kill", "client kill a", "client id x", "client foo", "mget a b", "del", "del a", "acl whoami", "acl", "acl foo", "acl whoami x"} {
		compare(t, nil, nil, redis, target{addr, secret}, begin, strings.Split(script, "; "))
	}
}

func TestConnectionsFollowTheirUsers(t *testing.T) {
	users := &people{all: map[string]User{
		"default": {NoPassword: true},
		"a":       {Passwords: password("secret")},
		"b":       {Passwords: password("secret")},
	}}
	s, addr := start(t, Options{Store: openStore(t), Users: users.find})
	anybody, a, b := dial(t, addr), dial(t, addr), dial(t, addr)
	anybody.ask("PING", "+PONG\r\n")
	a.ask("AUTH a secret", "+OK\r\n")
	b.ask("AUTH b secret", "+OK\r\n")
	b.ask("ACL WHOAMI", "$1\r\nb\r\n")
	b.ask("SET x 1", "+OK\r\n")

	users.set("a", nil)
	users.set("b", &User{Passwords: password("other"), ReadOnly: true})
	s.UsersChanged()
	a.wantEnd()
	b.ask("SET x 2", "-NOPERM this user has no permissions to run the 'set' command\r\n")
	b.ask("GET x", "$1\r\n1\r\n")
	anybody.ask("SET x 2", "+OK\r\n")

	users.set("default", nil)
	s.UsersChanged()
	anybody.wantEnd()
	stranger := dial(t, addr)
	stranger.ask("GET x", "-NOAUTH Authentication required.\r\n")
	s.UsersChanged()
	stranger.ask("AUTH b secret", "-"+wrongPassword+"\r\n")
	stranger.ask("AUTH b other", "+OK\r\n")
	stranger.ask("GET x", "$1\r\n2\r\n")

	// One that UsersChanged has not met, for it became the user's beside it.
	users.set("b", nil)
	s.usersChanges.Add(1)
	b.send("GET x\r\n")
	b.wantEnd()
}

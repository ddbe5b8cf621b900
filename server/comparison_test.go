package server

import (
	"net/url"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/resp"
)

// comparison sends scripts to a real Redis and to a Server over a database, both empty when
// a script begins, and counts what differs.
type comparison struct {
	redis, ours       target
	permitted         []difference
	needed            []int // how often each of them was
	requests, scripts int
}

// newComparison starts both, with one password.
func newComparison(t *testing.T, permitted []difference) *comparison {
	t.Helper()
	u, err := url.Parse(dbtest.StartRedis(t, "databases 1").URL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	_, addr := start(t, Options{Store: openStore(t), Users: func(name string) (User, bool) {
		return User{Passwords: []PasswordHash{HashPassword(password)}}, name == defaultUser
	}})
	return &comparison{redis: target{u.Host, password}, ours: target{addr, password}, permitted: permitted, needed: make([]int, len(permitted))}
}

// lines are a script's requests, which are counted.
func (c *comparison) lines(script string) []string {
	lines := strings.Split(script, "; ")
	c.requests += len(lines)
	c.scripts++
	return lines
}

// pipeline sends a script as one pipeline, in a version of the protocol.
func (c *comparison) pipeline(t *testing.T, version, script string) {
	t.Helper()
	compare(t, c.permitted, c.needed, c.redis, c.ours, func(g target) [][]byte {
		return [][]byte{resp.AppendRequest(nil, "HELLO", version, "AUTH", defaultUser, g.password), resp.AppendRequest(nil, "FLUSHALL")}
	}, c.lines(script))
}

// report tells how often each permitted difference was needed. One that never was is not
// permitted any more.
func (c *comparison) report(t *testing.T) {
	t.Helper()
	for i, d := range c.permitted {
		t.Logf("%6d  %s", c.needed[i], d.reason)
		if c.needed[i] == 0 && !d.chance {
			t.Errorf("%q is permitted, and not needed", d.reason)
		}
	}
	t.Logf("%d requests in %d scripts, %d permitted differences", c.requests, c.scripts, len(c.permitted))
}

package server

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// trackingScripts are for one connection each, which does not know of keys.
var trackingScripts = []string{
	"client tracking", "client tracking on", "client tracking off", "client tracking x", "client tracking on foo", "client tracking on; client trackinginfo; client getredir; client info", "client tracking on; client tracking off; client trackinginfo; client getredir; client info",
	"client tracking on redirect", "client tracking on redirect x", "client tracking on redirect 999999", "client tracking on redirect 0", "client tracking on redirect -1", "client tracking off redirect 999999", "client tracking off foo", "client tracking off bcast optin prefix a",
	"client tracking on prefix a", "client tracking on prefix", "client tracking on bcast; client trackinginfo", "client tracking on bcast prefix a prefix b; client trackinginfo; client info", "client tracking on bcast prefix b prefix a; client trackinginfo", "client tracking on bcast prefix ''; client trackinginfo",
	"client tracking on bcast prefix a prefix ab", "client tracking on bcast prefix ab prefix a", "client tracking on bcast prefix a prefix a", "client tracking on bcast prefix a; client tracking on bcast prefix a", "client tracking on bcast prefix a; client tracking on bcast prefix ab", "client tracking on bcast prefix a; client tracking on bcast prefix b; client trackinginfo", "client tracking on bcast prefix a; client tracking on bcast noloop; client trackinginfo", "client tracking on bcast; client tracking on bcast prefix a",
	"client tracking on bcast optin", "client tracking on bcast optout", "client tracking on optin optout", "client tracking on optin; client tracking on optout", "client tracking on optout; client tracking on optin", "client tracking on optin; client tracking on; client trackinginfo", "client tracking on; client tracking on bcast", "client tracking on bcast; client tracking on", "client tracking on optin; client tracking on bcast",
	"client tracking on optin noloop; client trackinginfo; client info", "client tracking on optin; client tracking off; client tracking on optout; client trackinginfo",
	"client caching", "client caching yes", "client caching x", "client tracking on; client caching yes; client caching no; client caching x", "client tracking on optin; client caching yes; client caching no; client caching x; client trackinginfo; ping; client trackinginfo", "client tracking on optout; client caching yes; client caching no; client trackinginfo; nosuch; client trackinginfo",
	"client tracking on optin; client caching yes; client tracking off; client trackinginfo; client tracking on optin; client trackinginfo", "client tracking on optin; client caching yes; client; client trackinginfo; client caching yes; client nosuch; client trackinginfo", "client tracking on optin; client caching yes; ping x y; client trackinginfo",
	"client trackinginfo", "client trackinginfo x", "client getredir", "client getredir x", "client tracking on; reset; client trackinginfo; client getredir", "client tracking on bcast prefix a; reset; client trackinginfo",
	"client unblock", "client unblock x", "client unblock 999999", "client unblock 999999 timeout", "client unblock 999999 ERROR", "client unblock 999999 foo", "client unblock x foo", "client unblock 999999 timeout x", "client unblock -1",
	"hello 3; client tracking on; client trackinginfo; client info", "hello 3; client tracking on bcast prefix a; client trackinginfo", "hello 3; client trackinginfo",
}

// trackingTalks are conversations about keys.
var trackingTalks = []string{
	"a: hello 3; a: client tracking on; a: get k; b: set k 1; b: set k 2; a: get k; b: set k 3",
	"a: hello 3; a: client tracking on; a: set k 1; a: get k; a: set k 2; a: get k; a: del k; a: set k 3",
	"a: hello 3; a: client tracking on; a: mget k l m; b: mset k 1 l 2; b: del m k", "a: hello 3; a: client tracking on; a: exists k k; b: setnx k 1; b: setnx k 2; a: strlen k; b: append k x; a: getrange k 0 1; b: setrange k 0 y; a: type k; b: expire k 100; a: ttl k; b: persist k; a: touch k; b: getdel k",
	"a: hello 3; a: client tracking on; a: get k; b: getex k; b: set k 1; a: get k; b: getex k; b: getex k ex 100; a: get k; b: getset k 2; a: get k; b: incr k; a: get k; b: incrbyfloat k 1; a: get k; b: set k x get; a: get k; b: set k 1 nx; b: set k 1 xx",
	"a: hello 3; a: client tracking on; b: set k x; a: get k; b: incr k; b: expire k 100 gt; b: setrange k 0 ''; b: expire nosuch 10; b: getdel nosuch", "a: hello 3; a: client tracking on; b: set k 1; a: keys *; a: scan 0; a: dbsize; a: randomkey; b: set k 2",
	"a: hello 3; a: client tracking on; b: set k 1 ex 1000; a: get k; b: pexpire k -1; a: get k; b: set k 1",
	"a: hello 3; a: client tracking on; a: get k; b: flushall; b: set k 1; a: get k; b: flushdb; a: flushall", "a: hello 3; a: client tracking on noloop; a: get k; a: set k 1; b: set k 2; a: get k; b: set k 3; a: get k; a: flushall",
	"a: hello 3; a: client tracking on optin; a: get k; b: set k 1; a: client caching yes | get k; b: set k 2", "a: hello 3; a: client tracking on optout; a: get k; b: set k 1; a: client caching no | get k; b: set k 2; a: get k; b: set k 3",
	"a: hello 3; a: client tracking on; a: get k; a: client tracking off; b: set k 1; a: client tracking on; b: set k 2; a: get k; a: client tracking off; a: client tracking on; b: set k 3", "a: hello 3; a: client tracking on; a: get k; a: reset; a: hello 3; b: set k 1",
	"a: hello 3; a: client tracking on; a: get k; a: hello 2; b: set k 1; a: hello 3; b: set k 2; a: get k; b: set k 3", "a: client tracking on; a: get k; b: set k 1; a: hello 3; a: get k; b: set k 2",
	"a: hello 3; a: client tracking on bcast; b: set k 1; a: set l 2; b: get k; b: del k; b: flushall", "a: hello 3; a: client tracking on bcast prefix a prefix b; b: set ax 1; b: set bx 1; b: set cx 1; b: del ax; b: mset bx 1 cy 2; a: set a 1; a: ping",
	"a: hello 3; a: client tracking on bcast noloop; a: set k 1; b: set k 2; a: flushall", "a: hello 3; a: client tracking on bcast prefix a; a: client tracking on bcast prefix b; b: set ax 1; b: set bx 1; a: client tracking off; b: set ax 2; a: client tracking on bcast; b: set ax 3",
	"a: hello 3; b: hello 3; a: client tracking on; b: client tracking on; a: get k; b: get k; c: set k 1; a: get k; c: set k 2; b: get k; a: set k 3; b: set k 4",
	"b: hello 2; b: subscribe x; a: client tracking on redirect $b; a: client trackinginfo; a: client getredir; a: client info; a: get k; c: set k 1; a: get k; a: set k 2; a: get k; c: flushall", "b: hello 3; a: hello 2; a: client tracking on redirect $b; a: get k; c: set k 1; a: get k; a: set k 2; c: flushall",
	"b: hello 2; a: client tracking on redirect $b; a: get k; c: set k 1; b: subscribe __redis__:invalidate; a: get k; c: set k 2; b: unsubscribe __redis__:invalidate; a: get k; c: set k 3",
	"b: hello 2; b: subscribe x; a: client tracking on redirect $b bcast prefix k; c: set k 1; a: set k2 1; c: set l 1; c: flushall", "a: hello 3; a: client tracking on redirect $a; a: get k; b: set k 1; a: get k; a: set k 2; a: client info",
	"a: hello 3; b: ping; a: client tracking on redirect $b; a: get k; b: close; c: set k 1; a: client trackinginfo; a: client getredir; a: get k; a: set k 2; c: flushall; a: client info; a: client tracking on; a: client trackinginfo",
	"a: hello 2; b: ping; a: client tracking on redirect $b; a: get k; b: close; c: set k 1; a: client trackinginfo; a: client info", "a: hello 3; b: ping; a: client tracking on redirect $b; a: get k; b: close; a: set k 1; a: client trackinginfo",
	"a: hello 3; a: client tracking on; a: get k; a: close; b: set k 1", "a: hello 3; a: client tracking on; a: get k; b: client kill id $a; b: set k 1", "a: hello 3; a: client tracking on; a: get \"\\x00\\r\\n\"; b: set \"\\x00\\r\\n\" 1; a: get ''; b: set '' 1",
	"a: hello 3; a: client tracking on; a: subscribe c; a: get k; b: publish c 1; b: set k 1; b: publish c 2; a: publish c 3; a: get k; a: set k 2",
	"a: hello 3; a: client tracking on; a: multi | get k | get l | exec; b: set k 1; b: multi | set k 2 | set l 2 | exec; a: get k; a: multi | set k 3 | incr k | exec; b: set k 4", "a: hello 3; a: client tracking on optin; a: client caching yes | multi | get k | get l | exec; b: set k 1; b: set l 1; a: multi | get k | exec; b: set k 2",
	"a: hello 3; a: client tracking on; a: get k; b: watch k; c: set k 2; b: multi | set k 1 | exec; a: get k; b: set k 3", "a: hello 3; a: client tracking on; b: set k 1; a: mget k l; b: rename k l; a: mget k l; b: copy l k; a: mget k l; b: renamenx k l; b: rename k k", "a: hello 3; a: client tracking on; a: get k; a: multi | client tracking off | exec; b: set k 1",
	"a: hello 3; a: client tracking on; a: hget h f; b: hset h f 1; a: hgetall h; b: hset h f 1; a: hmget h f g; b: hdel h g; b: hdel h f; a: hexists h f; b: hincrby h f 1; a: hlen h; b: hsetnx h f 2; b: hsetnx h g 2; a: get h; b: hset h f 3",
}

// TestTrackingIsRedis has a real Redis and a Server take part in the same conversations.
func TestTrackingIsRedis(t *testing.T) {
	u, err := url.Parse(dbtest.StartRedis(t, "databases 1").URL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	_, addr := start(t, Options{Store: openStore(t), Users: func(name string) (User, bool) {
		return User{Passwords: []PasswordHash{HashPassword(password)}}, name == defaultUser
	}})
	sameConversations(t, []talk{
		{"addresses, ages and memory are each server's own", regexp.MustCompile(`client info`), maskLines, false},
		{"a null is of the version that its receiver speaks; Redis's of that which the tracking connection does", regexp.MustCompile(`redirect \$b`), anyNull, false},
		{"an invalidation by prefix of a connection's own write follows the reply; with Redis, the replies to all that came together", regexp.MustCompile(`bcast`), anyStep, false},
		{"the keys of one command are told in any order", regexp.MustCompile(`mset|rename`), anyOrder, true},
	}, target{u.Host, password}, target{addr, password}, trackingTalks)
}

// anyStep is for messages that come with the next step.
func anyStep(heard []string) []string {
	var texts []string
	for _, line := range heard {
		_, text, _ := strings.Cut(line, " ")
		texts = append(texts, text)
	}
	return anyOrder(texts)
}

func anyNull(heard []string) []string {
	var masked []string
	for _, line := range heard {
		masked = append(masked, strings.NewReplacer(`$-1`, `_`, `$-0`, `_`).Replace(line)) // as maskLines leaves it
	}
	return masked
}

package server

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestVersionsOfRows(t *testing.T) {
	_, addr := start(t, Options{Store: openStore(t)})
	p := dial(t, addr)
	p.ask("LOCKSTEP.GETV a", "*-1\r\n")
	p.ask("LOCKSTEP.SETV a one 5", "-CONFLICT the key holds nothing\r\n")
	first, ok := p.exchange("LOCKSTEP.SETV a one 0").Int()
	if !ok || first <= 0 {
		t.Fatalf("the new version is %d", first)
	}
	p.ask("lockstep.getv a", fmt.Sprintf("*2\r\n$3\r\none\r\n:%d\r\n", first))
	p.ask("LOCKSTEP.SETV a two 0", fmt.Sprintf("-CONFLICT the key is at version %d\r\n", first))
	p.ask(fmt.Sprintf("LOCKSTEP.SETV a two %d", first-1), fmt.Sprintf("-CONFLICT the key is at version %d\r\n", first))
	second, ok := p.exchange(fmt.Sprintf("LOCKSTEP.SETV a two %d", first)).Int()
	if !ok || second <= first {
		t.Fatalf("the version was %d, and is %d", first, second)
	}
	p.ask("GET a", "$3\r\ntwo\r\n")
	p.ask("INCR a", "-"+notAnInteger+"\r\n")
	p.ask("SET a 3", "+OK\r\n")
	v := p.exchange("LOCKSTEP.GETV a")
	if third, _ := v.Elems[1].Int(); third <= second {
		t.Errorf("%s, after version %d", v, second)
	}
	for request, want := range map[string]string{
		"LOCKSTEP.SETV a x y":                   notAnInteger,
		"LOCKSTEP.SETV a x -1":                  "ERR a version is not negative",
		"LOCKSTEP.SETV a x 9223372036854775808": notAnInteger,
		"LOCKSTEP.SETV a x":                     "ERR wrong number of arguments for 'lockstep.setv' command",
		"LOCKSTEP.GETV":                         "ERR wrong number of arguments for 'lockstep.getv' command",
		"LOCKSTEP.NOSUCH x":                     "ERR unknown command 'LOCKSTEP.NOSUCH', with args beginning with: 'x' ",
	} {
		p.ask(request, "-"+want+"\r\n")
	}
	p.ask("HSET h f v", ":1\r\n")
	p.ask("LOCKSTEP.GETV h", "-"+wrongType+"\r\n")
	if v := p.exchange("MULTI", "LOCKSTEP.GETV a", "SET a 4", "LOCKSTEP.GETV a", "LOCKSTEP.GETV b", "EXEC"); len(v.Elems) != 4 || len(v.Elems[0].Elems) != 2 ||
		v.Elems[2].Kind != resp.Error || v.Elems[3].Kind != resp.Null && v.Elems[3].String() == "" {
		t.Errorf("inside MULTI: %s", v)
	}
	if v := p.exchange("MULTI", "LOCKSTEP.SETV a 1 1"); v.Kind != resp.Error || !strings.Contains(v.Text, "not allowed inside MULTI") {
		t.Errorf("inside MULTI: %s", v)
	}
}

// TestConditionalSetsOfManyHaveOneWinner for each version.
func TestConditionalSetsOfManyHaveOneWinner(t *testing.T) {
	_, addr := start(t, Options{Store: openStore(t)})
	p := dial(t, addr)
	version, _ := p.exchange("LOCKSTEP.SETV a first 0").Int()
	var requests []string
	for i := range 50 { // one run, whose members are beside each other with others of the connection
		requests = append(requests, fmt.Sprintf("LOCKSTEP.SETV a %d %d", i, version))
	}
	p.send(strings.Join(requests, "\r\n") + "\r\n")
	won := 0
	for range requests {
		v, err := p.replies.Decode()
		if err != nil {
			t.Fatal(err)
		}
		if v.Kind == resp.Integer {
			won++
		} else if !strings.HasPrefix(v.Text, "CONFLICT the key is at version ") {
			t.Errorf("%s", v)
		}
	}
	if won != 1 {
		t.Errorf("%d of 50 have won", won)
	}
}

func TestUnknownConditionalSetIsNoConflict(t *testing.T) {
	store := fault.Inject[string, Value](memstore.New(memstore.Options[string, Value]{}), fault.MustParse("commit 1: lose reply"), 1)
	_, addr := start(t, Options{Store: store})
	if v := dial(t, addr).exchange("LOCKSTEP.SETV a 1 0"); !strings.HasPrefix(v.Text, "UNKNOWN ") {
		t.Errorf("%s", v)
	}
}

// field returns what a map says by a name.
func field(t *testing.T, v resp.Value, name string) resp.Value {
	t.Helper()
	for i := 0; i+1 < len(v.Elems); i += 2 {
		if v.Elems[i].Text == name {
			return v.Elems[i+1]
		}
	}
	t.Fatalf("no %s in %s", name, v)
	return v
}

func TestAuditFindsWhatWasWrittenBehindTheServersBack(t *testing.T) {
	table := memstore.New(memstore.Options[string, Value]{})
	_, addr := start(t, Options{Store: table})
	p := dial(t, addr)
	p.exchange("SET a 1", "SET b 2", "SET c 3")
	if v := p.exchange("LOCKSTEP.AUDIT"); field(t, v, "differences").Text != "0" || field(t, v, "entries").Text != "3" {
		t.Errorf("%s", v)
	}
	if _, err := table.Commit(context.Background(), []lockstep.ChangeSet[string, Value]{
		{Changes: []lockstep.Change[string, Value]{{Key: "a", Value: NewString("9")}}}, {Changes: []lockstep.Change[string, Value]{{Key: "b", Delete: true}}},
	}); err != nil {
		t.Fatal(err)
	}
	v := p.exchange("HELLO 3", "LOCKSTEP.AUDIT")
	if n := field(t, v, "differences").Text; n != "2" || len(field(t, v, "examples").Elems) != 2 {
		t.Errorf("%s", v)
	}
	p.ask("MGET a b c", "*3\r\n$1\r\n9\r\n_\r\n$1\r\n3\r\n")
}

func TestStatusTellsWhatBecameOfWrites(t *testing.T) {
	store := fault.Inject[string, Value](memstore.New(memstore.Options[string, Value]{}), fault.MustParse("commit 2: fail"), 1)
	_, addr := start(t, Options{Store: store})
	p := dial(t, addr)
	p.exchange("SET a 1")
	p.exchange("SET a 2")
	p.exchange("GET a")
	for _, hello := range []string{"HELLO 2", "HELLO 3"} {
		v := p.exchange(hello, "LOCKSTEP.STATUS")
		for name, want := range map[string]string{"status": "serving", "clients": "1", "writes_committed": "1", "writes_unavailable": "1", "writes_unknown": "0", "writes_in_doubt": "0", "writes_queued": "0"} {
			if got := field(t, v, name).Text; got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		for _, name := range []string{"store", "hits", "commit_usec_p99", "watching", "hit_rate"} {
			field(t, v, name)
		}
	}
	_, bare := start(t, Options{})
	if v := dial(t, bare).exchange("LOCKSTEP.STATUS"); field(t, v, "status").Text != "serving" {
		t.Errorf("%s", v)
	}
}

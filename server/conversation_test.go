package server

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// A conversation is what several connections say, and what each of them then hears. Its
// script has steps like "a: SUBSCRIBE x", separated by semicolons; "a: MULTI | PING | EXEC" is one; connections are opened
// when they are first named, and $a is the number of a. "a: close" closes one. After each
// step every connection makes a round trip, so that whatever was to be sent because of the
// step is there.

// talker is one of the connections.
type talker struct {
	name string
	net.Conn
	in  *resp.Decoder
	id  string
	end bool
}

type conversation struct {
	t       *testing.T
	g       target
	version string
	talkers []*talker
	heard   []string
	step    int
	request string // of the step
}

func (c *conversation) talker(name string) *talker {
	for _, k := range c.talkers {
		if k.name == name {
			return k
		}
	}
	c.t.Helper()
	nc, err := net.Dial("tcp", c.g.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	k := &talker{name: name, Conn: nc, in: resp.NewDecoder(nc, resp.DecodeLimits{})}
	c.talkers = append(c.talkers, k)
	k.say(resp.AppendRequest(resp.AppendRequest(nil, "HELLO", c.version, "AUTH", defaultUser, c.g.password), "CLIENT", "ID"))
	if _, err := k.in.Decode(); err != nil {
		c.t.Fatal(err)
	}
	id, err := k.in.Decode()
	if err != nil {
		c.t.Fatal(err)
	}
	k.id = id.Text
	return k
}

// say may come too late: the end is heard then.
func (k *talker) say(b []byte) { _, _ = k.Write(b) }

// hear returns what has come until the reply to a PING with that text.
func (c *conversation) hear(k *talker, mark string) {
	c.t.Helper()
	for {
		v, err := k.in.Decode()
		if err != nil {
			k.end = true
			c.heard = append(c.heard, fmt.Sprintf("%d %s the end", c.step, k.name))
			return
		}
		if v.Text == mark || len(v.Elems) == 2 && v.Elems[1].Text == mark {
			return
		}
		text := string(v.AppendTo(nil))
		for _, other := range c.talkers {
			// Where a number is one of a connection.
			text = regexp.MustCompile(`(redirect\r\n:|broken\r\n:|id\r\n:| redir=|id=)`+other.id+`\b`).ReplaceAllString(text, "$1<"+other.name+">")
			if strings.HasSuffix(c.request, "getredir") && text == ":"+other.id+"\r\n" {
				text = "<" + other.name + ">"
			}
		}
		c.heard = append(c.heard, fmt.Sprintf("%d %s %q", c.step, k.name, text))
	}
}

// converse runs a script, and returns what was heard, a line for each reply or message.
func converse(t *testing.T, g target, version, script string) []string {
	t.Helper()
	c := &conversation{t: t, g: g, version: version}
	for step := range strings.SplitSeq(script, "; ") {
		c.step++
		name, request, _ := strings.Cut(step, ": ")
		k := c.talker(name)
		if request == "close" {
			k.Close()
			k.end = true
			c.leave(k)
			continue
		}
		for _, other := range c.talkers {
			request = strings.ReplaceAll(request, "$"+other.name, other.id)
		}
		c.request = request
		request = strings.ReplaceAll(request, " | ", "\r\n")
		mark := "mark-" + strconv.Itoa(c.step)
		if request == "reset" {
			request += "\r\nAUTH " + g.password
		}
		k.say(append([]byte(request+"\r\n"), resp.AppendRequest(nil, "PING", mark)...))
		c.hear(k, mark)
		for _, other := range c.talkers {
			if other != k && !other.end {
				other.say(resp.AppendRequest(nil, "PING", mark))
				c.hear(other, mark)
			}
		}
	}
	for _, k := range c.talkers {
		k.Close()
	}
	return c.heard
}

// leave waits until the server knows that a connection is closed.
func (c *conversation) leave(gone *talker) {
	c.t.Helper()
	asks := c.talker("leaver")
	for {
		asks.say(resp.AppendRequest(nil, "CLIENT", "LIST", "ID", gone.id))
		v, err := asks.in.Decode()
		if err != nil {
			c.t.Fatal(err)
		}
		if !strings.Contains(v.Text, "id=") {
			return
		}
	}
}

// sameConversations has two servers take part in the same conversations, in both versions
// of the protocol. Messages that one connection hears at one step may be in another order
// where the difference at that step is permitted to be one of order.
func sameConversations(t *testing.T, permitted []talk, redis, ours target, scripts []string) {
	t.Helper()
	steps := 0
	needed := make([]int, len(permitted))
	for _, version := range []string{"2", "3"} {
		for _, script := range scripts {
			steps += strings.Count(script, "; ") + 1
			before := "z: FLUSHALL; "
			want, got := converse(t, redis, version, before+script), converse(t, ours, version, before+script)
			if slices.Equal(want, got) {
				continue
			}
			var used []int
			maskedWant, maskedGot := want, got
			for i, d := range permitted {
				if d.script.MatchString(script) {
					used = append(used, i)
					maskedWant, maskedGot = d.mask(maskedWant), d.mask(maskedGot)
				}
			}
			if slices.Equal(maskedWant, maskedGot) {
				for _, i := range used {
					needed[i]++
				}
				continue
			}
			t.Errorf("RESP%s %q:\n\t%s\nand Redis\n\t%s", version, script, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
	for i, d := range permitted {
		t.Logf("%6d  %s", needed[i], d.reason)
		if needed[i] == 0 && !d.chance {
			t.Errorf("%q is permitted, and not needed", d.reason)
		}
	}
	t.Logf("%d steps in %d conversations, %d permitted differences", steps, 2*len(scripts), len(permitted))
}

// talk is a permitted difference of conversations.
type talk struct {
	reason string
	script *regexp.Regexp
	mask   func(heard []string) []string
	chance bool
}

// anyOrder is for what one connection hears at one step.
func anyOrder(heard []string) []string {
	heard = slices.Clone(heard)
	slices.Sort(heard)
	return heard
}

// maskLines takes the fields out of lines of clients that are each server's own.
func maskLines(heard []string) []string {
	var masked []string
	for _, line := range heard {
		line, _, _ = strings.Cut(line, " resp=")
		masked = append(masked, number.ReplaceAllString(clientField.ReplaceAllString(line, ""), "0"))
	}
	return masked
}

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// guide shows what the service does, as a client of it. Its error is that something was
// not as it should be.
func guide(ctx context.Context, out io.Writer, url string) error {
	g := &visitor{ctx: ctx, out: out, url: url, devices: map[string]string{}}
	// A store that stays has the users of other tours.
	ada := "ada-" + strings.ToLower(rand.Text()[:6])
	const first, second = "correct horse", "battery staple"

	g.say("Ada signs up, and signs in twice: on her phone, and on a machine she leaves.")
	g.ask("", 201, "POST /users", map[string]any{"name": ada, "password": first, "display": "Ada"})
	phone := g.signIn("phone", ada, first)
	other := g.signIn("other", ada, first)
	g.ask(other, 200, "GET /profile", nil)

	g.say("A profile that somebody else has changed meanwhile is not overwritten.")
	g.ask(phone, 200, "GET /profile", nil)
	seen := g.etag
	g.ifMatch = seen
	g.ask(other, 204, "PUT /profile", map[string]any{"display": "Ada Lovelace"})
	g.ifMatch = seen
	g.ask(phone, 412, "PUT /profile", map[string]any{"display": "Ada Byron"})
	g.ask(phone, 204, "PATCH /preferences", map[string]any{"theme": "dark"})

	g.say("She changes her password. Her phone stays in, and the other machine is out.")
	g.ask(phone, 204, "PUT /password", map[string]any{"old": first, "new": second})
	g.ask(other, 401, "GET /profile", nil)
	g.ask(phone, 200, "GET /preferences", nil)
	g.ask("", 403, "POST /sign-ins", map[string]any{"name": ada, "password": first})
	g.signIn("other", ada, second)

	g.say("")
	return g.err
}

// visitor asks, and says what it was answered.
type visitor struct {
	ctx  context.Context
	out  io.Writer
	url  string
	err  error // the first one
	etag string
	// ifMatch is sent with the next request.
	ifMatch string
	devices map[string]string // by token
}

func (g *visitor) say(what string) {
	if g.err == nil {
		_, g.err = fmt.Fprintf(g.out, "\n%s\n", what)
	}
}

func (g *visitor) signIn(device, name, password string) (token string) {
	var answer struct{ Token string }
	body := g.ask("", 201, "POST /sign-ins", map[string]any{"name": name, "password": password})
	if g.err == nil {
		g.err = json.Unmarshal(body, &answer)
	}
	g.devices[answer.Token] = device
	return answer.Token
}

// ask asks, and wants a status.
func (g *visitor) ask(token string, want int, what string, body any) (answer []byte) {
	if g.err != nil {
		return nil
	}
	answer, g.err = g.exchange(token, want, what, body)
	return answer
}

func (g *visitor) exchange(token string, want int, what string, body any) ([]byte, error) {
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	method, path, _ := strings.Cut(what, " ")
	r, err := http.NewRequestWithContext(g.ctx, method, g.url+path, bytes.NewReader(sent))
	if err != nil {
		return nil, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if g.ifMatch != "" {
		r.Header.Set("If-Match", g.ifMatch)
		g.ifMatch = ""
	}
	began := time.Now()
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(reply.Body, maxBody))
	if err != nil {
		return nil, err
	}
	g.etag = reply.Header.Get("ETag")
	fmt.Fprintf(g.out, "  %-7s%-20s%4d  %-32s%6.0f ms\n", g.devices[token], what, reply.StatusCode, brief(answer), time.Since(began).Seconds()*1000)
	if reply.StatusCode != want {
		return nil, fmt.Errorf("%s: %s; want %d", what, reply.Status, want)
	}
	return answer, nil
}

// brief is the beginning of an answer, for a line of 80 columns.
func brief(answer []byte) string {
	text := []rune(strings.TrimSpace(string(answer)))
	if len(text) > 31 {
		text = append(text[:30], '…')
	}
	return string(text)
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

var seedFlag = flag.Uint64("profiles.seed", 0, "the seed of the faults; 0 draws one")

// aSeed is printed when the test fails.
func aSeed(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("again: go test -race -run '%s' ./examples/profiles -profiles.seed %d", t.Name(), seed)
	return seed
}

// By way of HTTP, and by the service's own functions, where one can stop in the middle of
// a sign-in.
func TestNobodyIsLetInByAnOldSignIn(t *testing.T) {
	for name, door := range map[string]func(*Service) door{"functions": asItIs, "HTTP": overHTTP} {
		t.Run(name, func(t *testing.T) {
			everyDatabase(t, func(t *testing.T, tables *Tables) {
				play := tables.inject(aSeed(t))
				s := openService(t, tables)
				for _, f := range knock(t, s, door(s), play) {
					t.Error(f)
				}
				if s.signIns.Stats().Unknown == 0 {
					t.Error("no outcome was unknown: nothing was tested")
				}
			})
		})
	}
}

// overHTTP is the service as its clients see it.
func overHTTP(s *Service) door {
	h := s.Handler()
	status := func(code int) error {
		switch code {
		case http.StatusOK, http.StatusCreated, http.StatusNoContent:
			return nil
		case http.StatusUnauthorized:
			return ErrSignedOut
		case http.StatusForbidden:
			return ErrWrongPassword
		case http.StatusServiceUnavailable:
			return lockstep.ErrUnavailable
		}
		return fmt.Errorf("status %d", code)
	}
	return door{
		signIn: func(ctx context.Context, password string, between func()) (string, error) {
			reply := ask(ctx, h, "", "POST /sign-ins", map[string]any{"name": "ada", "password": password})
			between() // late, which is another case
			var body struct{ Token string }
			err := json.Unmarshal(reply.Body.Bytes(), &body)
			return body.Token, errors.Join(status(reply.Code), err)
		},
		signedIn: func(ctx context.Context, token string) error {
			return status(ask(ctx, h, token, "GET /profile", nil).Code)
		},
		change: func(ctx context.Context, token, old, password string) error {
			return status(ask(ctx, h, token, "PUT /password", map[string]any{"old": old, "new": password}).Code)
		},
	}
}

// ask sends a request; body is JSON, or a string that is sent as it is.
func ask(ctx context.Context, h http.Handler, token, what string, body any, headers ...string) *httptest.ResponseRecorder {
	method, path, _ := strings.Cut(what, " ")
	sent, ok := body.(string)
	if !ok && body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			panic(err)
		}
		sent = string(text)
	}
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(sent))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// A change of the password whose reply from the database is lost is waited for, and
// answered as if nothing had been.
func TestAPasswordIsChangedThoughTheReplyWasLost(t *testing.T) {
	proxy, url := dbtest.Via(t, dbtest.Postgres(t))
	s := openService(t, openTables(t, url))
	d := overHTTP(s)
	ctx := t.Context()
	if err := s.SignUp(ctx, "ada", "correct horse", Profile{Display: "Ada"}); err != nil {
		t.Fatal(err)
	}
	own, err := d.signIn(ctx, "correct horse", func() {})
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.signIn(ctx, "correct horse", func() {})
	if err != nil {
		t.Fatal(err)
	}
	lost := proxy.CutReply("COMMIT\x00")
	if err := d.change(ctx, own, "correct horse", "battery staple"); err != nil {
		t.Fatal(err)
	}
	<-lost
	if s.security.Stats().Unknown != 1 {
		t.Error("the outcome was known at once")
	}
	if err := d.signedIn(ctx, own); err != nil {
		t.Error("own:", err)
	}
	if err := d.signedIn(ctx, other); !errors.Is(err, ErrSignedOut) {
		t.Error("other:", err)
	}
}

// Knowing the password does not bring an old sign-in back to life.
func TestAChangeByAnOldSignInIsRefused(t *testing.T) {
	everyDatabase(t, func(t *testing.T, tables *Tables) {
		s := openService(t, tables)
		ctx := t.Context()
		if err := s.SignUp(ctx, "ada", "correct horse", Profile{Display: "Ada"}); err != nil {
			t.Fatal(err)
		}
		d := asItIs(s)
		own, err := d.signIn(ctx, "correct horse", func() {})
		if err != nil {
			t.Fatal(err)
		}
		old, err := d.signIn(ctx, "correct horse", func() {})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.change(ctx, own, "correct horse", "correct horse"); err != nil {
			t.Fatal(err)
		}
		if err := d.change(ctx, old, "correct horse", "battery staple"); !errors.Is(err, ErrSignedOut) {
			t.Errorf("changing by an old sign-in: %v", err)
		}
		if err := d.signedIn(ctx, old); !errors.Is(err, ErrSignedOut) {
			t.Errorf("the old sign-in: %v", err)
		}
	})
}

func TestASignInEnds(t *testing.T) {
	everyDatabase(t, func(t *testing.T, tables *Tables) {
		s := openService(t, tables)
		ctx := t.Context()
		if err := s.SignUp(ctx, "ada", "correct horse", Profile{Display: "Ada"}); err != nil {
			t.Fatal(err)
		}
		if err := s.SetSignInMinutes(ctx, "ada", 30); err != nil {
			t.Fatal(err)
		}
		token, expires, err := s.SignIn(ctx, "ada", "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		row, err := s.signIns.GetEntry(ctx, keyOf(token))
		if err != nil {
			t.Fatal(err)
		}
		for what, at := range map[string]time.Time{"the row ends": row.ExpiresAt, "the user is told": expires} {
			if left := time.Until(at); left < 25*time.Minute || left > 31*time.Minute {
				t.Errorf("%s in %v; want 30 minutes", what, left)
			}
		}
		// A change of the password does not put it off.
		if err := s.ChangePassword(ctx, token, "ada", "correct horse", "battery staple"); err != nil {
			t.Fatal(err)
		}
		changed, err := s.signIns.GetEntry(ctx, keyOf(token))
		if err != nil || changed.ExpiresAt.Sub(row.ExpiresAt).Abs() > time.Second {
			t.Errorf("it ended at %v, and ends at %v, %v", row.ExpiresAt, changed.ExpiresAt, err)
		}
		// The same row, with an end that one can wait for.
		if _, err := s.signIns.Set(ctx, keyOf(token), changed.Value, lockstep.Lifetime(50*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for err = nil; err == nil; {
			_, err = s.SignedIn(ctx, token)
		}
		if !errors.Is(err, ErrSignedOut) {
			t.Errorf("at its end: %v", err)
		}
	})
}

func TestAnswers(t *testing.T) {
	everyDatabase(t, func(t *testing.T, tables *Tables) {
		s := openService(t, tables)
		h := s.Handler()
		ctx := t.Context()
		must := func(reply *httptest.ResponseRecorder, want int) *httptest.ResponseRecorder {
			t.Helper()
			if reply.Code != want {
				t.Fatalf("%d %s; want %d", reply.Code, reply.Body, want)
			}
			return reply
		}
		must(ask(ctx, h, "", "POST /users", `{"name":"ada","password":"correct horse","display":"Ada"}`), 201)
		token, _, err := s.SignIn(ctx, "ada", "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		etag := must(ask(ctx, h, token, "GET /profile", nil), 200).Header().Get("ETag")

		for _, c := range []struct {
			what  string
			token string
			body  string
			match string
			want  int
			says  string
		}{
			{what: "POST /users", body: `{"name":"ada","password":"another one"}`, want: 409, says: "taken"},
			{what: "POST /users", body: `{"name":"bob","password":"short"}`, want: 400, says: "password: 8 to 1,000"},
			{what: "POST /users", body: `{"name":"Bob!","password":"long enough"}`, want: 400, says: `"name: a letter`},
			{what: "POST /users", body: `{"name":"bob","password":"long enough","admin":true}`, want: 400, says: "admin"},
			{what: "POST /users", body: `{"name":"bob"} {}`, want: 400, says: "more than one"},
			{what: "POST /users", body: `{"name":`, want: 400},
			{what: "POST /users", body: `{"name":"` + strings.Repeat("x", maxBody) + `"}`, want: 413, says: "16384 bytes"},
			{what: "GET /users/ada", want: 200, says: `"display":"Ada"`},
			{what: "GET /users/bob", want: 404},
			{what: "GET /users/" + strings.Repeat("x", 9000), want: 404},
			{what: "POST /sign-ins", body: `{"name":"` + strings.Repeat("x", 9000) + `","password":"wrong one"}`, want: 403},
			{what: "POST /sign-ins", body: `{"name":"ada","password":"wrong one"}`, want: 403, says: ErrWrongPassword.Error()},
			{what: "POST /sign-ins", body: `{"name":"bob","password":"wrong one"}`, want: 403, says: ErrWrongPassword.Error()},
			{what: "GET /profile", want: 401},
			{what: "GET /profile", token: "nonsense", want: 401},
			{what: "PUT /profile", token: token, body: `{"display":"A"}`, want: 400, says: "If-Match"},
			{what: "PUT /profile", token: token, body: `{"display":""}`, match: etag, want: 400, says: "display: 1 to 80"},
			{what: "PUT /profile", token: token, body: `{"display":"Ada L."}`, match: etag, want: 204},
			{what: "PUT /profile", token: token, body: `{"display":"A. L."}`, match: etag, want: 412},
			{what: "GET /users/ada", want: 200, says: "Ada L."},
			{what: "PATCH /preferences", token: token, body: `{"theme":"dark","letters":true}`, want: 204},
			{what: "PATCH /preferences", token: token, body: `{"theme":"pink"}`, want: 400, says: `theme: \"pink\" is none of`},
			{what: "GET /preferences", token: token, want: 200, says: `{"theme":"dark","language":"en","letters":true}`},
			{what: "PATCH /security", token: token, body: `{"sign_in_minutes":0}`, want: 400, says: "sign_in_minutes"},
			{what: "PATCH /security", token: token, body: `{"sign_in_minutes":60}`, want: 204},
			{what: "GET /security", token: token, want: 200, says: `"sign_in_minutes":60`},
			{what: "PUT /password", token: token, body: `{"old":"wrong one","new":"battery staple"}`, want: 403},
			{what: "PUT /password", token: token, body: `{"old":"correct horse","new":"short"}`, want: 400},
			{what: "PUT /profile", token: token, match: "x", want: 400},
			{what: "GET /nothing", want: 404},
			{what: "DELETE /users/ada", want: 405},
			{what: "DELETE /sign-ins/current", token: token, want: 204},
			{what: "GET /profile", token: token, want: 401},
		} {
			reply := ask(ctx, h, c.token, c.what, c.body, "If-Match", c.match)
			if reply.Code != c.want || !strings.Contains(reply.Body.String(), c.says) {
				t.Errorf("%s %.60s: %d %s; want %d with %q", c.what, c.body, reply.Code, reply.Body, c.want, c.says)
			}
			if body := reply.Body.String(); strings.Contains(body, "lockstep") || strings.Contains(body, "hash") {
				t.Errorf("%s: it tells what is none of a client's business: %s", c.what, body)
			}
		}
	})
}

// What the database's troubles are called in HTTP.
func TestTroubles(t *testing.T) {
	tables := openTables(t, filepath.Join(t.TempDir(), "profiles.db"))
	play := tables.inject(1)
	s := openService(t, tables)
	h := s.Handler()
	ctx := t.Context()
	if err := s.SignUp(ctx, "ada", "correct horse", Profile{Display: "Ada"}); err != nil {
		t.Fatal(err)
	}
	signIn := map[string]any{"name": "ada", "password": "correct horse"}
	for _, c := range []struct {
		script string
		within time.Duration
		want   int
		says   string
	}{
		{"commit 1: lose reply", time.Minute, 201, "token"}, // settled before it is answered
		{"commit 1: lose request", time.Minute, 503, "not done: try again"},
		{"commit 1: fail", time.Minute, 503, "not done: try again"},
		{"commit 1: refuse", time.Minute, 400, ""},
		{"commit 1: lose reply; settle *: fail", time.Second, 503, "may have been done"},
	} {
		play(c.script)
		asked, cancel := context.WithTimeout(ctx, c.within)
		reply := ask(asked, h, "", "POST /sign-ins", signIn)
		cancel()
		if reply.Code != c.want || !strings.Contains(reply.Body.String(), c.says) {
			t.Errorf("%s: %d %s; want %d with %q", c.script, reply.Code, reply.Body, c.want, c.says)
		}
	}
	play("")
}

// The program as it is run, twice on the same tables.
func TestProgram(t *testing.T) {
	for name, store := range map[string]string{"SQLite": filepath.Join(t.TempDir(), "profiles.db"), "PostgreSQL": dbtest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				var out bytes.Buffer
				if err := run(t.Context(), []string{"-store", store, "-tour", "-iterations", "10"}, &out); err != nil {
					t.Fatalf("%v\n%s", err, out.String())
				}
				if !strings.Contains(out.String(), "other  GET /profile         401") {
					t.Errorf("nobody was signed out:\n%s", out.String())
				}
				for line := range strings.Lines(out.String()) {
					if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
						t.Errorf("%d columns: %s", n, line)
					}
				}
			}
		})
	}
	for args, want := range map[string]string{
		"-http nowhere":     "nowhere",
		"-iterations 0":     "-iterations",
		"profiles.db":       `"profiles.db" is no flag`,
		"-store /no/where/": "/no/where",
		"-store mysql://x":  "mysql://",
	} {
		if err := run(t.Context(), strings.Fields(args), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", args, err, want)
		}
	}
	// Without -tour it says how to ask, and ends in order when it is told to.
	ctx, stop := context.WithCancel(t.Context())
	out := &saying{said: make(chan struct{})}
	ended := make(chan error)
	go func() { ended <- run(ctx, []string{"-http", "127.0.0.1:0"}, out) }()
	<-out.said
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// saying tells when something was said.
type saying struct{ said chan struct{} }

func (s *saying) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "listens at") {
		close(s.said)
	}
	return len(p), nil
}

// What is kept of a password is not the password, and differs for each who has it.
func TestPasswords(t *testing.T) {
	p := newPasswords(10)
	ctx := t.Context()
	a, err := p.create(ctx, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.create(ctx, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a.Salt, b.Salt) || bytes.Equal(a.Hash, b.Hash) || bytes.Contains(a.Hash, []byte("correct")) {
		t.Error("two of one password are alike")
	}
	for password, want := range map[string]bool{"correct horse": true, "correct horsf": false, "": false} {
		for _, kept := range []*Password{&a, &b} {
			if got, err := p.check(ctx, password, kept); got != want || err != nil {
				t.Errorf("%q: %t, %v; want %t", password, got, err, want)
			}
		}
	}
	if got, err := p.check(ctx, "", nil); got || err != nil {
		t.Errorf("nobody's password: %t, %v", got, err)
	}
	// One that was kept when less was thought enough is still good.
	if got, err := newPasswords(20).check(ctx, "correct horse", &a); !got || err != nil {
		t.Errorf("an older one: %t, %v", got, err)
	}
	// All places are taken.
	for range cap(p.places) {
		p.places <- struct{}{}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := p.create(gone, "correct horse"); !errors.Is(err, errBusy) {
		t.Errorf("no place: %v; want errBusy", err)
	}
}

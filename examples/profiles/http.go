package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
)

const (
	maxBody = 16 << 10
	// answerWithin is the deadline of everything that a request does. It is well below
	// the server's WriteTimeout, so that there is time to say so.
	answerWithin = 5 * time.Second
)

var (
	errBadRequest = errors.New("bad request")
	errBusy       = errors.New("busy")
)

// Handler is the service over HTTP.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h handler) { mux.Handle(pattern, s.limited(h)) }

	handle("POST /users", s.postUser)
	handle("GET /users/{name}", s.getUser)
	handle("POST /sign-ins", s.postSignIn)

	handle("DELETE /sign-ins/current", s.signedIn(s.deleteSignIn))
	handle("GET /profile", s.signedIn(s.getProfile))
	handle("PUT /profile", s.signedIn(s.putProfile))
	handle("GET /preferences", s.signedIn(s.getPreferences))
	handle("PATCH /preferences", s.signedIn(s.patchPreferences))
	handle("GET /security", s.signedIn(s.getSecurity))
	handle("PATCH /security", s.signedIn(s.patchSecurity))
	handle("PUT /password", s.signedIn(s.putPassword))
	return mux
}

// A handler answers, or returns an error, which is then the answer.
type handler func(w http.ResponseWriter, r *http.Request) error

// limited bounds what a request may send and how long it may take.
func (s *Service) limited(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if err := h(w, r.WithContext(ctx)); err != nil {
			fail(w, r, err)
		}
	})
}

// signedIn lets in who has a token, in the header that browsers do not send by themselves:
// no other site can have them do something here.
func (s *Service) signedIn(h func(w http.ResponseWriter, r *http.Request, user, token string) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return ErrSignedOut
		}
		user, err := s.SignedIn(r.Context(), token)
		if err != nil {
			return err
		}
		return h(w, r, user, token)
	}
}

func (s *Service) postUser(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Name, Password, Display string }
	if err := read(r, &body); err != nil {
		return err
	}
	if body.Display == "" {
		body.Display = body.Name
	}
	if err := s.SignUp(r.Context(), body.Name, body.Password, Profile{Display: body.Display}); err != nil {
		return err
	}
	w.Header().Set("Location", "/users/"+body.Name)
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Service) getUser(w http.ResponseWriter, r *http.Request) error {
	p, _, err := s.Profile(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, p)
}

func (s *Service) postSignIn(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Name, Password string }
	if err := read(r, &body); err != nil {
		return err
	}
	token, expires, err := s.SignIn(r.Context(), body.Name, body.Password)
	if err != nil {
		return err
	}
	return write(w, http.StatusCreated, map[string]any{"token": token, "expires": expires.UTC().Format(time.RFC3339)})
}

func (s *Service) deleteSignIn(w http.ResponseWriter, r *http.Request, _, token string) error {
	return done(w, s.SignOut(r.Context(), token))
}

// getProfile tells the version as an ETag, which putProfile wants back: the row that was
// seen is the one that is replaced.
func (s *Service) getProfile(w http.ResponseWriter, r *http.Request, user, _ string) error {
	p, version, err := s.Profile(r.Context(), user)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(version))
	return write(w, http.StatusOK, p)
}

func (s *Service) putProfile(w http.ResponseWriter, r *http.Request, user, _ string) error {
	seen, err := strconv.ParseUint(strings.Trim(r.Header.Get("If-Match"), `"`), 10, 63)
	if err != nil {
		return fmt.Errorf("%w: If-Match has to be the ETag of the profile that was seen", errBadRequest)
	}
	var p Profile
	if err := read(r, &p); err != nil {
		return err
	}
	version, err := s.SetProfile(r.Context(), user, p, lockstep.Version(seen))
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(version))
	return done(w, nil)
}

func etag(version lockstep.Version) string { return fmt.Sprintf(`"%d"`, version) }

func (s *Service) getPreferences(w http.ResponseWriter, r *http.Request, user, _ string) error {
	p, err := s.Preferences(r.Context(), user)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, p)
}

func (s *Service) patchPreferences(w http.ResponseWriter, r *http.Request, user, _ string) error {
	var body struct {
		Theme, Language *string
		Letters         *bool
	}
	if err := read(r, &body); err != nil {
		return err
	}
	return done(w, s.ChangePreferences(r.Context(), user, func(p *Preferences) {
		change(&p.Theme, body.Theme)
		change(&p.Language, body.Language)
		change(&p.Letters, body.Letters)
	}))
}

func change[T any](field, to *T) {
	if to != nil {
		*field = *to
	}
}

func (s *Service) getSecurity(w http.ResponseWriter, r *http.Request, user, _ string) error {
	security, err := s.Security(r.Context(), user)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, map[string]any{
		"password_changed": security.Changed.Format(time.RFC3339), "sign_in_minutes": security.SignInMinutes})
}

func (s *Service) patchSecurity(w http.ResponseWriter, r *http.Request, user, _ string) error {
	var body struct {
		Minutes int `json:"sign_in_minutes"`
	}
	if err := read(r, &body); err != nil {
		return err
	}
	return done(w, s.SetSignInMinutes(r.Context(), user, body.Minutes))
}

func (s *Service) putPassword(w http.ResponseWriter, r *http.Request, user, token string) error {
	var body struct{ Old, New string }
	if err := read(r, &body); err != nil {
		return err
	}
	return done(w, s.ChangePassword(r.Context(), token, user, body.Old, body.New))
}

// read takes one JSON object with no fields that nobody knows.
func read(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.Join(errors.New("more than one JSON object"), more)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errBadRequest, err)
	}
	return nil
}

func write(w http.ResponseWriter, status int, body any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// Who is not there any more is not told.
	_ = json.NewEncoder(w).Encode(body)
	return nil
}

func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// fail tells an error as HTTP does. What it says of a write is the important part: 503 is
// "not done, try again", but for what nobody knows.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	var (
		tooLong *http.MaxBytesError
		field   fieldError
	)
	status, says := http.StatusInternalServerError, "something is wrong here"
	switch {
	case errors.Is(err, lockstep.ErrUnknownOutcome): // first, for it may have any of the others as its cause
		status, says = http.StatusServiceUnavailable, "it may have been done: look, before you try again"
	case errors.Is(err, ErrSignedOut):
		w.Header().Set("WWW-Authenticate", "Bearer")
		status, says = http.StatusUnauthorized, ErrSignedOut.Error()
	case errors.Is(err, ErrWrongPassword):
		status, says = http.StatusForbidden, ErrWrongPassword.Error()
	case errors.Is(err, ErrNameTaken):
		status, says = http.StatusConflict, ErrNameTaken.Error()
	case errors.Is(err, lockstep.ErrConflict):
		status, says = http.StatusPreconditionFailed, "somebody else has changed it: look again"
	case errors.As(err, &tooLong):
		status, says = http.StatusRequestEntityTooLarge, fmt.Sprintf("more than %d bytes", tooLong.Limit)
	case errors.As(err, &field):
		status, says = http.StatusBadRequest, field.Error()
	case errors.Is(err, errBadRequest), errors.Is(err, lockstep.ErrInvalid), errors.Is(err, lockstep.ErrTooLarge):
		status, says = http.StatusBadRequest, err.Error()
	case errors.Is(err, lockstep.ErrNotFound):
		status, says = http.StatusNotFound, "there is no such thing"
	case errors.Is(err, lockstep.ErrUnavailable), errors.Is(err, errBusy), errors.Is(err, context.DeadlineExceeded):
		w.Header().Set("Retry-After", "1")
		status, says = http.StatusServiceUnavailable, "it was not done: try again"
	case errors.Is(err, context.Canceled):
		return // nobody is there
	}
	if status == http.StatusInternalServerError {
		slog.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	_ = write(w, status, map[string]string{"error": says})
}

package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	options    = lockstep.Options[string, int]
	store      = lockstep.Store[string, int]
	capability = lockstep.Capabilities[string, int]
	row        = lockstep.Row[int]
	change     = lockstep.Change[string, int]
	changeSet  = lockstep.ChangeSet[string, int]
	outcome    = lockstep.Outcome[int]
	settlement = lockstep.Settlement[int]
)

// quiet is a logger for what a test has done on purpose.
var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// A scene is a cache over a database in which a test makes things go wrong, in a
// bubble of fake time. Its methods fail the test when something is not as they
// say.
type scene struct {
	*testing.T
	*lockstep.Cache[string, int]
	ctx   context.Context
	table *memstore.Store[string, int] // the database itself
	store *fault.Store[string, int]    // the way there
	news  int                          // keys given
	began time.Time                    // see at
}

// newKey gives new1, new2 and so on.
func (s *scene) newKey() string {
	s.news++
	return fmt.Sprint("new", s.news)
}

// inBubble plays a scene. At its end memory is compared with the table.
func inBubble(t *testing.T, o options, play func(s *scene)) {
	t.Helper()
	inBubbleOver(t, o, nil, play)
}

// inBubbleWith plays a scene whose options have channels of the bubble in them.
func inBubbleWith(t *testing.T, o func() options, play func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { play(newScene(t, o(), nil)) })
}

// inBubbleOver plays a scene with something around the store with faults.
func inBubbleOver(t *testing.T, o options, around func(*fault.Store[string, int]) store, play func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		play(newScene(t, o, around))
	})
}

func newScene(t *testing.T, o options, around func(*fault.Store[string, int]) store) *scene {
	s := &scene{T: t, ctx: t.Context()}
	s.table = memstore.New(memstore.Options[string, int]{NewKey: s.newKey})
	s.store = fault.Inject(s.table, fault.Script{}, 1)
	if o.Logger == nil {
		o.Logger = quiet
	}
	var outer store = s.store
	if around != nil {
		outer = around(s.store)
	}
	s.Cache = cachetest.Open(t, outer, o)
	t.Cleanup(func() { s.script(""); s.store.Release() })
	return s
}

// script says what goes wrong from now on.
func (s *scene) script(text string) { s.store.Play(fault.MustParse(text)) }

// write sets a row, which must succeed.
func (s *scene) write(key string, value int, o ...lockstep.WriteOption) lockstep.Version {
	s.Helper()
	version, err := s.Set(s.ctx, key, value, o...)
	if err != nil {
		s.Fatalf("Set(%s, %d): %v", key, value, err)
	}
	return version
}

// behind changes a row behind the cache's back.
func (s *scene) behind(key string, value int) lockstep.Version {
	s.Helper()
	outcomes, err := s.table.Commit(s.ctx, []changeSet{{Changes: []change{{Key: key, Value: value}}}})
	if err != nil {
		s.Fatal(err)
	}
	return outcomes[0].Rows[0].Version
}

// reads says what Get returns.
func (s *scene) reads(key string, want int) {
	s.Helper()
	if got, err := s.Get(s.ctx, key); got != want || err != nil {
		s.Errorf("Get(%s) = %d, %v, want %d", key, got, err, want)
	}
}

func (s *scene) readsNothing(key string) {
	s.Helper()
	if got, err := s.Get(s.ctx, key); !errors.Is(err, lockstep.ErrNotFound) {
		s.Errorf("Get(%s) = %d, %v, want ErrNotFound", key, got, err)
	}
}

// remembers says what memory answers without asking the database.
func (s *scene) remembers(key string, want int) {
	s.Helper()
	if got, ok := s.Peek(key); got != want || !ok {
		s.Errorf("memory says %s = %d, %v, want %d", key, got, ok, want)
	}
}

func (s *scene) forgot(keys ...string) {
	s.Helper()
	for _, key := range keys {
		if got, ok := s.Peek(key); ok {
			s.Errorf("memory says %s = %d, and should not answer", key, got)
		}
	}
}

// stored says what the table holds.
func (s *scene) stored(key string, want int) {
	s.Helper()
	if got := s.row(key); got.Value != want || !got.Exists {
		s.Errorf("the table holds %s = %+v, want %d", key, got, want)
	}
}

func (s *scene) notStored(keys ...string) {
	s.Helper()
	for _, key := range keys {
		if got := s.row(key); got.Exists {
			s.Errorf("the table holds %s = %+v, and should not", key, got)
		}
	}
}

func (s *scene) row(key string) row {
	s.Helper()
	rows, err := s.table.Load(context.Background(), []string{key})
	if err != nil {
		s.Fatal(err)
	}
	return rows[key]
}

// loads counts the calls of Store.Load that f makes.
func (s *scene) loads(f func()) int {
	before := s.store.Counts().Loads
	f()
	return s.store.Counts().Loads - before
}

// commits counts the calls of Store.Commit that f makes.
func (s *scene) commits(f func()) int {
	before := s.store.Counts().Commits
	f()
	return s.store.Counts().Commits - before
}

// A call is something that runs beside the test.
type call struct {
	t    *testing.T
	done chan struct{}
	err  error
}

// start runs f beside the test.
func (s *scene) start(f func() error) *call {
	c := &call{t: s.T, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = f()
	}()
	return c
}

// startSet sets a row beside the test.
func (s *scene) startSet(ctx context.Context, key string, value int, o ...lockstep.WriteOption) *call {
	return s.start(func() error {
		_, err := s.Set(ctx, key, value, o...)
		return err
	})
}

// startGet reads a row beside the test.
func (s *scene) startGet(ctx context.Context, key string) *call {
	return s.start(func() error {
		_, err := s.Get(ctx, key)
		return err
	})
}

// wait returns what the call returned. One that hangs fails the test.
func (c *call) wait() error {
	c.t.Helper()
	select {
	case <-c.done:
		return c.err
	case <-time.After(forever):
		c.t.Fatal("the call does not return")
		return nil
	}
}

const forever = 365 * 24 * time.Hour

// hangs says that the call has not returned when everything that can run has.
func (c *call) hangs() {
	c.t.Helper()
	synctest.Wait()
	select {
	case <-c.done:
		c.t.Errorf("the call returned %v, and should wait", c.err)
	default:
	}
}

// returned says that the call has returned by now.
func (c *call) returned() error {
	c.t.Helper()
	synctest.Wait()
	select {
	case <-c.done:
		return c.err
	default:
		c.t.Fatal("the call has not returned")
		return nil
	}
}

// succeeds says that the call returns nil.
func (c *call) succeeds() {
	c.t.Helper()
	if err := c.wait(); err != nil {
		c.t.Errorf("the call returned %v", err)
	}
}

// notApplied says that err is what a write returns that did not happen, and that
// it is all of the targets.
func (s *scene) notApplied(err error, targets ...error) {
	s.Helper()
	var w *lockstep.WriteError
	switch {
	case !errors.As(err, &w), w != err:
		s.Fatalf("%T is not a *WriteError: %v", err, err)
	case w.Outcome != lockstep.NotApplied, errors.Is(err, lockstep.ErrUnknownOutcome):
		s.Errorf("the outcome is %v, want not applied: %v", w.Outcome, err)
	}
	for _, target := range targets {
		if !errors.Is(err, target) {
			s.Errorf("error %v is not %v", err, target)
		}
	}
	if applied, _, waited := w.Wait(context.Background()); applied || waited != nil {
		s.Errorf("Wait of a write that was not applied says %v, %v", applied, waited)
	}
}

// unknown says that err is what a write returns whose outcome is not known.
func (s *scene) unknown(err error, targets ...error) *lockstep.WriteError {
	s.Helper()
	var w *lockstep.WriteError
	switch {
	case !errors.As(err, &w), w != err:
		s.Fatalf("%T is not a *WriteError: %v", err, err)
	case w.Outcome != lockstep.Unknown, !errors.Is(err, lockstep.ErrUnknownOutcome):
		s.Fatalf("the outcome is %v, want unknown: %v", w.Outcome, err)
	}
	for _, target := range targets {
		if !errors.Is(err, target) {
			s.Errorf("error %v is not %v", err, target)
		}
	}
	return w
}

// settles says how an unknown outcome ends.
func (s *scene) settles(w *lockstep.WriteError, want bool) lockstep.Version {
	s.Helper()
	applied, version, err := w.Wait(s.ctx)
	if applied != want || err != nil {
		s.Errorf("Wait = %v, %v, want %v", applied, err, want)
	}
	return version
}

// altered is a store that does some things in another way than the one inside.
type altered struct {
	store
	can    func(*capability)
	load   func(context.Context, []string) (map[string]row, error)
	commit func(context.Context, []changeSet) ([]outcome, error)
}

func (a altered) Capabilities() capability {
	c := a.store.Capabilities()
	if a.can != nil {
		a.can(&c)
	}
	return c
}

func (a altered) Load(ctx context.Context, keys []string) (map[string]row, error) {
	if a.load != nil {
		return a.load(ctx, keys)
	}
	return a.store.Load(ctx, keys)
}

func (a altered) Commit(ctx context.Context, sets []changeSet) ([]outcome, error) {
	if a.commit != nil {
		return a.commit(ctx, sets)
	}
	return a.store.Commit(ctx, sets)
}

// without takes capabilities from a store.
func without(take func(*capability)) func(*fault.Store[string, int]) store {
	return func(inner *fault.Store[string, int]) store { return altered{store: inner, can: take} }
}

// second is the error of a call with two results.
func second[T any](_ T, err error) error { return err }

// transact runs a transaction of one cache.
func transact(s *scene, f func(tx lockstep.InTx[string, int]) error) error {
	return lockstep.Transact(s.ctx, func(_ context.Context, tx *lockstep.Tx) error { return f(s.In(tx)) })
}

// openOver opens another cache, over a store of the test's own.
func openOver(s *scene, over store) *lockstep.Cache[string, int] {
	return cachetest.Open(s.T, over, options{Logger: quiet})
}

package lockstep_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// A hook may call the cache, also for the very key that it is told of: the load
// that it would wait for is on its way by then.
func TestAHookReadsTheKeyThatItIsToldOf(t *testing.T) {
	read := func(s *scene) { s.reads("a", 1) }
	for _, c := range []struct {
		name  string
		hooks func(call func(func(context.Context, *scene) error)) lockstep.Hooks[string]
		read  func(*scene)
	}{
		{"Miss, which refreshes", func(call func(func(context.Context, *scene) error)) lockstep.Hooks[string] {
			return lockstep.Hooks[string]{Miss: func(key string) {
				call(func(ctx context.Context, s *scene) error { return s.Refresh(ctx, key) })
			}}
		}, read},
		{"Load, which reads", func(call func(func(context.Context, *scene) error)) lockstep.Hooks[string] {
			return lockstep.Hooks[string]{Load: func(e lockstep.LoadEvent[string]) {
				call(func(ctx context.Context, s *scene) error { return second(s.Get(ctx, e.Keys[0])) })
			}}
		}, read},
		{"Hit, in GetMany, which reads what is loaded", func(call func(func(context.Context, *scene) error)) lockstep.Hooks[string] {
			return lockstep.Hooks[string]{Hit: func(string, bool) {
				call(func(ctx context.Context, s *scene) error { return second(s.Get(ctx, "a")) })
			}}
		}, func(s *scene) {
			s.write("b", 1)
			_, _ = s.GetMany(s.ctx, []string{"a", "b"})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s *scene
			called := false
			hooks := c.hooks(func(f func(context.Context, *scene) error) {
				if called {
					return
				}
				called = true
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if err := f(ctx, s); err != nil {
					t.Errorf("the hook's own call: %v", err)
				}
			})
			inBubble(t, options{Hooks: hooks}, func(scene *scene) {
				s = scene
				s.behind("a", 1)
				c.read(s)
				synctest.Wait()
				if !called {
					t.Error("the hook was not called")
				}
			})
		})
	}
}

// Neither hook recurses, and each reads what the other's reader has asked for.
func TestTwoHooksPrefetchEachOthersKey(t *testing.T) {
	var s *scene
	var met, prefetch chan struct{}
	sibling := map[string]string{"a": "b", "b": "a"}
	inBubbleWith(t, func() options {
		met, prefetch = make(chan struct{}), make(chan struct{}, 2)
		return options{Hooks: lockstep.Hooks[string]{Miss: func(key string) {
			select {
			case prefetch <- struct{}{}:
			default:
				return // a prefetch does not prefetch
			}
			<-met
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if _, err := s.Get(ctx, sibling[key]); errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the prefetch of %s: %v", sibling[key], err)
			}
		}}}
	}, func(scene *scene) {
		s = scene
		s.behind("a", 1)
		s.behind("b", 1)
		one, two := s.startGet(s.ctx, "a"), s.startGet(s.ctx, "b")
		synctest.Wait() // both are in their hooks
		close(met)
		one.succeeds()
		two.succeeds()
	})
}

package resilience

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// parts are the constructors, with policies that change nothing of what works.
var parts = map[string]func(lockstep.Store[string, int]) (lockstep.Store[string, int], error){
	"Retry": func(s lockstep.Store[string, int]) (lockstep.Store[string, int], error) {
		return Retry(s, RetryPolicy{})
	},
	"Breaker": func(s lockstep.Store[string, int]) (lockstep.Store[string, int], error) {
		return Breaker(s, BreakerPolicy{})
	},
	"Limit": func(s lockstep.Store[string, int]) (lockstep.Store[string, int], error) {
		return Limit(s, LimitPolicy{})
	},
	"Timeout": func(s lockstep.Store[string, int]) (lockstep.Store[string, int], error) {
		return Timeout(s, TimeoutPolicy{})
	},
	"Protect": func(s lockstep.Store[string, int]) (lockstep.Store[string, int], error) {
		return Protect(s, Policy{})
	},
}

// Wrapping hides nothing: whatever the inner store has, the outer one has, and
// nothing more but a Report. A capability that is added later is covered too.
func TestCapabilitiesAreForwarded(t *testing.T) {
	for name, around := range parts {
		t.Run(name, func(t *testing.T) {
			inner := everything{}
			outer, err := around(inner)
			if err != nil {
				t.Fatal(err)
			}
			want, got := reflect.ValueOf(inner.Capabilities()), reflect.ValueOf(outer.Capabilities())
			for i := range want.NumField() {
				field := want.Type().Field(i)
				w, g := want.Field(i), got.Field(i)
				switch {
				case w.IsZero():
					t.Errorf("the test's store lacks %s", field.Name)
				case g.IsZero():
					t.Errorf("%s is lost", field.Name)
				case field.Type.Kind() != reflect.Func && !reflect.DeepEqual(w.Interface(), g.Interface()):
					t.Errorf("%s is %v, want %v", field.Name, g, w)
				}
			}

			outer, err = around(bareStore{})
			if err != nil {
				t.Fatal(err)
			}
			bare := outer.Capabilities()
			if bare.Report == nil {
				t.Error("no Report")
			}
			bare.Report(new(lockstep.Stats))
			bare.Report = nil
			if !reflect.ValueOf(bare).IsZero() {
				t.Errorf("a store that can do nothing gained %+v", bare)
			}
		})
	}
}

func TestANilStoreIsRefusedByName(t *testing.T) {
	for name, around := range parts {
		for _, none := range []lockstep.Store[string, int]{nil, (*script)(nil)} {
			if s, err := around(none); s != nil || !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), name+": the store is nil") {
				t.Errorf("%s(%#v): store %v, error %v", name, none, s, err)
			}
		}
	}
}

type bareStore struct{ *script }

func (bareStore) Capabilities() (none lockstep.Capabilities[string, int]) { return none }

// everything has every capability; none of its functions can be called.
type everything struct{ *script }

func (everything) Capabilities() (all lockstep.Capabilities[string, int]) {
	fill(reflect.ValueOf(&all).Elem())
	return all
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(1)
	case reflect.String:
		v.SetString("filled")
	case reflect.Interface:
		v.Set(reflect.ValueOf("filled"))
	case reflect.Func:
		v.Set(reflect.MakeFunc(v.Type(), func([]reflect.Value) []reflect.Value { panic("not to be called") }))
	}
}

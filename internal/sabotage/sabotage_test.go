package sabotage

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// That each of them is found, and found in time, is for the simulation to show: see
// TestSimulationFindsSabotages at the root.

func TestEachHasANameOfItsOwnAndSaysWhatIsBroken(t *testing.T) {
	seen := make(map[string]bool)
	kebab := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	for _, s := range All() {
		if seen[s.Name] {
			t.Errorf("two are called %s", s.Name)
		}
		seen[s.Name] = true
		if !kebab.MatchString(s.Name) {
			t.Errorf("%q is not small letters and hyphens", s.Name)
		}
		if s.About == "" || strings.Contains(s.About, "\n") {
			t.Errorf("%s is about %q", s.Name, s.About)
		}
		faults := 0
		for _, breaks := range []bool{s.store != nil, s.subject != nil, s.open != nil} {
			if breaks {
				faults++
			}
		}
		if faults != 1 {
			t.Errorf("%s breaks %d things", s.Name, faults)
		}
	}
}

func TestFind(t *testing.T) {
	for _, want := range All() {
		if got, err := Find(want.Name); err != nil || got.Name != want.Name {
			t.Errorf("Find(%q) = %q, %v", want.Name, got.Name, err)
		}
	}
	_, err := Find("stale-fil")
	if !errors.Is(err, lockstep.ErrInvalid) {
		t.Fatalf("Find of a name that is none: %v", err)
	}
	for _, s := range All() {
		if !strings.Contains(err.Error(), s.Name) {
			t.Errorf("the error does not offer %s: %v", s.Name, err)
		}
	}
}

// A store that cannot show a sabotage is refused, or a search in it would find nothing
// and be believed.
func TestOpenRefusesWhatCannotShowIt(t *testing.T) {
	two, err := Find("torn-transactions")
	if err != nil {
		t.Fatal(err)
	}
	one := memstore.New(memstore.Options[int, int64]{})
	if _, _, err := two.Open([]store{one}, options{}); !errors.Is(err, lockstep.ErrUnsupported) {
		t.Errorf("one table where it takes two: %v", err)
	}
	versions, err := Find("coarse-versions")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := versions.Open([]store{versionless{one}}, options{}); !errors.Is(err, lockstep.ErrUnsupported) {
		t.Errorf("a store without versions: %v", err)
	}
	if _, _, err := (Sabotage{}).Open(nil, options{}); !errors.Is(err, lockstep.ErrUnsupported) {
		t.Errorf("no store: %v", err)
	}
}

type versionless struct{ store }

func (v versionless) Capabilities() capabilities {
	can := v.store.Capabilities()
	can.Versions = false
	return can
}

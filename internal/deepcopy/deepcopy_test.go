package deepcopy

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func copierOf[V any](t testing.TB) Copier[V] {
	t.Helper()
	c, err := For[V]()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func copyOf[V any](t testing.TB, v V) V {
	t.Helper()
	copied, err := copierOf[V](t).Copy(v)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(copied, v) {
		t.Fatalf("copy %#v differs from %#v", copied, v)
	}
	return copied
}

type flat struct {
	ID      int64
	Name    string
	Ratios  [3]float64
	Seen    time.Time
	Peer    netip.Addr
	none    [0]func()
	private struct{ n int }
}

func TestFlatTypesAreCopiedByAssignment(t *testing.T) {
	for name, isFlat := range map[string]bool{
		"int":     copierOf[int](t).Flat,
		"string":  copierOf[string](t).Flat,
		"bool":    copierOf[bool](t).Flat,
		"struct":  copierOf[flat](t).Flat,
		"array":   copierOf[[4]flat](t).Flat,
		"time":    copierOf[time.Time](t).Flat,
		"uintptr": copierOf[uintptr](t).Flat,
	} {
		if !isFlat {
			t.Errorf("%s is not flat", name)
		}
	}
	v := flat{ID: 7, Name: "seven", none: [0]func(){}, private: struct{ n int }{1}}
	copyOf(t, v)
}

type inner struct{ Tags []string }

type embedded struct{ Notes []string }

type record struct {
	embedded
	Raw    []byte
	Named  map[string]inner
	ByKey  map[[2]int]*inner
	Next   *record
	Any    any
	Grid   [2][]int
	When   *time.Time
	secret string
}

func TestACopySharesNothing(t *testing.T) {
	build := func() record {
		moment := time.Unix(1, 0)
		return record{
			embedded: embedded{Notes: []string{"n"}},
			Raw:      []byte("raw"),
			Named:    map[string]inner{"a": {Tags: []string{"x"}}},
			ByKey:    map[[2]int]*inner{{1, 2}: {Tags: []string{"y"}}},
			Next:     &record{Raw: []byte("next")},
			Any:      map[string]any{"list": []any{1, "two", []byte("three")}},
			Grid:     [2][]int{{1}, {2}},
			When:     &moment,
			secret:   "kept",
		}
	}
	original := build()
	c := copyOf(t, original)
	c.Notes[0] = "changed"
	c.Raw[0] = 'X'
	c.Named["a"].Tags[0] = "changed"
	c.Named["b"] = inner{}
	c.ByKey[[2]int{1, 2}].Tags[0] = "changed"
	c.Next.Raw[0] = 'X'
	c.Any.(map[string]any)["list"].([]any)[2].([]byte)[0] = 'X'
	c.Grid[1][0] = 9
	*c.When = time.Unix(2, 0)
	if want := build(); !reflect.DeepEqual(original, want) {
		t.Fatalf("changing the copy changed the original: %+v", original)
	}
	if c.secret != "kept" {
		t.Fatal("an unexported flat field was lost")
	}
}

func TestNilStaysNilAndEmptyStaysEmpty(t *testing.T) {
	copyOf(t, record{})
	copyOf(t, record{Raw: []byte{}, Named: map[string]inner{}, Grid: [2][]int{{}, nil}, Any: []any{}})
	copyOf[[]byte](t, nil)
	copyOf(t, []byte{})
	copyOf[any](t, nil)
	copyOf[*record](t, nil)
	type raw []byte
	copyOf(t, raw("named"))
}

type node struct {
	Name        string
	Left, Right *node
	More        []*node
	Index       map[string]*node
}

func TestSharingAndCyclesArePreserved(t *testing.T) {
	shared := &node{Name: "shared"}
	root := &node{Left: shared, Right: shared, More: []*node{shared}}
	root.Index = map[string]*node{"self": root}
	c := copyOf(t, root)
	if c == root || c.Left == shared {
		t.Fatal("the copy shares a node with the original")
	}
	if c.Left != c.Right || c.More[0] != c.Left || c.Index["self"] != c {
		t.Fatal("what was one node is several in the copy")
	}

	list := []any{1, nil}
	list[1] = list
	copied, err := copierOf[[]any](t).Copy(list)
	if err != nil {
		t.Fatal(err)
	}
	within := copied[1].([]any)
	if &within[0] != &copied[0] || &copied[0] == &list[0] {
		t.Fatal("a slice that contains itself does not in the copy")
	}
}

type ring struct{ Back *seat }
type seat struct{ In ring }

// ring is met by value while its own plan is unfinished.
func TestTypesThatContainEachOther(t *testing.T) {
	original := seat{In: ring{Back: &seat{In: ring{Back: &seat{}}}}}
	c := copyOf(t, original)
	if c.In.Back == original.In.Back || c.In.Back.In.Back == original.In.Back.In.Back {
		t.Fatal("the copy shares a seat")
	}
}

func TestPointersInMapKeysFollowTheirCopies(t *testing.T) {
	n := 5
	type both struct {
		Keys map[*int]string
		N    *int
	}
	c, err := copierOf[both](t).Copy(both{Keys: map[*int]string{&n: "five"}, N: &n})
	if err != nil {
		t.Fatal(err)
	}
	if c.N == &n || c.Keys[c.N] != "five" {
		t.Fatal("the key no longer is the pointer that it was")
	}
}

func TestDeepNestingIsAnError(t *testing.T) {
	var list *node
	for range maxDepth + 1 {
		list = &node{Left: list}
	}
	_, err := copierOf[*node](t).Copy(list)
	if err == nil || !strings.Contains(err.Error(), "nested deeper than") || len(err.Error()) > 200 {
		t.Fatalf("error %v", err)
	}
}

func BenchmarkBytes(b *testing.B) {
	c := copierOf[[]byte](b)
	v := make([]byte, 256)
	for b.Loop() {
		c.Copy(v)
	}
}

func BenchmarkFlat(b *testing.B) {
	c := copierOf[flat](b)
	var v flat
	for b.Loop() {
		c.Copy(v)
	}
}

func BenchmarkStructWithSlice(b *testing.B) {
	c := copierOf[inner](b)
	v := inner{Tags: []string{"a", "b", "c"}}
	for b.Loop() {
		c.Copy(v)
	}
}

func BenchmarkRecord(b *testing.B) {
	c := copierOf[record](b)
	v := record{
		Raw:   make([]byte, 64),
		Named: map[string]inner{"a": {Tags: []string{"x"}}, "b": {Tags: []string{"y"}}},
		Next:  &record{},
	}
	for b.Loop() {
		c.Copy(v)
	}
}

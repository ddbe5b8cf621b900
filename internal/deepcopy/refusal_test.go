package deepcopy

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

type friend struct {
	Name string
	mu   sync.Mutex
}

type hidden struct{ list []int }

var _ = hidden{list: nil} // reflection is its only reader

type user struct{ Friends map[string][]*friend }

type counted struct{ N atomic.Int64 }

type wrapped struct{ Inner struct{ hidden } }

type pointsUnexported struct{ *embedded }

func TestWhatCannotBeCopiedIsRefusedByName(t *testing.T) {
	refused := func(_ any, err error) error { return err }
	for _, c := range []struct {
		want string
		got  error
	}{
		{"user.Friends.mu: sync.Mutex is a lock", refused(For[user]())},
		{"[]*deepcopy.friend.mu: sync.Mutex is a lock", refused(For[[]*friend]())},
		{"Mutex: sync.Mutex is a lock", refused(For[sync.Mutex]())},
		{"*sync.RWMutex: sync.RWMutex is a lock", refused(For[*sync.RWMutex]())},
		{"counted.N._: atomic.noCopy is a lock", refused(For[counted]())},
		{"hidden.list: an unexported []int cannot be copied from outside its package", refused(For[hidden]())},
		{"wrapped.Inner.hidden.list: an unexported []int cannot be copied from outside its package", refused(For[wrapped]())},
		{"pointsUnexported.embedded: an unexported *deepcopy.embedded cannot be copied from outside its package", refused(For[pointsUnexported]())},
		{"func(): a func cannot be copied", refused(For[func()]())},
		{"chan int: a chan cannot be copied", refused(For[chan int]())},
		{"Pointer: a unsafe.Pointer cannot be copied", refused(For[unsafe.Pointer]())},
		{"[2]func(): a func cannot be copied", refused(For[[2]func()]())},
	} {
		if c.got == nil || c.got.Error() != c.want {
			t.Errorf("error %v, want %s", c.got, c.want)
		}
	}
}

func TestWhatAnInterfaceHoldsIsRefusedByName(t *testing.T) {
	c := copierOf[record](t)
	v := record{Any: map[string]any{"f": &friend{mu: sync.Mutex{}}}}
	_, err := c.Copy(v)
	const want = "record.Any.(map[string]interface {}).(*deepcopy.friend).mu: sync.Mutex is a lock"
	if err == nil || err.Error() != want {
		t.Fatalf("error %v, want %s", err, want)
	}
	if _, err := c.Copy(record{Any: func() {}}); err == nil {
		t.Fatal("a function in an interface was copied")
	}
	if _, err := c.Copy(record{}); err != nil {
		t.Fatal(err)
	}
}

// Each method of cloning marks its copies, to show that it was called.
type byValue struct {
	_      *sync.Mutex
	cloned bool
}

func (byValue) Clone() byValue { return byValue{cloned: true} }

type byPointer struct {
	_      sync.Mutex
	cloned bool
}

func (*byPointer) Clone() *byPointer { return &byPointer{cloned: true} }

type mixed struct {
	_      sync.Mutex
	cloned bool
}

func (*mixed) Clone() mixed { return mixed{cloned: true} }

type forgetful struct{ _ sync.Mutex }

func (*forgetful) Clone() *forgetful { return nil }

type cloners struct {
	V  byValue
	PV *byValue
	P  *byPointer
	S  byPointer
	M  mixed
	PM *mixed
	A  any
}

func TestCloneMethodsAreUsed(t *testing.T) {
	c, err := copierOf[*cloners](t).Copy(&cloners{PV: &byValue{}, P: &byPointer{}, PM: &mixed{}, A: &byPointer{}})
	if err != nil {
		t.Fatal(err)
	}
	for name, cloned := range map[string]bool{
		"Clone() V on V":       c.V.cloned,
		"Clone() V on *V":      c.PV.cloned,
		"Clone() *P on *P":     c.P.cloned,
		"Clone() *P on P":      c.S.cloned,
		"Clone() M on M":       c.M.cloned,
		"Clone() M on *M":      c.PM.cloned,
		"Clone() *P in an any": c.A.(*byPointer).cloned,
	} {
		if !cloned {
			t.Errorf("%s was not called", name)
		}
	}
	none, err := copierOf[*cloners](t).Copy(&cloners{})
	if err != nil || none.P != nil || none.PM != nil {
		t.Fatalf("nil pointers became %v, error %v", none, err)
	}
	if copierOf[byValue](t).Flat {
		t.Fatal("a type with a Clone method is taken for flat")
	}
}

func TestACloneThatReturnsNilIsAnError(t *testing.T) {
	type holder struct{ F forgetful }
	_, err := copierOf[*holder](t).Copy(&holder{})
	if err == nil || !strings.Contains(err.Error(), ".F: Clone of deepcopy.forgetful returned nil") {
		t.Fatalf("error %v", err)
	}
}

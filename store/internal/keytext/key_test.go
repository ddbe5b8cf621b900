package keytext

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lockstep-cache/lockstep"
)

type tenantKey struct {
	Tenant string
	ID     int64
	Flags  [2]bool
	Rate   float64
	Small  uint8
	Phase  complex128
}

// One key has one encoding, and gets back from it; so two that differ have two.
func roundTrip[K comparable](t *testing.T, keys ...K) {
	t.Helper()
	c, err := New[K](8 << 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		v, err := c.Encode(k)
		if err != nil {
			t.Errorf("%#v: %v", k, err)
			continue
		}
		back, err := c.Decode(v)
		if err != nil || back != k {
			t.Errorf("%#v is %#v, which decodes to %#v, %v", k, v, back, err)
		}
	}
}

type myString string
type myInt int32
type id [16]byte

func TestKeysRoundTrip(t *testing.T) {
	roundTrip(t, "", "a", "a\x00", "\xff\xfe", "日本", strings.Repeat("k", 8000))
	roundTrip[myString](t, "a", "")
	roundTrip[int64](t, 0, -1, math.MaxInt64, math.MinInt64)
	roundTrip[int](t, 0, -1, math.MaxInt64)
	roundTrip[myInt](t, -5, math.MaxInt32)
	roundTrip[int8](t, -128, 127)
	roundTrip[uint64](t, 0, math.MaxInt64, math.MaxInt64+1, math.MaxUint64)
	roundTrip[uint32](t, math.MaxUint32)
	roundTrip(t, true, false)
	roundTrip(t, 0.0, -1.5, math.Inf(1), math.SmallestNonzeroFloat64)
	roundTrip[float32](t, 0.1, -2)
	roundTrip(t, id{}, id{1, 2, 255})
	roundTrip(t, [0]byte{})
	roundTrip(t, complex(1, -2), complex(math.Inf(-1), 0))
	roundTrip(t, [3]string{`"`, `\`, "\x01\x7f\n"})
	roundTrip(t, struct{}{})
	roundTrip(t, struct{ A, B string }{"a,", "]"}, struct{ A, B string }{"a", ",]"})
}

func TestTupleKeysRoundTrip(t *testing.T) {
	c, err := New[tenantKey](1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		k := tenantKey{
			Tenant: string(rapid.SliceOf(rapid.Byte()).Draw(t, "tenant")),
			ID:     rapid.Int64().Draw(t, "id"),
			Flags:  [2]bool{rapid.Bool().Draw(t, "first"), rapid.Bool().Draw(t, "second")},
			Rate:   rapid.Float64().Draw(t, "rate"),
			Small:  rapid.Byte().Draw(t, "small"),
			Phase:  complex(rapid.Float64().Draw(t, "re"), rapid.Float64().Draw(t, "im")),
		}
		v, err := c.Encode(k)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := c.Decode(v); err != nil || back != k {
			t.Fatalf("%#v is %v, which decodes to %#v, %v", k, v, back, err)
		}
	})
}

// Equal keys have equal encodings, also where their bits differ.
func TestNegativeZeroIsZero(t *testing.T) {
	negative := math.Copysign(0, -1)
	c, _ := New[float64](10)
	v, err := c.Encode(negative)
	if err != nil || math.Signbit(v.(float64)) {
		t.Errorf("-0 is encoded as %v, %v", v, err)
	}
	type point struct{ X float64 }
	p, _ := New[point](10)
	a, _ := p.Encode(point{negative})
	b, _ := p.Encode(point{0})
	if a != b {
		t.Errorf("equal keys are %v and %v", a, b)
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	for name, err := range map[string]error{
		"time.Time":        kindError[time.Time](),
		"any":              kindError[any](),
		"error":            kindError[error](),
		"pointer":          kindError[*int](),
		"chan":             kindError[chan int](),
		"unexported":       kindError[struct{ a int }](),
		"time in a struct": kindError[struct{ At time.Time }](),
		"nested pointer":   kindError[struct{ A [2]struct{ B *int } }](),
		"nested interface": kindError[[1]any](),
	} {
		if !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	c, _ := New[float64](10)
	if _, err := c.Encode(math.NaN()); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("NaN: %v", err)
	}
	p, _ := New[struct{ F [1]float32 }](10)
	if _, err := p.Encode(struct{ F [1]float32 }{[1]float32{float32(math.NaN())}}); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("NaN inside: %v", err)
	}
	s, _ := New[string](10)
	if _, err := s.Encode(strings.Repeat("x", 11)); !errors.Is(err, lockstep.ErrTooLarge) {
		t.Errorf("a long key: %v", err)
	}
}

func kindError[K comparable]() error {
	_, err := New[K](100)
	return err
}

// Whatever a hand has put into the key column: an error, or the one key whose
// encoding it is.
func FuzzTupleKey(f *testing.F) {
	for _, s := range []string{
		`["acme",7,[true,false],0.5,255,[1,-2]]`, `["\xff\n\"\\\u0001",-1,[false,false],Inf,0,[0,0]]`,
		``, `[`, `["`, `["\x`, `["\u00`, `[]`, `[[[[[[`, `["a",07,[true,false],0.5,255,[1,-2]]`,
	} {
		f.Add(s)
	}
	c, err := New[tenantKey](1 << 20)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := c.Decode(s)
		if err != nil {
			return
		}
		if v, err := c.Encode(k); err != nil || v != s {
			t.Fatalf("%q decodes to %#v, whose encoding is %v, %v", s, k, v, err)
		}
	})
}

func TestWrongColumnsAreErrors(t *testing.T) {
	for _, v := range []any{nil, int64(300), int64(-1), 1.5, "x", []byte("x"), true} {
		for name, err := range map[string]error{
			"uint8": decodeError[uint8](v), "bool": decodeError[bool](v),
			"id": decodeError[id](v), "tenantKey": decodeError[tenantKey](v),
		} {
			if !errors.Is(err, ErrDecode) {
				t.Errorf("%s of %#v: %v", name, v, err)
			}
		}
	}
}

func decodeError[K comparable](v any) error {
	c, err := New[K](100)
	if err != nil {
		return fmt.Errorf("no codec: %v", err)
	}
	_, err = c.Decode(v)
	return err
}

type octet uint8

func TestAnArrayOfANamedByteTypeDoesNotPanic(t *testing.T) {
	roundTrip(t, [4]octet{1, 2, 3, 4}, [4]octet{})
	roundTrip(t, [0]octet{})
}

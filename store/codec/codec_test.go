package codec

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

type profile struct {
	Name   string           `json:"name"`
	Tags   []string         `json:"tags,omitempty"`
	Scores map[string]int64 `json:"scores,omitempty"`
	Next   *profile         `json:"next,omitempty"`
	At     time.Time        `json:"at"`
	Raw    []byte           `json:"raw"`
	Any    any              `json:"any,omitempty"`
}

func TestRoundTrip(t *testing.T) {
	at := time.Date(2026, 11, 21, 1, 2, 3, 456789012, time.UTC)
	v := profile{Name: "é <&>", Tags: []string{"a"}, Scores: map[string]int64{"x": math.MaxInt64}, Next: &profile{At: at}, At: at, Raw: []byte{0, 255}}
	for _, c := range []Codec[profile]{JSON[profile](), CBOR[profile]()} {
		data, err := c.Encode(nil, v)
		if err != nil {
			t.Fatalf("%s: %v", c.Name(), err)
		}
		back, err := c.Decode(data)
		if err != nil || !reflect.DeepEqual(back, v) {
			t.Errorf("%s: %+v became %+v, %v", c.Name(), v, back, err)
		}
		again, err := c.Encode([]byte("kept"), v)
		if err != nil || !bytes.Equal(again, append([]byte("kept"), data...)) {
			t.Errorf("%s: Encode does not append: %q, %v", c.Name(), again, err)
		}
	}
}

func TestJSONIsReadable(t *testing.T) {
	data, err := JSON[map[string]string]().Encode(nil, map[string]string{"b": "<é>", "a": ""})
	if want := `{"a":"","b":"<é>"}`; err != nil || string(data) != want {
		t.Errorf("%s, %v, want %s", data, err, want)
	}
}

func TestRaw(t *testing.T) {
	type name string
	type body []byte
	for _, test := range []func() (any, any, error){
		func() (any, any, error) { return through[string]("a\x00\xff") },
		func() (any, any, error) { return through(name("n")) },
		func() (any, any, error) { return through([]byte{1, 0}) },
		func() (any, any, error) { return through(body{}) },
		func() (any, any, error) { return through([]byte{}) },
	} {
		if v, back, err := test(); err != nil || !reflect.DeepEqual(v, back) {
			t.Errorf("%#v became %#v, %v", v, back, err)
		}
	}
	if _, err := Raw[int](); err == nil {
		t.Error("Raw takes an int")
	}
	if _, err := Raw[[]string](); err == nil {
		t.Error("Raw takes a []string")
	}
	c, _ := Raw[[]byte]()
	data := []byte{1}
	v, _ := c.Decode(data)
	if data[0] = 2; v[0] != 1 {
		t.Error("a decoded value shares memory with the row")
	}
}

func through[V any](v V) (any, any, error) {
	c, err := Raw[V]()
	if err != nil {
		return v, nil, err
	}
	data, err := c.Encode(nil, v)
	if err != nil {
		return v, nil, err
	}
	back, err := c.Decode(data)
	return v, back, err
}

func TestWhatDoesNotEncode(t *testing.T) {
	loop := &profile{}
	loop.Next = loop
	for _, c := range []Codec[*profile]{JSON[*profile](), CBOR[*profile]()} {
		if _, err := c.Encode(nil, loop); err == nil {
			t.Errorf("%s encoded a cycle", c.Name())
		}
	}
	anything := map[string]any{}
	anything["self"] = []any{anything}
	if _, err := CBOR[any]().Encode(nil, anything); err == nil {
		t.Error("cbor encoded a map that contains itself")
	}
	if _, err := JSON[float64]().Encode(nil, math.NaN()); err == nil {
		t.Error("NaN was encoded as JSON")
	}
	for _, c := range []Codec[chan int]{JSON[chan int](), CBOR[chan int]()} {
		if _, err := c.Encode(nil, make(chan int)); err == nil {
			t.Errorf("%s encoded a channel", c.Name())
		}
	}
}

// As many levels can be written as can be read, whatever pointers and interfaces
// are between them in Go.
func TestWhatCanBeReadCanBeWritten(t *testing.T) {
	c := CBOR[any]()
	deepest := 0
	for n := 1; n <= maxDepth+2; n++ {
		data := append(bytes.Repeat([]byte{0x81}, n), 1)
		v, err := c.Decode(data)
		if err != nil {
			continue
		}
		deepest = n
		if again, err := c.Encode(nil, v); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%d levels can be read and not written: %v", n, err)
		}
	}
	if deepest < maxDepth-1 {
		t.Errorf("%d levels can be read", deepest)
	}
	chain := &profile{}
	for range deepest - 2 {
		chain = &profile{Next: chain}
	}
	typed := CBOR[*profile]()
	data, err := typed.Encode(nil, chain)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := typed.Decode(data); err != nil || !reflect.DeepEqual(back, chain) {
		t.Errorf("a chain of %d: %v", deepest-1, err)
	}
	for range 3 {
		chain = &profile{Next: chain}
	}
	if _, err := typed.Encode(nil, chain); err == nil {
		t.Error("what cannot be read was written")
	}
}

func TestNamed(t *testing.T) {
	for _, name := range []string{"json", "cbor", "raw"} {
		if c, err := Named[string](name); err != nil || c.Name() != name {
			t.Errorf("Named(%q): %v, %v", name, c, err)
		}
	}
	if c, err := Named[string](""); err != nil || c.Name() != "json" {
		t.Errorf("Named(\"\"): %v, %v", c, err)
	}
	if _, err := Named[string]("xml"); err == nil || !strings.Contains(err.Error(), "xml") {
		t.Errorf("Named(xml): %v", err)
	}
}

// Hostile bytes are an error or a value, and a value encodes again.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{}`, `{"name":"a","at":"2026-11-21T01:02:03Z"}`, `[`, "\xa0", "\xa1dnameaa", "\x9f", "\xbf\xff", "\x5f", strings.Repeat("[", 2000), strings.Repeat("\x81", 2000)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range []Codec[profile]{JSON[profile](), CBOR[profile]()} {
			v, err := c.Decode(data)
			if err != nil {
				continue
			}
			first, err := c.Encode(nil, v)
			if err != nil {
				continue // a date beyond year 9999, a map with odd keys under any
			}
			back, err := c.Decode(first)
			if err != nil {
				t.Fatalf("%s: %q decodes, and its encoding %q does not: %v", c.Name(), data, first, err)
			}
			second, err := c.Encode(nil, back)
			if err != nil || !bytes.Equal(first, second) {
				t.Fatalf("%s: %q is encoded as %q, and then as %q, %v", c.Name(), data, first, second, err)
			}
		}
	})
}

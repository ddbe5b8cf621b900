package deepcopy

import (
	"encoding/json"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// document has a place for whatever JSON can say.
type document struct {
	Text  string
	Bytes []byte
	Keys  map[string][]int
	Child *document
	List  []document
	Rest  any
}

// scribble changes everything that can be reached and changed.
func scribble(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			scribble(v.Elem())
		}
	case reflect.Interface:
		if !v.IsNil() {
			scribble(v.Elem())
			if v.CanSet() {
				v.SetZero()
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			scribble(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			scribble(v.Index(i))
			v.Index(i).SetZero()
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			scribble(v.MapIndex(k))
			v.SetMapIndex(k, reflect.Value{})
		}
	default:
		if v.CanSet() {
			v.SetZero()
		}
	}
}

// checkPrivate copies what decode returns, ruins the copy, and compares the
// original with a second decoding.
func checkPrivate[V any](t interface {
	Helper()
	Fatalf(string, ...any)
}, decode func() V) {
	t.Helper()
	c, err := For[V]()
	if err != nil {
		t.Fatalf("For: %v", err)
	}
	original := decode()
	copied, err := c.Copy(original)
	if err != nil {
		t.Fatalf("Copy: %v", err)
	}
	if !reflect.DeepEqual(copied, original) {
		t.Fatalf("copy %#v differs from %#v", copied, original)
	}
	scribble(reflect.ValueOf(&copied).Elem())
	if want := decode(); !reflect.DeepEqual(original, want) {
		t.Fatalf("ruining the copy changed the original to %#v, was %#v", original, want)
	}
}

func FuzzCopiesOfDecodedJSON(f *testing.F) {
	for _, seed := range []string{
		`null`, `{}`, `[]`, `[1,"a",null,{"b":[]}]`, `{"Text":"t","Bytes":"AAEC"}`,
		`{"Keys":{"a":[1,2],"b":null},"Child":{"List":[{"Text":"x"}]},"Rest":{"deep":[[[{}]]]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var probe any
		if json.Unmarshal(data, &probe) == nil {
			checkPrivate(t, func() any {
				var v any
				json.Unmarshal(data, &v)
				return v
			})
		}
		var d document
		if json.Unmarshal(data, &d) == nil {
			checkPrivate(t, func() document {
				var v document
				json.Unmarshal(data, &v)
				return v
			})
		}
	})
}

func TestCopiesArePrivate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data, err := json.Marshal(drawDocument(t, 4))
		if err != nil {
			t.Fatalf("%v", err)
		}
		checkPrivate(t, func() document {
			var v document
			json.Unmarshal(data, &v)
			return v
		})
	})
}

func drawDocument(t *rapid.T, depth int) document {
	d := document{
		Text:  rapid.String().Draw(t, "text"),
		Bytes: rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"),
		Keys:  rapid.MapOf(rapid.String(), rapid.SliceOf(rapid.Int())).Draw(t, "keys"),
		Rest:  drawAny(t, depth),
	}
	if depth > 0 && rapid.Bool().Draw(t, "has child") {
		child := drawDocument(t, depth-1)
		d.Child = &child
	}
	for range rapid.IntRange(0, max(0, min(depth, 2))).Draw(t, "list length") {
		d.List = append(d.List, drawDocument(t, depth-2))
	}
	return d
}

func drawAny(t *rapid.T, depth int) any {
	kinds := 3
	if depth > 0 {
		kinds = 5
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return rapid.String().Draw(t, "string")
	case 2:
		return rapid.Int().Draw(t, "number")
	case 3:
		list := make([]any, rapid.IntRange(0, 3).Draw(t, "length"))
		for i := range list {
			list[i] = drawAny(t, depth-1)
		}
		return list
	default:
		object := map[string]any{}
		for range rapid.IntRange(0, 3).Draw(t, "size") {
			object[rapid.String().Draw(t, "key")] = drawAny(t, depth-1)
		}
		return object
	}
}

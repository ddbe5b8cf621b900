package server

import (
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep/internal/netstring"
	sqlrows "github.com/lockstep-cache/lockstep/store/rows"
)

// hash is a hash as its row has it, without the byte in front: netstrings
// (https://cr.yp.to/proto/netstrings.txt), of each field its name and then its value, in the
// order in which the fields came: "4:name,3:Ann,3:age,2:42,". A program in any language reads
// that with a few lines, and a person in the database's shell. It is searched where it is:
// nothing is decoded into a map, which the reader of one field would pay for, nor kept beside
// the row, which would have the cache hold two of it.
type hash string

// Field is a hash's field.
type Field struct{ Name, Value string }

// NewHash returns the Value of a hash with these fields, in this order, for programs that use
// the table beside the server. It is an error if there is none, since a hash without a field
// is no row, or if two have the same name.
func NewHash(fields ...Field) (Value, error) {
	if len(fields) == 0 {
		return "", errors.New("server: a hash without a field is no row")
	}
	size := 1
	for _, f := range fields {
		size += fieldSize(len(f.Name), len(f.Value))
	}
	row := append(make([]byte, 0, size), byte(hashKind))
	named := make(map[string]struct{}, len(fields))
	for _, f := range fields {
		if _, twice := named[f.Name]; twice {
			return "", fmt.Errorf("server: a hash has one field %q, not two", f.Name)
		}
		named[f.Name] = struct{}{}
		row = netstring.Append(netstring.Append(row, f.Name), f.Value)
	}
	return Value(row), nil
}

// Hash returns a hash's fields, in their order. It is an error if the value is no hash, or is
// not written as NewHash writes it, anywhere.
func (v Value) Hash() ([]Field, error) {
	h, err := v.hash()
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	var fields []Field
	named := map[string]struct{}{}
	w := h.walk()
	for w.next() {
		if _, twice := named[w.name]; twice {
			return nil, fmt.Errorf("server: %w", brokenHash(w.from+1))
		}
		named[w.name] = struct{}{}
		fields = append(fields, Field{w.name, w.value})
	}
	if err := w.broken(); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return fields, nil
}

// hash is the hash that the value is.
func (v Value) hash() (hash, error) {
	switch {
	case v.kind() != hashKind:
		return "", reply(wrongType)
	case len(v) == 1:
		return "", brokenHash(1)
	}
	return hash(v[1:]), nil
}

// brokenHash is where a row stops to be a hash, counted from the byte that says of what kind
// it is.
type brokenHash int

func (e brokenHash) Error() string {
	return fmt.Sprintf("the value is no hash from byte %d on, counted from 0", int(e))
}

// walk is a way through a hash's fields.
type walk struct {
	h           hash
	from, at    int // the field's beginning, and its end
	name, value string
}

func (h hash) walk() walk { return walk{h: h} }

// next goes on to the next field. There is none when the hash is over, or broken.
func (w *walk) next() bool {
	if w.at == len(w.h) {
		return false
	}
	name, i := netstring.Next(string(w.h), w.at)
	if i < 0 {
		return false
	}
	value, end := netstring.Next(string(w.h), i)
	if end < 0 {
		return false
	}
	w.name, w.value, w.from, w.at = name, value, w.at, end
	return true
}

// broken tells, after the last field, whether the row goes on with what is none.
func (w *walk) broken() error {
	if w.at == len(w.h) {
		return nil
	}
	return brokenHash(w.at + 1)
}

// get returns a field's value.
func (h hash) get(name []byte) (value string, exists bool, err error) {
	w := h.walk()
	for w.next() {
		if w.name == string(name) {
			return w.value, true, nil
		}
	}
	return "", false, w.broken()
}

// length is how many fields there are.
func (h hash) length() (int, error) {
	n := 0
	w := h.walk()
	for w.next() {
		n++
	}
	return n, w.broken()
}

func fieldSize(name, value int) int { return netstring.Size(name) + netstring.Size(value) }

// names are fields that a request names: each once, in the order in which it names them first.
type names struct {
	all   [][]byte
	index map[string]int // where there are many
}

// fewNames is up to how many it is quicker to look at each.
const fewNames = 8

// find returns a name's number, or -1.
func (n *names) find(name string) int {
	if n.index != nil {
		if i, ok := n.index[name]; ok {
			return i
		}
		return -1
	}
	for i, one := range n.all {
		if string(one) == name {
			return i
		}
	}
	return -1
}

// add returns a name's number, which may have had one before.
func (n *names) add(name []byte) int {
	if i := n.find(string(name)); i >= 0 {
		return i
	}
	n.all = append(n.all, name)
	switch {
	case n.index != nil:
		n.index[string(name)] = len(n.all) - 1
	case len(n.all) > fewNames:
		n.index = make(map[string]int, 2*len(n.all))
		for i, one := range n.all {
			n.index[string(one)] = i
		}
	}
	return len(n.all) - 1
}

// piece is where a field is in a hash that a request names.
type piece struct {
	name     int
	from, to int
	value    string
}

// pieces finds the fields that are named, in the hash's order. That two are one field is
// noticed of those that are named, not of the others: it would take a set of all, for each
// write.
func (h hash) pieces(n *names) ([]piece, error) {
	found := make([]piece, 0, min(len(n.all), 1+len(h)/len("0:,0:,")))
	seen := make([]bool, len(n.all))
	w := h.walk()
	for w.next() {
		i := n.find(w.name)
		switch {
		case i < 0:
			continue
		case seen[i]:
			return nil, brokenHash(w.from + 1)
		}
		seen[i] = true
		found = append(found, piece{i, w.from, w.at, w.value})
	}
	return found, w.broken()
}

// edit is what becomes of the fields that are named: each gets a value, or all are taken out.
// Those that the hash has not yet come at its end.
type edit struct {
	names
	values [][]byte       // of each name, or none at all
	adds   sqlrows.Number // a number is added to the one that is named
}

// set has a field get a value. Of one that is named twice the last is meant.
func (e *edit) set(name, value []byte) {
	if i := e.add(name); i < len(e.values) {
		e.values[i] = value
	} else {
		e.values = append(e.values, value)
	}
}

// apply returns the row of the hash that becomes of this one, of which found are the fields
// that are named. It is refused before it is built when its text has more bytes than most.
func (e *edit) apply(h hash, found []piece, most int) (Value, error) {
	size := int64(len(h))
	there := make([]bool, len(e.all))
	for _, p := range found {
		there[p.name] = true
		size -= int64(p.to - p.from)
	}
	for i, value := range e.values {
		size += int64(fieldSize(len(e.all[i]), len(value)))
	}
	if size > int64(most) {
		return "", reply("ERR " + tooLargeText("hash", size, most))
	}
	row := append(make([]byte, 0, size+1), byte(hashKind))
	put := func(i int) { row = netstring.Append(netstring.Append(row, e.all[i]), e.values[i]) }
	at := 0
	for _, p := range found {
		row = append(row, h[at:p.from]...)
		if e.values != nil {
			put(p.name)
		}
		at = p.to
	}
	row = append(row, h[at:]...)
	for i := range e.values {
		if !there[i] {
			put(i)
		}
	}
	return Value(row), nil
}

package pgstore

import (
	endian "encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// The statements that most writes are, set, setOne and propose, have their arguments
// made in PostgreSQL's binary form by this file, beneath pgx's type map. That one appends
// the arrays of a batch, by reflection, to a buffer that begins with 256 bytes at each
// statement: much of what a write would allocate, and what is allocated is paid
// for by collections, in which all writers wait. They are sent by exchange.go.

// binaryForm is the format of all parameters, and of all columns.
var binaryForm = []int16{pgtype.BinaryFormatCode}

// arguments are those of a statement, in one buffer that is used again.
type arguments struct {
	buf    []byte
	params [][]byte
}

// newArguments returns some without parameters, with room for so many bytes, which
// must not be too small: what was cut from the buffer would not be in its successor.
func newArguments(size int) *arguments {
	a := argumentsPool.Get().(*arguments)
	a.buf, a.params = slices.Grow(a.buf[:0], size), a.params[:0]
	return a
}

// add has f append a parameter to the buffer.
func (a *arguments) add(f func(buf []byte) []byte) {
	at := len(a.buf)
	a.buf = f(a.buf)
	a.params = append(a.params, a.buf[at:len(a.buf):len(a.buf)])
}

var argumentsPool = sync.Pool{New: func() any { return new(arguments) }}

// keptArguments bounds what a buffer may have to be kept.
const keptArguments = 1 << 20

// free is called when the arguments have been sent.
func (a *arguments) free() {
	if cap(a.buf) <= keptArguments {
		argumentsPool.Put(a)
	}
}

// binary makes the arguments of set, or of setOne for a plan of one row.
func (b *batch[K, V]) binary(p plan[K, V], wait string) *arguments {
	size := 2*arrayHeader + 8 + 8 + len(wait)
	for _, f := range p.rows {
		size += 4 + encodedSize(b.Encoded[f.place]) + 4 + len(b.change(f).Prepared.(*kv.Prepared).Data)
	}
	a := newArguments(size)
	key := func(buf []byte, f fold) []byte { return appendEncoded(buf, b.Encoded[f.place]) }
	value := func(buf []byte, f fold) []byte { return append(buf, b.change(f).Prepared.(*kv.Prepared).Data...) }
	if len(p.rows) == 1 {
		a.add(func(buf []byte) []byte { return key(buf, p.rows[0]) })
		a.add(func(buf []byte) []byte { return value(buf, p.rows[0]) })
	} else {
		array := func(oid uint32, element func([]byte, fold) []byte) {
			a.add(func(buf []byte) []byte {
				buf = appendArrayHeader(buf, oid, len(p.rows))
				for _, f := range p.rows {
					at := len(buf)
					buf = element(append(buf, 0, 0, 0, 0), f)
					endian.BigEndian.PutUint32(buf[at:], uint32(len(buf)-at-4))
				}
				return buf
			})
		}
		array(encodedOID(b.Encoded[p.rows[0].place]), key)
		oid := uint32(pgtype.ByteaOID)
		if b.s.table.text {
			oid = pgtype.TextOID
		}
		array(oid, value)
	}
	for _, n := range []int64{p.least, p.stride} {
		a.add(func(buf []byte) []byte { return endian.BigEndian.AppendUint64(buf, uint64(n)) })
	}
	a.add(func(buf []byte) []byte { return append(buf, wait...) })
	return a
}

// arrayHeader is the number of bytes before the elements of an array of one
// dimension: the number of dimensions, whether there are NULLs, the elements' type,
// how many they are, and the index of the first.
const arrayHeader = 5 * 4

func appendArrayHeader(buf []byte, oid uint32, n int) []byte {
	for _, word := range []uint32{1, 0, oid, uint32(n), 1} {
		buf = endian.BigEndian.AppendUint32(buf, word)
	}
	return buf
}

// encodedOID, encodedSize and appendEncoded are for what keytext makes of a key.
func encodedOID(key any) uint32 {
	switch key.(type) {
	case string:
		return pgtype.TextOID
	case int64:
		return pgtype.Int8OID
	case float64:
		return pgtype.Float8OID
	}
	return pgtype.ByteaOID
}

func encodedSize(key any) int {
	switch key := key.(type) {
	case string:
		return len(key)
	case []byte:
		return len(key)
	}
	return 8
}

func appendEncoded(buf []byte, key any) []byte {
	switch key := key.(type) {
	case string:
		return append(buf, key...)
	case int64:
		return endian.BigEndian.AppendUint64(buf, uint64(key))
	case float64:
		return endian.BigEndian.AppendUint64(buf, math.Float64bits(key))
	case []byte:
		return append(buf, key...)
	}
	panic(fmt.Sprintf("pgstore: a key is encoded as a %T", key))
}

package pgstore

import (
	"context"
	endian "encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// The statements that most writes are, set, setOne and propose, are sent and read in
// PostgreSQL's binary form by this file, beneath pgx's type map. That one appends
// the arrays of a batch, by reflection, to a buffer that begins with 256 bytes at each
// statement: much of what a write would allocate, and what is allocated is paid
// for by collections, in which all writers wait.
//
// It is for connections that prepare statements. In every other mode, and where a
// tracer wants to see the statements, they go through pgx as all others do.

// prepares tells whether statements of the connection may go beneath pgx.
func prepares(c *pgx.Conn) bool {
	config := c.Config()
	return config.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement && config.Tracer == nil
}

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

// runBinary is command.read for one whose arguments are binary.
func (m command) runBinary(ctx context.Context, c *pgx.Conn) error {
	// The statement's text is its name, by which pgx finds it, and those of its own
	// cache find it too.
	description, err := c.Prepare(ctx, m.sql, m.sql)
	if err != nil {
		return err
	}
	result := c.PgConn().ExecStatement(ctx, description, m.binary.params, binaryForm, binaryForm)
	m.binary.free()
	scan := func(into ...any) error { return scanBinary(result, into) }
	var broken error
	for result.NextRow() {
		if broken = m.row(scan); broken != nil {
			break
		}
	}
	tag, err := result.Close()
	if outdated(err) {
		// It is prepared anew, if the connection can still be told.
		if err := c.Deallocate(ctx, m.sql); err != nil {
			c.Close(ended)
		}
	}
	if err == nil {
		err = broken
	}
	if err == nil && m.tag != nil {
		err = m.tag(tag)
	}
	return err
}

// scanBinary reads the columns of the row that the result is at.
func scanBinary(result *pgconn.ResultReader, into []any) error {
	values := result.Values()
	if len(values) != len(into) {
		return fmt.Errorf("the row has %d columns, and not %d", len(values), len(into))
	}
	for i, data := range values {
		switch into := into[i].(type) {
		case *any:
			switch oid := result.FieldDescriptions()[i].DataTypeOID; {
			case oid == pgtype.TextOID:
				*into = string(data)
			case oid == pgtype.Int8OID && len(data) == 8:
				*into = int64(endian.BigEndian.Uint64(data))
			case oid == pgtype.Float8OID && len(data) == 8:
				*into = math.Float64frombits(endian.BigEndian.Uint64(data))
			case oid == pgtype.ByteaOID:
				*into = append([]byte{}, data...)
			default:
				return fmt.Errorf("column %d has %d bytes of the type with oid %d", i+1, len(data), oid)
			}
		case *int64:
			if len(data) != 8 {
				return fmt.Errorf("column %d has %d bytes, and not the 8 of a bigint", i+1, len(data))
			}
			*into = int64(endian.BigEndian.Uint64(data))
		case **int64:
			switch len(data) {
			case 0: // NULL
				*into = nil
			case 8:
				n := int64(endian.BigEndian.Uint64(data))
				*into = &n
			default:
				return fmt.Errorf("column %d has %d bytes, and not the 8 of a bigint", i+1, len(data))
			}
		default:
			return fmt.Errorf("column %d cannot be read as a %T", i+1, into)
		}
	}
	return nil
}

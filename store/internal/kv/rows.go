// Package kv is what the key-value tables of all SQL stores share: how a row is
// encoded, and what the sets of a batch come to. It knows no SQL.
package kv

import (
	"fmt"
	"runtime/debug"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
)

// Rows encodes keys and values.
type Rows[K comparable, V any] struct {
	Key           keytext.Codec[K]
	Values        codec.Codec[V]
	MaxValueBytes int
}

// Prepared is what Prepare leaves in a change for Commit.
type Prepared struct {
	Key  any    // encoded
	Data []byte // the encoded value, which nobody changes; nil for a deletion
}

// Prepare is a Capabilities.Prepare: it encodes the key and the value, and
// replaces the value by what Load would return for it.
func (r *Rows[K, V]) Prepare(c lockstep.Change[K, V]) (lockstep.Change[K, V], int, error) {
	if c.Insert {
		return c, 0, fmt.Errorf("%w: the caller gives the keys of a key-value table", lockstep.ErrUnsupported)
	}
	key, err := r.Key.Encode(c.Key)
	if err != nil {
		return c, 0, err
	}
	p := &Prepared{Key: key}
	c.Prepared = p
	if c.Delete {
		var zero V
		c.Value = zero
		return c, 0, nil
	}
	if !c.ExpiresAt.IsZero() && (c.ExpiresAt.Year() < 1 || c.ExpiresAt.Year() > 9999) {
		return c, 0, invalid("key %v: ExpiresAt is in the year %d", c.Key, c.ExpiresAt.Year())
	}
	if p.Data, err = r.encode(nil, c.Value); err != nil {
		return c, 0, invalid("key %v: the value does not encode: %w", c.Key, err)
	}
	if p.Data == nil {
		p.Data = []byte{}
	}
	if len(p.Data) > r.MaxValueBytes {
		return c, 0, fmt.Errorf("%w: key %v: the value has %d bytes, and the limit is %d", lockstep.ErrTooLarge, c.Key, len(p.Data), r.MaxValueBytes)
	}
	if shared, ok := r.Values.(codec.Sharing[V]); ok {
		c.Value, err = shared.DecodeShared(p.Data)
	} else {
		c.Value, err = r.Decode(p.Data)
	}
	if err != nil {
		return c, 0, invalid("key %v: the value does not decode again: %w", c.Key, err)
	}
	return c, len(p.Data), nil
}

// encode and Decode are the codec's, where a panic in the value's own methods is an
// error like any other.
func (r *Rows[K, V]) encode(dst []byte, v V) (_ []byte, err error) {
	defer Panicked(&err, "its type has panicked")
	return r.Values.Encode(dst, v)
}

// Decode is the codec's.
func (r *Rows[K, V]) Decode(data []byte) (_ V, err error) {
	defer Panicked(&err, "its type has panicked")
	return r.Values.Decode(data)
}

// Clone is a Capabilities.Clone.
func (r *Rows[K, V]) Clone(v V) (V, error) {
	data, err := r.encode(nil, v)
	if err != nil {
		return v, fmt.Errorf("copying a value: %w", err)
	}
	return r.Decode(data)
}

// Panicked is deferred where a value's own methods run: their panic is an error of
// that value, and not of the many that share a commit with it.
func Panicked(err *error, what string) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s: %v\n%s", what, p, debug.Stack())
	}
}

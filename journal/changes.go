package journal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
)

// A record's data are its changes: for each a byte, 1 for a deletion, the length of the
// key, the key, and, where it is no deletion, the length of the value, and the value.
// Lengths are varints.
type changes[K comparable, V any] struct {
	keys   codec.Codec[K]
	values codec.Codec[V]
}

const (
	setsRow byte = iota
	deletesRow
)

func (c changes[K, V]) encode(list []lockstep.Change[K, V]) ([]byte, error) {
	var data, text []byte
	put := func(encoded []byte, err error) error {
		if err != nil {
			return err
		}
		text = encoded
		data = binary.AppendUvarint(data, uint64(len(encoded)))
		data = append(data, encoded...)
		return nil
	}
	for _, change := range list {
		kind := setsRow
		if change.Delete {
			kind = deletesRow
		}
		data = append(data, kind)
		err := put(c.keys.Encode(text[:0], change.Key))
		if err == nil && !change.Delete {
			err = put(c.values.Encode(text[:0], change.Value))
		}
		if err != nil {
			return nil, fmt.Errorf("%w: key %v cannot be kept in the journal: %w", lockstep.ErrInvalid, change.Key, err)
		}
		if len(data) > maxData {
			return nil, fmt.Errorf("%w: a record of the journal may have %d bytes", lockstep.ErrTooLarge, maxData)
		}
	}
	return data, nil
}

var errShort = errors.New("it ends too early")

func (c changes[K, V]) decode(data []byte) (list []lockstep.Change[K, V], err error) {
	take := func() ([]byte, error) {
		length, n := binary.Uvarint(data)
		if n <= 0 || length > uint64(len(data)-n) {
			return nil, errShort
		}
		taken := data[n : n+int(length)]
		data = data[n+int(length):]
		return taken, nil
	}
	for len(data) > 0 {
		var change lockstep.Change[K, V]
		kind := data[0]
		if data = data[1:]; kind > deletesRow {
			return nil, fmt.Errorf("a change of kind %d", kind)
		}
		change.Delete = kind == deletesRow
		key, err := take()
		if err == nil {
			change.Key, err = c.keys.Decode(key)
		}
		if err != nil {
			return nil, fmt.Errorf("a key: %w", err)
		}
		if !change.Delete {
			value, err := take()
			if err == nil {
				change.Value, err = c.values.Decode(value)
			}
			if err != nil {
				return nil, fmt.Errorf("the value of key %v: %w", change.Key, err)
			}
		}
		list = append(list, change)
	}
	return list, nil
}

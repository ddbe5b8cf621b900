package journal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
)

// A file is the magic, a frame with its header, and a frame for each record:
//
//	length   4 bytes, little endian: of number and data
//	checksum 4 bytes: CRC-32C of the length, the number and the data
//	number   8 bytes: 0 for the header
//	data
const (
	magic     = "lockstep journal 1\n"
	frameHead = 8
	minFrame  = frameHead + 8
	maxData   = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the first frame's data.
type header struct {
	// Journal is the journal's identity, and the key of its position.
	Journal string `json:"journal"`
	// First is the number of the file's first record.
	First uint64 `json:"first"`
	// Keys and Values are the names of the codecs.
	Keys   string `json:"keys"`
	Values string `json:"values"`
}

// appendFrame appends a frame to dst.
func appendFrame(dst []byte, number uint64, data []byte) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(8+len(data)))
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, number)
	dst = append(dst, data...)
	binary.LittleEndian.PutUint32(dst[start+4:], checksum(dst[start:]))
	return dst
}

func checksum(frame []byte) uint32 {
	return crc32.Update(crc32.Checksum(frame[:4], castagnoli), castagnoli, frame[frameHead:])
}

// frameAt returns the frame that b begins with, if that is whole.
func frameAt(b []byte) (number uint64, data []byte, size int, ok bool) {
	if len(b) < minFrame {
		return 0, nil, 0, false
	}
	length := binary.LittleEndian.Uint32(b)
	if length < 8 || length > 8+maxData || uint64(length) > uint64(len(b)-frameHead) {
		return 0, nil, 0, false
	}
	frame := b[:frameHead+int(length)]
	if binary.LittleEndian.Uint32(frame[4:]) != checksum(frame) {
		return 0, nil, 0, false
	}
	return binary.LittleEndian.Uint64(frame[frameHead:]), frame[minFrame:], len(frame), true
}

// record is one that was read.
type record struct {
	number uint64
	data   []byte // of the file's
}

// contents is what a file holds.
type contents struct {
	header  header
	records []record
	// good is where the last whole record ends. What comes after it is cut off.
	good int
}

// errDamaged is where and how a file is damaged.
type errDamaged struct {
	at   int
	what string
}

func (e *errDamaged) Error() string { return fmt.Sprintf("%s at byte %d", e.what, e.at) }

// parse reads a file. What is after the last whole record is no error unless there is a
// whole record in it; the header is always whole, for a file gets its name when it is.
func parse(b []byte) (c contents, err error) {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return c, &errDamaged{0, "no journal's beginning"}
	}
	c.good = len(magic)
	number, data, size, ok := frameAt(b[c.good:])
	if !ok || number != 0 {
		return c, &errDamaged{c.good, "no whole header"}
	}
	if err := json.Unmarshal(data, &c.header); err != nil || c.header.Journal == "" || c.header.First == 0 {
		return c, &errDamaged{c.good, "a header that is none"}
	}
	c.good += size
	for next := c.header.First; c.good < len(b); next++ {
		number, data, size, ok := frameAt(b[c.good:])
		if !ok {
			if at := wholeAfter(b, c.good+1, next); at >= 0 {
				return c, &errDamaged{c.good, fmt.Sprintf("a damaged record, with a whole one at byte %d,", at)}
			}
			return c, nil
		}
		if number != next {
			return c, &errDamaged{c.good, fmt.Sprintf("record %d where %d was expected", number, next)}
		}
		c.records = append(c.records, record{number, data})
		c.good += size
	}
	return c, nil
}

// wholeAfter looks for a whole record from a byte on, with a number from next on; -1 if
// there is none. Numbers are looked at first: hardly anything else is one by chance.
func wholeAfter(b []byte, from int, next uint64) int {
	for at := from; at+minFrame <= len(b); at++ {
		number := binary.LittleEndian.Uint64(b[at+frameHead:])
		if number < next || number-next > 1<<32 {
			continue
		}
		if _, _, _, ok := frameAt(b[at:]); ok {
			return at
		}
	}
	return -1
}

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// written is a file with records of these sizes, and where each of its frames begins, the
// header's first.
func written(first uint64, sizes ...int) (b []byte, starts []int) {
	b = append(b, magic...)
	starts = append(starts, len(b))
	b = appendFrame(b, 0, fmt.Appendf(nil, `{"journal":"j","first":%d,"keys":"json","values":"json"}`, first))
	for i, size := range sizes {
		starts = append(starts, len(b))
		b = appendFrame(b, first+uint64(i), bytes.Repeat([]byte{byte('a' + i)}, size))
	}
	return b, starts
}

// However much of a file is there, what is whole is read, and what is not is cut off.
func TestAFileThatIsCutOffAnywhere(t *testing.T) {
	file, starts := written(5, 0, 1, 30, 7, 300)
	for cut := range len(file) + 1 {
		whole := -1 // records
		for _, start := range append(starts[1:], len(file)) {
			if cut >= start {
				whole++
			}
		}
		c, err := parse(file[:cut])
		if whole < 0 {
			var damaged *errDamaged
			if !errors.As(err, &damaged) {
				t.Errorf("cut at %d, in the header: %v", cut, err)
			}
			continue
		}
		if err != nil || len(c.records) != whole || c.good != append(starts[1:], len(file))[whole] {
			t.Errorf("cut at %d: %d records, good up to %d, %v; want %d", cut, len(c.records), c.good, err, whole)
		}
	}
}

// A machine that loses power may leave anything in the blocks that it has not written:
// zeros, and what was there before.
func TestAFileWhoseTailIsGarbage(t *testing.T) {
	file, starts := written(1, 10, 20, 30)
	for name, tail := range map[string][]byte{
		"Zeros": make([]byte, 5000), "Ones": bytes.Repeat([]byte{255}, 5000), "OldRecord": appendFrame(nil, 1, []byte("of another file")),
	} {
		for _, at := range []int{starts[3], starts[3] + 5, len(file)} {
			c, err := parse(append(file[:at:at], tail...))
			want := 2
			if at == len(file) {
				want = 3
			}
			if name == "OldRecord" && at != starts[3]+5 {
				if err == nil {
					t.Errorf("%s at %d: a number that is out of order is no error", name, at)
				}
				continue
			}
			if err != nil || len(c.records) != want {
				t.Errorf("%s at %d: %d records, %v", name, at, len(c.records), err)
			}
		}
	}
}

// A byte that has changed anywhere before the last record is an error that says where. In
// the last record it cannot be told from one that was not written to its end.
func TestAFileThatIsDamagedAnywhere(t *testing.T) {
	file, starts := written(1, 3, 40, 5)
	for at := range file {
		damaged := bytes.Clone(file)
		damaged[at] ^= 0x10
		c, err := parse(damaged)
		if at >= starts[3] {
			if err != nil || len(c.records) != 2 || c.good != starts[3] {
				t.Errorf("byte %d, in the last record: %d records, %v", at, len(c.records), err)
			}
			continue
		}
		frame := 0
		for _, start := range starts {
			if at >= start {
				frame = start
			}
		}
		var d *errDamaged
		if !errors.As(err, &d) || d.at != frame {
			t.Errorf("byte %d, in the frame at %d: %v", at, frame, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	file, starts := written(1, 3, 40, 5)
	f.Add(file)
	f.Add(file[:starts[2]+9])
	f.Add(append(bytes.Clone(file), 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parse(b)
		if err != nil {
			return
		}
		// What was read is what was written, and nothing whole is left out.
		if c.good > len(b) {
			t.Fatalf("good up to %d of %d bytes", c.good, len(b))
		}
		end := c.good
		for i := len(c.records) - 1; i >= 0; i-- {
			frame := appendFrame(nil, c.records[i].number, c.records[i].data)
			if end -= len(frame); end < 0 || !bytes.Equal(b[end:end+len(frame)], frame) {
				t.Fatalf("record %d is not at byte %d", i, end)
			}
			if c.records[i].number != c.header.First+uint64(i) {
				t.Fatalf("record %d has number %d", i, c.records[i].number)
			}
		}
		if _, _, _, whole := frameAt(b[c.good:]); whole {
			t.Fatal("a whole record is cut off")
		}
	})
}

func FuzzDecode(f *testing.F) {
	c := changes[string, int]{keys: jsonOf[string](), values: jsonOf[int]()}
	f.Add([]byte{0, 3, '"', 'k', '"', 1, '7', 1, 2, '"', '"'})
	f.Add([]byte{0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := c.decode(b)
		if err != nil {
			return
		}
		again, err := c.encode(list)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := c.decode(again)
		if err != nil || fmt.Sprint(twice) != fmt.Sprint(list) {
			t.Fatalf("%v becomes %v, %v", list, twice, err)
		}
	})
}

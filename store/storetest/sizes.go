package storetest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-cache/lockstep"
)

// sizeLaws: many, long and strange.
var sizeLaws = []law{
	{"ManyKeysInOneLoad", manyKeys},
	{"ManySetsInOneCommit", manySets},
	{"ManyChangesInOneSet", manyChanges},
	{"LongValues", longValues},
	{"StrangeValues", strangeValues},
}

func manyKeys(s *subject) {
	const asked, there = 5000, 50
	var changes []change
	keys := make([]string, asked)
	for i := range keys {
		keys[i] = fmt.Sprintf("key %d", i)
		if i%(asked/there) == 0 {
			changes = append(changes, put(keys[i], doc(int64(i))))
		}
	}
	s.write(changes...)
	rows := s.load(keys...)
	found := 0
	for i, key := range keys {
		if r := rows[key]; r.Exists {
			found++
			s.expect(r.Value.Equal(doc(int64(i))), "key %q holds %s", key, show(r))
		}
	}
	s.expect(found == there, "Load of %d keys found %d of %d rows", asked, found, there)
}

func manySets(s *subject) {
	const n = 2000
	batch := make([]changeSet, n)
	for i := range batch {
		batch[i] = set(put(fmt.Sprint("key", i%1500), doc(int64(i))))
	}
	outcomes, err := s.try(s.ctx, batch...)
	if err != nil {
		s.Fatalf("Commit: %v", err)
	}
	for i, o := range outcomes {
		// A set that was unavailable and has been overtaken leaves nothing to see.
		if o.Err != nil && !(unavailable(o.Err) && i < n-1500) {
			s.Fatalf("set %d: %v", i, o.Err)
		}
	}
	for _, i := range []int{0, 1, 499, 500, 1499} {
		want := i
		if i < n-1500 {
			want = i + 1500
		}
		s.holds(fmt.Sprint("key", i), doc(int64(want)))
	}
}

func manyChanges(s *subject) {
	const n = 2000
	changes := make([]change, n)
	for i := range changes {
		changes[i] = put(fmt.Sprint("key", i), doc(int64(i)))
	}
	o := s.write(changes...)
	for i, r := range o.Rows {
		s.expect(r.Value.Equal(doc(int64(i))), "Rows[%d] is %s", i, show(r))
	}
	for _, i := range []int{0, 1, n / 2, n - 1} {
		s.holds(fmt.Sprint("key", i), doc(int64(i)))
	}
}

func longValues(s *subject) {
	long := Doc{Title: strings.Repeat("title ", 10_000), Body: make([]byte, 1<<20)}
	for i := range long.Body {
		long.Body[i] = byte(i * i >> 8)
	}
	s.put("long", long)
	s.put("short", doc(1))
	s.holds("long", long)
	s.put("long", doc(2))
	s.holds("long", doc(2))
}

// strangeValues: a value is kept as it is. A store may refuse one, as texts with a
// NUL are refused by PostgreSQL, if it says so; it must not mend it.
func strangeValues(s *subject) {
	for i, d := range []Doc{
		{},
		{Title: "\x00 zero \x00", Body: []byte{0}},
		{Title: `quotes ' " \ and %s ? $1`, Body: []byte("'; --")},
		{Title: "línea\nnueva\r\n\t☃ \U0001F600 \u202e"},
		{Title: " spaces ", Body: []byte(" ")},
		{Count: -1 << 63, Score: -0.1},
		{Count: 1<<63 - 1, Score: 5e-324},
		{Score: 0.1 + 0.2, Done: true},
	} {
		key := fmt.Sprint("key", i)
		err := s.alone(set(put(key, d)))
		switch {
		case err == nil:
			s.holds(key, d)
		case errors.Is(err, lockstep.ErrInvalid) && strings.ContainsRune(d.Title, 0):
			s.absent(key)
		default:
			s.Errorf("%v: %v, want it accepted", d, err)
		}
	}
}

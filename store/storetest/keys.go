package storetest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-cache/lockstep"
)

var keyLaws = []law{
	{"Law9_KeysDifferAsInGo", law9},
}

// lookalikes are keys that some database takes for each other: for its
// collation, its padding, its normal form, its end of string or its numbers.
var lookalikes = []string{
	"", " ", "\x00", "\t", "\n",
	"a", "A", "a ", " a", "a  ", "a\x00", "a\x00b", "á", "a\u0301", "ａ",
	"ss", "ß", "SS", "i", "I", "ı", "İ",
	"1", "01", "1.0", "1e0", "+1", " 1",
	"null", "NULL", "%", "_", "*", `\`, `'`, `"`, "';--", "key",
	"\U0001F600", "\uFFFD", "\xff", "\xfe",
	strings.Repeat("k", 200), strings.Repeat("k", 199) + "K",
}

// law9: each key is a row of its own. A store may refuse a key, if it says so.
func law9(s *subject) {
	accepted := make(map[string]Doc)
	var keys []string
	for n, key := range lookalikes {
		keys = append(keys, key)
		d := doc(int64(n))
		outcomes, err := s.try(s.ctx, set(put(key, d)))
		if err == nil {
			err = outcomes[0].Err
		}
		switch {
		case err == nil:
			accepted[key] = d
		case errors.Is(err, lockstep.ErrInvalid) || errors.Is(err, lockstep.ErrTooLarge):
		default:
			s.Errorf("key %q: %v, want it accepted, or refused as ErrInvalid or ErrTooLarge", key, err)
		}
	}
	compare := func() {
		s.Helper()
		for _, key := range keys {
			rows, err := s.store.Load(s.ctx, []string{key})
			if want, ok := accepted[key]; ok {
				if r := rows[key]; err != nil || !r.Exists || !r.Value.Equal(want) {
					s.Errorf("key %q: Load has %s (%v), want %v", key, show(r), err, want)
				}
			} else if rows[key].Exists {
				s.Errorf("key %q was refused or deleted, and Load has %s", key, show(rows[key]))
			}
		}
	}
	compare()

	together := make([]string, 0, len(accepted))
	for key := range accepted {
		together = append(together, key, key) // asking twice is asking once
	}
	rows := s.load(together...)
	s.expect(len(rows) == len(accepted), "Load of %d keys returned %d rows", len(accepted), len(rows))
	for key, want := range accepted {
		s.expect(rows[key].Value.Equal(want), "key %q: Load of all keys has %s, want %v", key, show(rows[key]), want)
	}

	// Deleting one leaves those that resemble it.
	for n, key := range keys {
		if _, ok := accepted[key]; ok && n%2 == 0 {
			s.write(erase(key))
			delete(accepted, key)
		}
	}
	compare()
	s.expect(len(accepted) > 0, "%s", fmt.Sprint("the store refused every key of ", len(keys)))
}

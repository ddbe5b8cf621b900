package server

import (
	"strings"
	"testing"
)

func TestKeysOfARequest(t *testing.T) {
	for _, c := range []struct {
		keys          keys
		request, want string
	}{
		{keys{}, "PING a", ""},
		{keys{1, 1, 1}, "GET a b", "a"},
		{keys{1, -1, 1}, "DEL a b c", "a b c"},
		{keys{1, -1, 2}, "MSET a 1 b 2", "a b"},
		{keys{1, -2, 1}, "X a b c", "a b"},
		{keys{2, 5, 1}, "X y a b", "a b"},
		{keys{1, 1, 1}, "GET", ""},
	} {
		var request [][]byte
		for word := range strings.FieldsSeq(c.request) {
			request = append(request, []byte(word))
		}
		var got []string
		for _, key := range c.keys.of(request) {
			got = append(got, string(key))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v of %q: %q", c.keys, c.request, got)
		}
	}
}

// TestTableIsWhole: every row has what COMMAND tells of it.
func TestTableIsWhole(t *testing.T) {
	known := map[string]bool{}
	for _, category := range categoryOrder {
		known[category] = true
	}
	for _, c := range commands.names() {
		if c.summary == "" || c.since == "" || c.group == "" || c.arity == 0 || len(c.full) > longestName || strings.ToLower(c.full) != c.full {
			t.Errorf("%s: %+v", c.full, c)
		}
		if c.run == nil && c.keyed == nil && (c.sub == nil || c.arity != -2) {
			t.Errorf("%s cannot be run", c.full)
		}
		for category := range strings.FieldsSeq(c.categories) {
			if !known[category] {
				t.Errorf("%s is of the category %q", c.full, category)
			}
		}
	}
}

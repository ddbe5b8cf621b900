package crash

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// effect is what a call does if it is made.
type effect struct {
	Writes map[string]string `json:",omitempty"` // "" deletes; other values are no other call's
	Adds   map[string]int    `json:",omitempty"` // to rows that are numbers
}

// call is a call that has begun.
type call struct {
	effect
	number       int
	began, ended int // positions among all that the program said
	done         bool
}

// before tells whether a call had returned when another one began.
func (c *call) before(d *call) bool { return c.done && c.ended < d.began }

// history is what a program said before it was killed. Its keys begin with the prefix.
type history struct {
	number int
	prefix string
	calls  []*call
}

// faults returns a line for each row that the history does not explain.
func (h history) faults(rows map[string]string) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	found := map[string]string{} // "" where there is none
	for key, value := range rows {
		if strings.HasPrefix(key, h.prefix) {
			found[key] = value
		}
	}
	writers := map[string][]*call{}
	adders := map[string][]*call{}
	for _, c := range h.calls {
		for key := range c.Writes {
			writers[key] = append(writers[key], c)
		}
		for key := range c.Adds {
			adders[key] = append(adders[key], c)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(found)) {
		if writers[key] == nil && adders[key] == nil {
			fault("%s is %q, and nobody wrote it", key, found[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(writers)) {
		if !explained(writers[key], key, found[key]) {
			fault("%s is %q, and %s", key, found[key], told(writers[key], key))
		}
	}
	made := map[*call]bool{}
	for _, c := range h.calls {
		in, out := c.whole(writers, found)
		switch {
		case len(c.Writes) < 2: // there is no half of it
		case c.done && !in:
			fault("call %d was acknowledged, and is not there whole: %v", c.number, c.Writes)
		case !in && !out:
			fault("of call %d there is a part: of %v there are %v", c.number, c.Writes, of(found, c.Writes))
		}
		made[c] = c.done || len(c.Writes) > 0 && in && !out
	}
	for _, key := range slices.Sorted(maps.Keys(adders)) {
		// What has nothing but a share in a sum may be in it, when it was under way.
		least, most := 0, 0
		for _, c := range adders[key] {
			switch {
			case made[c]:
				least, most = least+c.Adds[key], most+c.Adds[key]
			case len(c.Writes) == 0:
				least, most = least+min(0, c.Adds[key]), most+max(0, c.Adds[key])
			}
		}
		if sum, err := count(found[key], found[key] != ""); err != nil || sum < least || sum > most {
			fault("%s is %q, and what was acknowledged comes to %d (%d with what was under way)", key, found[key], least, most)
		}
	}
	return faults
}

// explained tells whether a row may be as it was found: as a call left it that no
// acknowledged one came after, or as it was in the beginning, which is not there, if none
// was acknowledged.
func explained(writers []*call, key, value string) bool {
	if value == "" && !slices.ContainsFunc(writers, func(c *call) bool { return c.done }) {
		return true
	}
	return slices.ContainsFunc(writers, func(c *call) bool {
		return c.Writes[key] == value && !slices.ContainsFunc(writers, func(d *call) bool { return d.done && c.before(d) })
	})
}

// whole tells whether the rows may be as after the call, and whether they may be as if it
// had not been made. A row that a later call may have written tells nothing.
func (c *call) whole(writers map[string][]*call, found map[string]string) (in, out bool) {
	in, out = true, !c.done
	for key, value := range c.Writes {
		var others []*call
		later := false
		for _, d := range writers[key] {
			if d != c {
				others = append(others, d)
				later = later || c.before(d)
			}
		}
		if later {
			continue
		}
		in = in && found[key] == value
		out = out && explained(others, key, found[key])
	}
	return in, out
}

// told is what the last acknowledged call and those under way would have left there.
func told(writers []*call, key string) string {
	var text []string
	for _, c := range writers[max(0, len(writers)-5):] {
		state := "under way"
		if c.done {
			state = "acknowledged"
		}
		text = append(text, fmt.Sprintf("call %d (%s) wrote %q", c.number, state, c.Writes[key]))
	}
	return strings.Join(text, ", ")
}

// of are the rows that a call writes.
func of(found, writes map[string]string) map[string]string {
	rows := map[string]string{}
	for key := range writes {
		rows[key] = found[key]
	}
	return rows
}

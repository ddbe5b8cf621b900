package server

import (
	"strconv"
	"strings"
	"sync"
)

// keptCursors is how many positions of SCANs are remembered.
const keptCursors = 4096

// cursors are positions in the table, by the numbers that clients know them by. A store's
// own are of any type, and Redis's clients expect a number. They belong to no connection,
// for a pool's client goes on wherever it likes, and stay good when they have been used:
// a client whose reply was lost asks again. The oldest are forgotten. Whoever comes with
// one that is not known starts again: he gets keys twice, which SCAN allows, and misses
// none, which an empty answer would have him do.
type cursors struct {
	mu   sync.Mutex
	last uint64
	kept [keptCursors]any // by number modulo its length
}

// find returns a position, nil for the beginning.
func (c *cursors) find(number uint64) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if number == 0 || number > c.last || number+keptCursors <= c.last {
		return nil
	}
	return c.kept[number%keptCursors]
}

// keep gives a position a number, 0 for the end.
func (c *cursors) keep(position any) uint64 {
	if position == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.kept[c.last%keptCursors] = position
	return c.last
}

// parseCursor reads what C's strtoul takes, less a space before it: a sign is allowed, and
// nothing at all is zero.
func parseCursor(text string) (uint64, bool) {
	if text == "" {
		return 0, true
	}
	digits := text
	if text[0] == '+' || text[0] == '-' {
		digits = text[1:]
	}
	if strings.ContainsFunc(digits, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, false
	}
	if text[0] == '-' {
		n = -n
	}
	return n, true
}

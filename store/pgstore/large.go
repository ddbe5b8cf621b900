package pgstore

import (
	"fmt"

	"github.com/lockstep-cache/lockstep"
)

// What a message of the protocol cannot carry (1 GiB) fails in the driver, which closes
// the connection: for all it says the outcome would be unknown. So what does not fit is
// refused before anything is sent.

// roomOf is how much the keys and values of a commit may come to, with room for what
// goes with them. As text a byte may be two.
func roomOf(texts bool) int {
	if texts {
		return fieldBytes / 2
	}
	return fieldBytes
}

// room is what is left of it for the sets of a commit.
type room struct{ whole, left int }

func (db *Database) newRoom() room { return room{db.room, db.room} }

// take is for a set of so many bytes. Its error leaves the set out.
func (r *room) take(bytes int) error {
	switch {
	case bytes > r.whole:
		return fmt.Errorf("%w: postgres: the set's keys and values have %d bytes, and a commit can have %d", lockstep.ErrTooLarge, bytes, r.whole)
	case bytes > r.left:
		return unavailable("the commit has no room for a set of %d bytes: with those before it, it would have more than %d", bytes, r.whole)
	}
	r.left -= bytes
	return nil
}

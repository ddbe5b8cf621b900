package server

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-cache/lockstep"
)

// Keyspace notifications: what has become of keys, published on channels whose names have
// the key, or the event, in them. They are as Redis's, and sent when the write is committed.

// classes are those of the events that are published, and on which channels. Redis calls
// them notify-keyspace-events.
type classes uint32

// letters are in the order in which Redis writes them. What the server does not have is
// taken, and remembered one by one.
const (
	allLetters     = "g$lshzxetd"
	classLetters   = allLetters + "KE"
	refusedLetters = "mn"
)

func bitOf(letter byte) classes { return 1 << strings.IndexByte(classLetters, letter) }

// parseClasses reads them, or says what is wrong in Redis's words.
func parseClasses(text string) (c classes, wrong string) {
	for _, letter := range []byte(text) {
		switch {
		case letter == 'A':
			for _, l := range []byte(allLetters) {
				c |= bitOf(l)
			}
		case strings.IndexByte(classLetters, letter) >= 0:
			c |= bitOf(letter)
		case strings.IndexByte(refusedLetters, letter) >= 0:
			return 0, fmt.Sprintf("events of the class %c are not told by this server", letter)
		default:
			return 0, "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."
		}
	}
	return c, ""
}

func (c classes) has(letter byte) bool { return c&bitOf(letter) != 0 }

func (c classes) String() string {
	var b strings.Builder
	for _, letter := range []byte(classLetters) {
		if c.has(letter) {
			b.WriteByte(letter)
		}
	}
	if rest, all := strings.CutPrefix(b.String(), allLetters); all {
		return "A" + rest
	}
	return b.String()
}

// keyChange is what a command has made of a key.
type keyChange struct {
	cmd     *command
	key     string
	removed bool
	ends    bool // it has an end
	kept    bool // the one that it had
}

// events are what Redis calls that: names with their classes.
func (k keyChange) events() []string {
	switch k.cmd.full {
	case "getex", "expire", "expireat", "pexpire", "pexpireat", "persist":
		switch {
		case k.removed:
			return []string{"gdel"}
		case k.ends:
			return []string{"gexpire"}
		}
		return []string{"gpersist"}
	case "rename", "renamenx":
		if k.removed {
			return []string{"grename_from"}
		}
		return []string{"grename_to"}
	case "copy":
		return []string{"gcopy_to"}
	case "hdel":
		if k.removed {
			return []string{"hhdel", "gdel"}
		}
		return []string{"hhdel"}
	}
	if k.removed {
		return []string{"gdel"}
	}
	switch name := k.cmd.full; name {
	case "incr", "decr", "incrby", "decrby":
		return []string{"$incrby"}
	case "append", "setrange", "incrbyfloat":
		return []string{"$" + name}
	case "hincrby", "hincrbyfloat":
		return []string{"h" + name}
	case "hset", "hmset", "hsetnx":
		return []string{"hhset"}
	}
	if k.ends && !k.kept {
		return []string{"$set", "gexpire"}
	}
	return []string{"$set"}
}

// tellChanges publishes events of changes that are committed, in their order.
func (s *Server) tellChanges(changes []keyChange) {
	for i, k := range changes {
		// A key that was renamed is gone before it is there.
		if moved := i+1 < len(changes) && changes[i+1].removed && changes[i+1].cmd == k.cmd && strings.HasPrefix(k.cmd.full, "rename"); moved && !k.removed {
			changes[i], changes[i+1] = changes[i+1], changes[i]
			k = changes[i]
		}
		for _, event := range k.events() {
			s.tellEvent(event[0], event[1:], k.key)
		}
	}
}

// tellEvent publishes one event, if its class is wanted.
func (s *Server) tellEvent(class byte, event, key string) {
	wanted := classes(s.events.Load())
	if !wanted.has(class) {
		return
	}
	if wanted.has('K') {
		s.hub.publish(channels, []byte("__keyspace@0__:"+key), []byte(event))
	}
	if wanted.has('E') {
		s.hub.publish(channels, []byte("__keyevent@0__:"+event), []byte(key))
	}
}

// tellEnds has keys told whose time is over.
func (s *Server) tellEnds(hooks *lockstep.Hooks[string]) {
	program := hooks.Ended
	hooks.Ended = func(key string) {
		s.tellEvent('x', "expired", key)
		if program != nil {
			program(key)
		}
	}
}

// changed notes what the write has made of a key, if anybody wants to be told.
func (w *writing) changed(key string, removed bool, end end) {
	if w != nil && w.noting {
		w.changes = append(w.changes, keyChange{cmd: w.cmd, key: key, removed: removed, ends: end.set()})
	}
}

// kept says of the last change that the key has the end that it had.
func (w *writing) kept() {
	if w != nil && len(w.changes) > 0 {
		w.changes[len(w.changes)-1].kept = true
	}
}

// mayBeMade tells it of a write's error: changes of one whose outcome is unknown are noted,
// and told when it is settled.
func mayBeMade(err error) bool { return err == nil || errors.Is(err, lockstep.ErrUnknownOutcome) }

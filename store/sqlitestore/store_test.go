package sqlitestore

import (
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// explosive is a value whose own methods panic.
type explosive struct{ Fuse int }

func (e explosive) MarshalJSON() ([]byte, error) {
	if e.Fuse == 0 {
		panic("boom")
	}
	return []byte(`{}`), nil
}

func (e *explosive) UnmarshalJSON([]byte) error { panic("bang") }

// A panic in a value's own method is an error of its key, and not the program's end.
func TestAValueThatPanicsIsNamedByItsKey(t *testing.T) {
	s := openStore[string, explosive](t, newPath(t), Options{})
	_, err := commitOne(s, lockstep.Change[string, explosive]{Key: "k"})
	wantError(t, err, lockstep.ErrInvalid, "key k", "encode", "panicked", "boom")
	_, err = commitOne(s, lockstep.Change[string, explosive]{Key: "k", Value: explosive{1}})
	wantError(t, err, lockstep.ErrInvalid, "key k", "decode", "panicked", "bang")
	c, err := lockstep.New[string, explosive](s, lockstep.Options[string, explosive]{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(background)
	_, err = c.Set(t.Context(), "k", explosive{})
	wantError(t, err, lockstep.ErrInvalid, "key k", "boom")
	run(t, s.db.path, `INSERT INTO lockstep (key, value, version) VALUES ('l', '{}', 1)`)
	_, err = c.Get(t.Context(), "l")
	wantError(t, err, lockstep.ErrInvalid, "key l", "bang")
}

package kv

import (
	"fmt"
	"math"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// State is one key's row while a batch is being decided: first as it was read
// under the lock, then as each set in turn leaves it. It is written once, at the
// end, however many sets have changed it.
type State struct {
	Known   bool  // there is a row, be it a tombstone
	ID      int64 // the row's, where the store wants one
	Version int64
	Expires int64 // µs since 1970; 0: never
	Live    bool  // the row holds a value, which may be over
	Data    []byte
	Dirty   bool // it differs from what was read
}

// Exists tells whether there is a row at now, in µs.
func (st *State) Exists(now int64) bool {
	return st.Live && (st.Expires == 0 || st.Expires > now)
}

// Expiry sets what a Row says of its end, at a moment of the database's clock.
func (st *State) Expiry(at *time.Time, remaining *time.Duration, now time.Time) {
	if st.Expires != 0 {
		*at = time.UnixMicro(st.Expires)
		*remaining = at.Sub(now)
	}
}

// Decision is what the sets of a batch come to, decided in the order given. It
// does no I/O: a store reads the states, decides, and writes what is dirty.
//
// Deciding in Go, instead of in each statement's WHERE, is sound while nobody else
// can write the rows: between locking them and COMMIT. It makes a
// set that fails cost nothing (no savepoint: nothing was written yet), several
// sets on one key cost one row, and the rule for expectations one function.
type Decision[K comparable, V any] struct {
	States map[K]*State
	// Now is the database's clock, read when the rows were locked already.
	Now time.Time
	// Clock is what NextVersion takes.
	Clock int64
}

// Apply decides one set and changes the states if its conditions hold.
func (d *Decision[K, V]) Apply(set lockstep.ChangeSet[K, V]) lockstep.Outcome[V] {
	micros := d.Now.UnixMicro()
	if err := d.admits(set); err != nil {
		return lockstep.Outcome[V]{Err: err}
	}
	out := lockstep.Outcome[V]{
		Rows:    make([]lockstep.Row[V], len(set.Changes)),
		Existed: make([]bool, len(set.Changes)),
	}
	for i, c := range set.Changes {
		st := d.States[c.Key]
		out.Existed[i] = st.Exists(micros)
		if c.Delete && !st.Live {
			// Nothing to delete, nothing to write: the version stands for the
			// deletion that was made before, if there was one.
			out.Rows[i].Version = lockstep.Version(st.Version)
			continue
		}
		st.Version, _ = NextVersion(st.Version, d.Clock) // admits has seen to it
		st.Dirty = true
		st.Live, st.Expires, st.Data = !c.Delete, 0, nil
		r := &out.Rows[i]
		r.Version = lockstep.Version(st.Version)
		if c.Delete {
			continue
		}
		st.Data = c.Prepared.(*Prepared).Data
		st.Expires = ExpiresAt(c.ExpiresAt, c.Lifetime, d.Now)
		if r.Exists = st.Exists(micros); r.Exists {
			r.Value = c.Value
			st.Expiry(&r.ExpiresAt, &r.Remaining, d.Now)
		}
	}
	return out
}

// admits decides whether the set's checks and expectations hold, and whether its
// rows can have another version.
func (d *Decision[K, V]) admits(set lockstep.ChangeSet[K, V]) error {
	micros := d.Now.UnixMicro()
	for _, c := range set.Checks {
		st := d.States[c.Key]
		exists := st.Exists(micros)
		if exists == c.Absent || exists && lockstep.Version(st.Version) != c.Version {
			return conflict(c.Key, st, micros)
		}
	}
	for _, c := range set.Changes {
		st := d.States[c.Key]
		if !expected(c.Expect, st, micros) {
			return conflict(c.Key, st, micros)
		}
		if _, err := NextVersion(st.Version, d.Clock); err != nil {
			return invalid("key %v: %w", c.Key, err)
		}
	}
	return nil
}

func expected(e lockstep.Expect, st *State, micros int64) bool {
	switch e.Kind {
	case lockstep.ExpectAbsent:
		return !st.Exists(micros)
	case lockstep.ExpectVersion:
		return st.Exists(micros) && lockstep.Version(st.Version) == e.Version
	}
	return true
}

func conflict(key any, st *State, micros int64) error {
	return &lockstep.ConflictError{Key: key, Exists: st.Exists(micros), Version: lockstep.Version(st.Version)}
}

// ExpiresAt is the column's value for a change: µs since 1970, 0 for never. A
// part of a microsecond is lost.
func ExpiresAt(at time.Time, lifetime time.Duration, now time.Time) int64 {
	if lifetime > 0 {
		at = now.Add(lifetime)
	}
	if at.IsZero() {
		return 0
	}
	if us := at.UnixMicro(); us != 0 {
		return us
	}
	return -1 // the first moment of 1970, as far past as the one before it
}

// NextVersion is the version of a row's next change, by a clock in µs since 1970
// that is above the version of every row that was purged. After the last one there
// is none: it would have to be lower.
func NextVersion(version, clock int64) (int64, error) {
	if version == math.MaxInt64 || clock == math.MaxInt64 {
		return 0, fmt.Errorf("version %d is the last that an integer can hold", int64(math.MaxInt64))
	}
	return max(version+1, clock), nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", lockstep.ErrInvalid, fmt.Errorf(format, args...))
}

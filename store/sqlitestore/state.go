package sqlitestore

import (
	"database/sql/driver"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// state is one key's row while a batch is being decided: first as it was read
// under the write lock, then as each set in turn leaves it. It is written once,
// at the end, however many sets have changed it.
type state struct {
	known   bool  // there is a row, be it a tombstone
	rowid   int64 // its id
	version int64
	expires int64 // µs since 1970; 0: never
	live    bool  // the row holds a value, which may be over
	data    []byte
	dirty   bool
}

// stateOf reads the columns version, expires_at and deleted.
func stateOf(version, expires, deleted driver.Value) state {
	var st state
	st.version, _ = version.(int64)
	st.expires, _ = expires.(int64)
	st.live = deleted == int64(0)
	return st
}

// exists tells whether there is a row at now, in µs.
func (st *state) exists(now int64) bool {
	return st.live && (st.expires == 0 || st.expires > now)
}

func (st *state) expiry(at *time.Time, remaining *time.Duration, now time.Time) {
	if st.expires != 0 {
		*at = time.UnixMicro(st.expires)
		*remaining = at.Sub(now)
	}
}

// decision is what the sets of a batch come to, decided in the order given. It
// does no I/O: Commit reads the states, decides, and writes what is dirty.
//
// Deciding in Go, instead of in each statement's WHERE, is sound because it
// happens between BEGIN IMMEDIATE and COMMIT: nobody else can write. It makes a
// set that fails cost nothing (no savepoint: nothing was written yet), several
// sets on one key cost one row, and the rule for expectations one function.
type decision[K comparable, V any] struct {
	states map[K]*state
	now    time.Time
	clock  int64
}

// apply decides one set and changes the states if its conditions hold.
func (d *decision[K, V]) apply(set lockstep.ChangeSet[K, V]) lockstep.Outcome[V] {
	micros := d.now.UnixMicro()
	if err := d.admits(set); err != nil {
		return lockstep.Outcome[V]{Err: err}
	}
	out := lockstep.Outcome[V]{
		Rows:    make([]lockstep.Row[V], len(set.Changes)),
		Existed: make([]bool, len(set.Changes)),
	}
	for i, c := range set.Changes {
		st := d.states[c.Key]
		out.Existed[i] = st.exists(micros)
		if c.Delete && !st.live {
			// Nothing to delete, nothing to write: the version stands for the
			// deletion that was made before, if there was one.
			out.Rows[i].Version = lockstep.Version(st.version)
			continue
		}
		st.version, _ = nextVersion(st.version, d.clock) // admits has seen to it
		st.dirty = true
		st.live, st.expires, st.data = !c.Delete, 0, nil
		r := &out.Rows[i]
		r.Version = lockstep.Version(st.version)
		if c.Delete {
			continue
		}
		st.data = c.Prepared.(*prepared).data
		st.expires = expiresAt(c.ExpiresAt, c.Lifetime, d.now)
		if r.Exists = st.exists(micros); r.Exists {
			r.Value = c.Value
			st.expiry(&r.ExpiresAt, &r.Remaining, d.now)
		}
	}
	return out
}

// admits decides whether the set's checks and expectations hold, and whether its
// rows can have another version.
func (d *decision[K, V]) admits(set lockstep.ChangeSet[K, V]) error {
	micros := d.now.UnixMicro()
	for _, c := range set.Checks {
		st := d.states[c.Key]
		exists := st.exists(micros)
		if exists == c.Absent || exists && lockstep.Version(st.version) != c.Version {
			return conflict(c.Key, st, micros)
		}
	}
	for _, c := range set.Changes {
		st := d.states[c.Key]
		if !expected(c.Expect, st, micros) {
			return conflict(c.Key, st, micros)
		}
		if _, err := nextVersion(st.version, d.clock); err != nil {
			return invalid("key %v: %w", c.Key, err)
		}
	}
	return nil
}

func expected(e lockstep.Expect, st *state, micros int64) bool {
	switch e.Kind {
	case lockstep.ExpectAbsent:
		return !st.exists(micros)
	case lockstep.ExpectVersion:
		return st.exists(micros) && lockstep.Version(st.version) == e.Version
	}
	return true
}

func conflict(key any, st *state, micros int64) error {
	return &lockstep.ConflictError{Key: key, Exists: st.exists(micros), Version: lockstep.Version(st.version)}
}

// expiresAt is the column's value for a change: µs since 1970, 0 for never. A
// part of a microsecond is lost.
func expiresAt(at time.Time, lifetime time.Duration, now time.Time) int64 {
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

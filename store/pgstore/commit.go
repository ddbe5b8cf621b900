package pgstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// Commit implements lockstep.Store. One value is an UPDATE (lone.go), if its row is
// there; a batch of changes that expect nothing is one
// statement and one round trip (blind.go); every other batch is one transaction of
// two (together.go). A set that the server refuses, and one that has a row which
// somebody else holds locked, are found out and left out, in further round trips
// (divide.go).
func (s *Store[K, V]) Commit(ctx context.Context, sets []lockstep.ChangeSet[K, V]) ([]lockstep.Outcome[V], error) {
	if out, done, err := s.propose(ctx, sets); done || err != nil {
		return out, err
	}
	b := s.borrow(sets)
	if b.Idle() {
		if err := s.db.enter(); err != nil {
			return nil, err
		}
		s.db.leave()
		return b.Outcomes, nil
	}
	out, err := b.commit(ctx)
	if !errors.Is(err, lockstep.ErrUnknownOutcome) {
		b.giveBack()
	}
	return out, err
}

// batch is a call of Commit, or of Apply.
type batch[K comparable, V any] struct {
	kv.Batch[K, V]
	s     *Store[K, V]
	blind blindRoom
}

// borrow makes a batch of sets that are the caller's, until giveBack or Own.
func (s *Store[K, V]) borrow(sets []lockstep.ChangeSet[K, V]) *batch[K, V] {
	b, again := s.batches.Get().(*batch[K, V])
	if !again {
		b = &batch[K, V]{s: s}
	}
	b.Borrow(&s.rows, sets)
	b.refuse(sets)
	return b
}

// giveBack keeps the batch's room for another. Nothing but its Outcomes may be in use.
func (b *batch[K, V]) giveBack() {
	b.Forget()
	b.blind.forget()
	b.s.batches.Put(b)
}

// refuse leaves out the sets that cannot be stored. They are as the caller has given
// them: what is prepared there was looked at when it was.
func (b *batch[K, V]) refuse(sets []lockstep.ChangeSet[K, V]) {
	s, room := b.s, b.s.db.newRoom()
	for i, set := range sets {
		for j, c := range set.Changes {
			if _, ready := c.Prepared.(*kv.Prepared); !ready && b.Outcomes[i].Err == nil {
				b.Outcomes[i].Err = s.storable(b.Sets[i].Changes[j])
			}
		}
		if b.Outcomes[i].Err == nil {
			b.Outcomes[i].Err = room.take(b.bytesOf(i))
		}
	}
}

const (
	// briefly is how long a batch of several sets waits for a row that somebody else
	// holds locked. Batches of other processes are over in a few milliseconds.
	briefly = 100 * time.Millisecond
	// tries bounds how often a commit is made again because of others.
	tries = 100
)

// patience is the lock_timeout of a commit. One of one set may wait as long as its
// context lasts, less what the server's answer takes: a statement that is cut off by
// its context instead has an outcome that nobody knows.
func patience(ctx context.Context, brief bool) string {
	wait := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(max(time.Until(deadline)*9/10, time.Millisecond), longest)
	}
	if brief && (wait == 0 || wait > briefly) {
		wait = briefly
	}
	return strconv.FormatInt(wait.Milliseconds(), 10) + "ms"
}

// leavesLocked tells whether a commit of so many sets leaves those out of which somebody
// else holds a row locked, and waits for nobody but briefly.
func leavesLocked(ctx context.Context, sets int) bool { return sets > 1 || lockstep.Parting(ctx) }

// longest is as long as a setting of PostgreSQL can say, 24 days.
const longest = math.MaxInt32 * time.Millisecond

func (b *batch[K, V]) commit(ctx context.Context) ([]lockstep.Outcome[V], error) {
	divide := false
	for try := 1; ; try++ {
		a, err := b.s.db.attempt(ctx)
		if err != nil {
			return nil, err
		}
		var out []lockstep.Outcome[V]
		var f fate
		switch p, blind := b.plan(); {
		case divide:
			out, f, err = b.divided(ctx, a)
		case blind:
			out, f, err = b.blindly(ctx, a, p)
		default:
			out, f, err = b.together(ctx, a)
		}
		if err == nil {
			return out, nil
		}
		switch active := b.active(); {
		case f == fateUnknown:
			b.Own() // it is what Settle goes by
			return nil, err
		case try == tries || ctx.Err() != nil:
			return nil, notApplied(f, err)
		case f == fateAgain:
			if err := pauseFor(ctx, try); err != nil {
				return nil, err
			}
		case f == fateBlocked && leavesLocked(ctx, len(b.Sets)):
			some, lerr := b.leaveLocked(ctx, err)
			if lerr != nil {
				return nil, lerr
			}
			// Where nothing was found, the one who blocks is inserting a row of that key.
			divide = divide || !some
		case f == fateRefused && len(active) > 1:
			divide = true
		case f == fateRefused:
			b.Outcomes[active[0]].Err = notApplied(f, err)
		default:
			return nil, notApplied(f, err)
		}
		if b.Idle() {
			return b.Outcomes, nil
		}
	}
}

// active are the sets that are still to be tried.
func (b *batch[K, V]) active() (sets []int) {
	for i, o := range b.Outcomes {
		if o.Err == nil {
			sets = append(sets, i)
		}
	}
	return sets
}

func pauseFor(ctx context.Context, try int) error {
	timer := time.NewTimer(time.Duration(rand.Int64N(int64(min(try, 20)) * int64(time.Millisecond))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return gaveUp(ctx, "making the commit again")
	}
}

// leaveLocked leaves out the sets of which somebody else holds a row locked at the
// moment, and tells whether there are any. Looking takes the rows that are free, and
// lets them go at once.
func (b *batch[K, V]) leaveLocked(ctx context.Context, cause error) (some bool, err error) {
	s, err := b.s.db.session(ctx)
	if err != nil {
		return false, notApplied(fateGone, err)
	}
	active := b.active()
	locked := map[K]bool{}
	err = s.run(ctx, command{sql: b.s.sql.locked, args: []any{b.keys(b.named(active))}, row: func(scan func(...any) error) error {
		var key any
		if err := scan(&key); err != nil {
			return err
		}
		k, err := b.s.rows.Key.Decode(key)
		locked[k] = true
		return err
	}})
	if err != nil {
		b.s.db.drop(s)
		return false, notApplied(fateGone, err)
	}
	b.s.db.release(s)
	for _, i := range active {
		for _, k := range b.keysOf(i) {
			if locked[k] {
				b.Outcomes[i] = blocked[V](k, cause)
				some = true
				break
			}
		}
	}
	return some, nil
}

func blocked[V any](key any, cause error) lockstep.Outcome[V] {
	return lockstep.Outcome[V]{Err: unavailable("key %v: somebody else holds the row locked: %w", key, cause), Blocked: true}
}

// bytesOf is how much a set writes.
func (b *batch[K, V]) bytesOf(set int) (n int) {
	for _, c := range b.Sets[set].Changes {
		p := c.Prepared.(*kv.Prepared)
		n += len(p.Data) + encodedSize(p.Key)
	}
	return n
}

// keysOf are the keys that a set names, some of them perhaps twice.
func (b *batch[K, V]) keysOf(set int) (keys []K) {
	for _, c := range b.Sets[set].Changes {
		keys = append(keys, c.Key)
	}
	for _, c := range b.Sets[set].Checks {
		keys = append(keys, c.Key)
	}
	return keys
}

// named are the places in Keys of the keys that some sets name.
func (b *batch[K, V]) named(sets []int) []int {
	places := make([]int, 0, len(b.Keys))
	for _, i := range sets {
		for _, c := range b.Sets[i].Changes {
			places = append(places, b.Index(c.Key))
		}
		for _, c := range b.Sets[i].Checks {
			places = append(places, b.Index(c.Key))
		}
	}
	slices.Sort(places)
	return slices.Compact(places)
}

// keys makes an array of encoded keys, as the driver wants it.
func (b *batch[K, V]) keys(places []int) any {
	encoded := make([]any, len(places))
	for i, p := range places {
		encoded[i] = b.Encoded[p]
	}
	return keyArray(encoded)
}

func keyArray(encoded []any) any {
	if len(encoded) == 0 {
		return nil
	}
	switch encoded[0].(type) {
	case string:
		return arrayOf[string](encoded)
	case int64:
		return arrayOf[int64](encoded)
	case float64:
		return arrayOf[float64](encoded)
	default:
		return arrayOf[[]byte](encoded)
	}
}

func arrayOf[T any](encoded []any) []T {
	out := make([]T, len(encoded))
	for i, e := range encoded {
		out[i] = e.(T)
	}
	return out
}

// columns collects the values of several rows.
type columns struct {
	text  bool
	texts []*string
	bytes [][]byte
}

func (s *Store[K, V]) columns(n int) columns {
	if s.table.text {
		return columns{text: true, texts: make([]*string, 0, n)}
	}
	return columns{bytes: make([][]byte, 0, n)}
}

// add appends a value; without one the column is NULL.
func (c *columns) add(data []byte, there bool) {
	switch {
	case c.text && there:
		s := string(data)
		c.texts = append(c.texts, &s)
	case c.text:
		c.texts = append(c.texts, nil)
	case there && data == nil:
		c.bytes = append(c.bytes, []byte{})
	case there:
		c.bytes = append(c.bytes, data)
	default:
		c.bytes = append(c.bytes, nil)
	}
}

func (c *columns) array() any {
	if c.text {
		return c.texts
	}
	return c.bytes
}

// one is the only value.
func (c *columns) one() any {
	if c.text {
		return c.texts[0]
	}
	return c.bytes[0]
}

func nullable(us int64) *int64 {
	if us == 0 {
		return nil
	}
	return &us
}

// least is a version that every row gets at least that is written from now on:
// above what was purged, and above what the server's clock has said already. A row
// with a lower version has not been written since.
func (s *Store[K, V]) least() int64 {
	return 1 + min(max(s.db.seen.Load(), s.floor.Load()), math.MaxInt64-1)
}

// rowState reads the columns version, expires_at and deleted_at.
func rowState(version int64, expires, deleted *int64) kv.State {
	st := kv.State{Version: version, Live: deleted == nil}
	if expires != nil && st.Live {
		st.Expires = *expires
	}
	return st
}

func decodeError(err error) error { return fmt.Errorf("the table: %w", err) }

package lockstep

import (
	"errors"
	"time"

	"github.com/lockstep-cache/lockstep/internal/events"
)

// Hooks is a set of functions to be told of events; any of them may be nil. A
// write goes through these states:
//
//	Pending → Committed → Synchronized
//	        → Failed
//	        → Unknown → Settled
//	        → Rejected, in Mode WriteBehind
//
// Hit runs on the goroutine that reads, and Outside on the one that has noticed. The others run on one goroutine of their
// own, with no lock held, in the order in which things
// happened to each key. All may call the cache. A hook that is slow delays the
// ones behind it and never a write; when 65,536 events wait, further ones are
// dropped and counted in Stats.HooksDropped. A panic in a hook is logged. Close
// waits for the hooks, so none of them may call it.
//
// A write of several keys is reported once for each of them, and DeleteAll once,
// with All set.
type Hooks[K comparable] struct {
	// Pending: the write is about to be queued.
	Pending func(WriteEvent[K])
	// Committed: the database has committed it.
	Committed func(WriteEvent[K])
	// Synchronized: no read that starts now sees anything older.
	Synchronized func(WriteEvent[K])
	// Failed: it was not applied.
	Failed func(WriteEvent[K])
	// Conflict: it was not applied, because the row was not as expected. Failed
	// is called as well.
	Conflict func(WriteEvent[K])
	// Unknown: its caller was told that the outcome is unknown.
	Unknown func(WriteEvent[K])
	// Settled: an unknown outcome is known. Err is nil when the write was
	// applied, ErrUnknownOutcome when it cannot be told any more.
	Settled func(WriteEvent[K])

	// Rejected: the database has refused rows of a write that was acknowledged in Mode
	// WriteBehind. It is told instead of Committed and Synchronized, of the rows of a call
	// together, and of those of calls that were flushed together and share a key. Readers
	// do not see them any more.
	Rejected func(RejectedEvent[K])

	// Outside: rows may be others than before, and not because of a write of this cache: a
	// watch has told so, a condition did not hold, an audit has found it, or the store's server is
	// another one. It is for who has handed out copies that must not outlive memory's. It
	// runs on the goroutine that has noticed, when memory has forgotten the rows and before
	// anybody is answered because of it, so it must be quick, and must not call the
	// cache. None is dropped.
	Outside func(OutsideEvent[K])

	// Hit: memory answered; negative when it answered that there is no row.
	Hit func(key K, negative bool)
	// Miss: memory had no copy.
	Miss func(key K)
	// Stale: GetEntry was answered with a copy whose TTL is over, because the load failed
	// with err (Options.StaleIfError).
	Stale func(key K, err error)
	// Load: the database was asked for the keys.
	Load func(LoadEvent[K])
	// Evict: the key made room for others.
	Evict func(key K)
	// Expire: the copy's time, or the row's, was over. It is called when the copy
	// is removed, up to about two seconds later, or after Options.StaleIfError.
	Expire func(key K)
	// Ended: the row's lifetime was over. It is called with Expire, for rows that memory
	// had.
	Ended func(key K)
	// Difference: an audit has found a copy that was not what the table held, and
	// has dropped it.
	Difference func(key K)
}

// WriteEvent is one state of one write of one key.
type WriteEvent[K comparable] struct {
	Key    K
	All    bool // every key: DeleteAll
	Delete bool
	// Insert: the database gives the key. Key is the zero value in Pending, Failed and
	// Unknown, and in Settled where the row was not inserted or its key cannot be told.
	Insert bool
	// Version is the row's after the write; 0 before it is known.
	Version Version
	// Err is what the caller gets, for Failed, Conflict, Unknown and Settled.
	Err error
}

// RejectedEvent names rows of acknowledged writes that the database has refused, or of
// which nobody can tell whether it has them.
type RejectedEvent[K comparable] struct {
	Keys []K
	// Err is why: see Rejected.Err.
	Err error
}

// OutsideEvent names rows that may have changed.
type OutsideEvent[K comparable] struct {
	Keys []K
	All  bool // any row
	// Blind comes with All, where the store watches the table: from now on changes that
	// others make are not seen, until the next event with All.
	Blind bool
}

// LoadEvent is one call of Store.Load.
type LoadEvent[K comparable] struct {
	Keys     []K
	Duration time.Duration
	Err      error
}

// tellOutside reports that rows may be others than before.
func (c *Cache[K, V]) tellOutside(e OutsideEvent[K]) {
	if hook := c.options.Hooks.Outside; hook != nil {
		events.Protect(c.options.Logger, func() { hook(e) })
	}
}

// tellRefuted reports the rows that a set was wrong about.
func (c *Cache[K, V]) tellRefuted(set *ChangeSet[K, V]) {
	if c.options.Hooks.Outside == nil {
		return
	}
	var e OutsideEvent[K]
	for i := range set.Changes {
		if set.Changes[i].Expect.Kind != ExpectAnything {
			e.Keys = append(e.Keys, set.Changes[i].Key)
		}
	}
	for _, check := range set.Checks {
		e.Keys = append(e.Keys, check.Key)
	}
	c.tellOutside(e)
}

// tell reports one state of a write, key by key.
func (c *Cache[K, V]) tell(hook func(WriteEvent[K]), set *ChangeSet[K, V], rows []Row[V], err error) {
	if hook == nil {
		return
	}
	if set.DeleteAll {
		c.events.Push(func() { hook(WriteEvent[K]{All: true, Delete: true, Err: err}) })
		return
	}
	for i := range set.Changes {
		e := WriteEvent[K]{Key: set.Changes[i].Key, Delete: set.Changes[i].Delete, Insert: set.Changes[i].Insert, Err: err}
		if i < len(rows) {
			e.Version = rows[i].Version
		}
		c.events.Push(func() { hook(e) })
	}
}

// tellEnd reports the last state, or the last two, of a write.
func (c *Cache[K, V]) tellEnd(set *ChangeSet[K, V], rows []Row[V], err error, wasDoubted bool) {
	hooks := &c.options.Hooks
	switch {
	case wasDoubted:
		c.tell(hooks.Settled, set, rows, err)
	case err == nil:
		c.tell(hooks.Committed, set, rows, nil)
		c.tell(hooks.Synchronized, set, rows, nil)
	case errors.Is(err, ErrUnknownOutcome):
		c.tell(hooks.Unknown, set, nil, err)
	default:
		c.tell(hooks.Failed, set, nil, err)
		if errors.Is(err, ErrConflict) {
			c.tell(hooks.Conflict, set, nil, err)
		}
	}
}

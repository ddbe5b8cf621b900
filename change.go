package lockstep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/lockstep-cache/lockstep/internal/turn"
)

// Set writes the row and returns its committed version. With nil, the database
// has committed it and no read that starts afterwards sees anything older; the
// package's table of failures tells what each error means. It costs one commit,
// which it shares with the writes that are queued beside it.
//
// The options are IfVersion or IfAbsent, Lifetime or ExpiresAt, and TTL. Without an end,
// a row that had one stays from now on.
func (c *Cache[K, V]) Set(ctx context.Context, key K, value V, options ...WriteOption) (Version, error) {
	o, err := c.gather(options, ofSet)
	if err != nil {
		return 0, c.refuse(err)
	}
	w, err := c.single(ctx, Change[K, V]{Key: key, Value: value, Expect: o.expect, Lifetime: o.lifetime, ExpiresAt: o.expiresAt}, nil)
	if err != nil {
		return 0, c.refuse(err)
	}
	w.ttl = o.ttl
	return c.perform(ctx, w)
}

// Delete removes the row, and tells whether there was one. Deleting an absent row
// is no error. The option is IfVersion.
func (c *Cache[K, V]) Delete(ctx context.Context, key K, options ...WriteOption) (existed bool, err error) {
	o, err := c.gather(options, ofDelete)
	if err != nil {
		return false, c.refuse(err)
	}
	w, err := c.single(ctx, Change[K, V]{Key: key, Delete: true, Expect: o.expect}, nil)
	if err != nil {
		return false, c.refuse(err)
	}
	if _, err := c.perform(ctx, w); err != nil {
		return false, err
	}
	rows := w.outcome().Existed
	return len(rows) > 0 && rows[0], nil
}

// single is a write of one row.
func (c *Cache[K, V]) single(ctx context.Context, change Change[K, V], checks []Check[K]) (*write[K, V], error) {
	if err := c.admit(ctx, change.Key); err != nil {
		return nil, err
	}
	change, size, err := c.prepare(change)
	if err != nil {
		return nil, err
	}
	w := c.newWrite(ChangeSet[K, V]{Checks: checks})
	w.op.Bytes = size
	w.change[0] = change
	w.set.Changes = w.change[:]
	if change.Insert {
		w.insertion = &insertion{}
	} else {
		w.op.Keys = append(w.op.Keys, change.Key)
	}
	return w, nil
}

// SetMany writes all the rows in one transaction, which becomes visible at once:
// all of them or none. An empty map is no write.
func (c *Cache[K, V]) SetMany(ctx context.Context, values map[K]V) error {
	changes := make([]Change[K, V], 0, len(values))
	for key, value := range values {
		changes = append(changes, Change[K, V]{Key: key, Value: value})
	}
	return c.several(ctx, "SetMany", changes)
}

// DeleteMany removes the rows in one transaction. Keys without a row, and keys
// that are named twice, are no error.
func (c *Cache[K, V]) DeleteMany(ctx context.Context, keys []K) error {
	seen := make(map[K]struct{}, len(keys))
	changes := make([]Change[K, V], 0, len(keys))
	for _, key := range keys {
		if _, twice := seen[key]; !twice {
			seen[key] = struct{}{}
			changes = append(changes, Change[K, V]{Key: key, Delete: true})
		}
	}
	return c.several(ctx, "DeleteMany", changes)
}

func (c *Cache[K, V]) several(ctx context.Context, call string, changes []Change[K, V]) error {
	if err := cmp.Or(c.options.Mode.permitsWrite(call), c.admit(ctx)); err != nil {
		return c.refuse(err)
	}
	if len(changes) == 0 {
		return nil
	}
	if len(changes) > 1 && changes[0].Delete && !c.can.Atomic {
		return c.refuse(fmt.Errorf("%w: deleting several rows at once", ErrUnsupported))
	}
	bytes := 0
	for i := range changes {
		if err := c.admit(ctx, changes[i].Key); err != nil {
			return c.refuse(err)
		}
		change, size, err := c.prepare(changes[i])
		if err != nil {
			return c.refuse(err)
		}
		changes[i] = change
		bytes += size
	}
	w := c.newWrite(ChangeSet[K, V]{Changes: changes})
	w.op.Bytes = bytes
	_, err := c.perform(ctx, w)
	return err
}

// DeleteAll removes every row of the table, loaded or not, in one transaction.
// Writes that were queued before it come before it, and those queued after it
// after; they wait for it.
func (c *Cache[K, V]) DeleteAll(ctx context.Context) error {
	if err := cmp.Or(c.options.Mode.permitsWrite("DeleteAll"), c.admit(ctx)); err != nil {
		return c.refuse(err)
	}
	if !c.can.DeleteAll || c.can.ReadOnly {
		return c.refuse(fmt.Errorf("%w: DeleteAll", ErrUnsupported))
	}
	_, err := c.perform(ctx, c.newWrite(ChangeSet[K, V]{DeleteAll: true}))
	return err
}

// prepare refuses what can be refused before the database is asked, and makes
// the change independent of the caller's value. Size is the encoded value's, where the
// store encodes.
func (c *Cache[K, V]) prepare(change Change[K, V]) (prepared Change[K, V], size int, err error) {
	switch {
	case c.can.ReadOnly:
		return change, 0, fmt.Errorf("%w: the store is read-only", ErrUnsupported)
	case change.Expect.Kind != ExpectAnything && !c.can.Versions:
		return change, 0, fmt.Errorf("%w: IfVersion and IfAbsent need a store that keeps versions", ErrUnsupported)
	case (change.Lifetime != 0 || !change.ExpiresAt.IsZero()) && !c.can.Lifetimes:
		return change, 0, fmt.Errorf("%w: row lifetimes", ErrUnsupported)
	}
	if !change.Delete && c.options.Validate != nil {
		if err := c.validate(change); err != nil {
			return change, 0, err
		}
	}
	if c.can.Prepare == nil {
		if c.options.Clone != nil && !change.Delete {
			change.Value = c.options.Clone(change.Value)
		}
		return change, 0, nil
	}
	if prepared, size, err = c.can.Prepare(change); err != nil {
		return change, 0, err
	}
	if size > c.options.MaxValueBytes {
		return change, 0, fmt.Errorf("%w: the value of %s is %d bytes, and MaxValueBytes %d", ErrTooLarge, named(change), size, c.options.MaxValueBytes)
	}
	return prepared, size, nil
}

func (c *Cache[K, V]) validate(change Change[K, V]) error {
	err := c.options.Validate(change.Key, change.Value)
	switch {
	case err == nil, errors.Is(err, ErrInvalid):
		return err
	default:
		return fmt.Errorf("%w: %s: %w", ErrInvalid, named(change), err)
	}
}

// named is the change's row, for people.
func named[K comparable, V any](change Change[K, V]) string {
	if change.Insert {
		return "the new row"
	}
	return fmt.Sprintf("key %v", change.Key)
}

// refuse is a write that ends before it is queued.
func (c *Cache[K, V]) refuse(err error) error {
	c.counts.outcome(err, false)
	return notApplied(err)
}

// Update reads the row, calls f with it, and writes what f returns, if nobody
// else has changed the row meanwhile; otherwise it does so again. Updates of one
// key in one process take turns and so do not make each other try again.
//
// f gets a private copy and whether the row exists. It may be called several
// times. When it returns Keep, nothing is written and Update returns what f was
// given; any other error ends the update, and is returned as not applied. Either
// is an answer about the row, so one that f gave from memory's copy costs a load,
// and f is called again if somebody else has changed the row. f must not call
// Update or Transact for the same key. After a hundred calls that others were always
// faster than, Update gives up with a *ConflictError.
//
// The options are Lifetime or ExpiresAt, and TTL. Without them, a row that has an end
// keeps it: an update changes the value, where Set makes a new row of it.
func (c *Cache[K, V]) Update(ctx context.Context, key K, f func(old V, exists bool) (V, error), options ...WriteOption) (V, error) {
	var none V
	o, err := c.gather(options, ofUpdate)
	if err != nil {
		return none, c.refuse(err)
	}
	if !c.can.Checks || c.can.ReadOnly {
		return none, c.refuse(fmt.Errorf("%w: Update", ErrUnsupported))
	}
	if err := c.admit(ctx, key); err != nil {
		return none, c.refuse(err)
	}
	held, err := takeTurns(ctx, []uint64{c.turnOf(key)})
	if err != nil {
		return none, c.refuse(err)
	}
	defer turns.Give(held)
	for attempt := 1; ; attempt++ {
		value, err, collided := c.updateOnce(ctx, key, f, o)
		if !collided || attempt == maxAttempts || ctx.Err() != nil {
			return value, err
		}
		c.counts.reruns.Add(1)
		turn.Yield(ctx, attempt)
	}
}

// updateOnce also tells whether the write collided with another one. An error of
// f's that happens to be a conflict is not that.
func (c *Cache[K, V]) updateOnce(ctx context.Context, key K, f func(V, bool) (V, error), o writeOptions) (value V, err error, collided bool) {
	var none V
	e, loaded, err := c.readOwn(ctx, key)
	if err != nil {
		return none, c.refuse(err), false
	}
	old, err := c.copyOf(e)
	if err != nil {
		return none, c.refuse(err), false
	}
	value, err = f(old, e.Exists)
	if err != nil {
		// What f refuses, or keeps, leaves the call without a write that the database
		// would have checked it by.
		if !loaded {
			if err := c.confirm(ctx, key, e); err != nil {
				return none, c.refuse(err), conflicted(err)
			}
		}
		if errors.Is(err, Keep) {
			value, err = c.copyOf(e)
			return value, err, false
		}
		return none, notApplied(err), false
	}
	change := Change[K, V]{Key: key, Value: value, Lifetime: o.lifetime, ExpiresAt: o.expiresAt}
	if e.Exists && e.Lives != nil && o.expiresAt.IsZero() {
		change.ExpiresAt = e.Lives.ExpiresAt // Lifetime goes before it
	}
	var checks []Check[K]
	switch {
	case !c.can.Versions:
		checks = []Check[K]{checkOf(key, e)}
	case e.Exists:
		change.Expect = Expect{Kind: ExpectVersion, Version: Version(e.Version)}
	default:
		change.Expect = Expect{Kind: ExpectAbsent}
	}
	w, err := c.single(ctx, change, checks)
	if err != nil {
		return none, c.refuse(err), false
	}
	w.ttl = o.ttl
	// Before the commit: whatever cannot be copied is refused while nothing is
	// written yet.
	written, err := c.copier.private(w.set.Changes[0].Value)
	if err != nil {
		return none, c.refuse(err), false
	}
	if _, err := c.perform(ctx, w); err != nil {
		return none, err, conflicted(err)
	}
	if rows := w.outcome().Rows; len(rows) > 0 {
		if row, err := c.copier.private(rows[0].Value); err == nil {
			written = row
		}
	}
	return written, nil, false
}

// confirm loads a row that was read before, from memory perhaps, which may be
// behind what others have written. A row that has changed is a conflict. It costs
// less than a commit.
func (c *Cache[K, V]) confirm(ctx context.Context, key K, before *entry[K, V]) error {
	now, err := c.load(ctx, key, nil)
	if err != nil {
		return err
	}
	if !c.unchanged(before, now) {
		return &ConflictError{Key: key, Exists: now.Exists, Version: Version(now.Version)}
	}
	return nil
}

// unchanged tells whether a row that was read later is still the one that was read
// before.
func (c *Cache[K, V]) unchanged(before, now *entry[K, V]) bool {
	switch {
	case before.Exists != now.Exists, !now.Exists:
		return before.Exists == now.Exists
	case c.can.Versions:
		return before.Version == now.Version
	default:
		return reflect.DeepEqual(before.Value, now.Value)
	}
}

// checkOf says that the row must still be what was read.
func checkOf[K comparable, V any](key K, e *entry[K, V]) Check[K] {
	check := Check[K]{Key: key, Version: Version(e.Version), Absent: !e.Exists}
	if e.Exists {
		check.Value = e.Value
	}
	return check
}

// copyOf is a private copy of the entry's value.
func (c *Cache[K, V]) copyOf(e *entry[K, V]) (V, error) {
	if !e.Exists {
		var none V
		return none, c.copier.err
	}
	return c.copier.private(e.Value)
}

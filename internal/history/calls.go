package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// actions are those that the subject's tables can do, with their weights.
func (c *client) actions() (can []action) {
	t := c.subject.Tables[0]
	for _, a := range []struct {
		action
		can bool
	}{
		{action{"Get", 12, c.get}, t.Get != nil},
		{action{"GetEntry", 12, c.getEntry}, t.GetEntry != nil},
		{action{"GetMany", 5, c.getMany}, t.GetMany != nil},
		{action{"Exists", 3, c.exists}, t.Exists != nil},
		{action{"Peek", 5, c.peek}, t.Peek != nil},
		{action{"Scan", 2, c.scan}, t.Scan != nil},

		{action{"Set", 12, c.set}, t.Set != nil},
		{action{"Set, to lapse", 4, c.setFor}, t.SetFor != nil && c.Lifetime > 0},
		{action{"Set if", 9, c.setIf}, t.SetIf != nil},
		{action{"Delete", 5, c.delete}, t.Delete != nil},
		{action{"Delete if", 3, c.deleteIf}, t.DeleteIf != nil},
		{action{"SetMany", 5, c.setMany}, t.SetMany != nil},
		{action{"DeleteMany", 2, c.deleteMany}, t.DeleteMany != nil},
		{action{"DeleteAll", 1, c.deleteAll}, t.DeleteAll != nil},
		{action{"Update", 8, c.update}, t.Update != nil},
		{action{"Transact", 9, c.transact}, c.subject.Transact != nil},

		{action{"Invalidate", 3, c.invalidate}, t.Invalidate != nil},
		{action{"InvalidateAll", 1, c.invalidateAll}, t.InvalidateAll != nil},
		{action{"Refresh", 3, c.refresh}, t.Refresh != nil},
		{action{"Warm", 1, c.warm}, t.Warm != nil},
		{action{"Audit", 1, c.audit}, t.Audit != nil},
	} {
		if a.can {
			can = append(can, a.action)
		}
	}
	return can
}

// saw records a read of one row, unless err says that nothing was read.
func (c *client) saw(op Op, at cell, found Row, err error) {
	found.Key = at.String()
	switch {
	case errors.Is(err, lockstep.ErrNotFound):
		found.Exists = false
	case err != nil:
		c.counts[failedReads]++
		return
	}
	op.Reads = []Row{found}
	c.log.Return(op)
}

func there(value int64, version lockstep.Version) Row {
	return Row{Exists: true, Value: value, Version: int64(version)}
}

func (c *client) get(ctx context.Context, name string, table int) {
	at := c.cell(table)
	op := c.log.Call(name)
	value, err := c.subject.Tables[table].Get(ctx, at.key)
	c.saw(op, at, there(value, 0), err)
}

func (c *client) getEntry(ctx context.Context, name string, table int) {
	c.getEntryOf(ctx, name, c.cell(table))
}

func (c *client) getEntryOf(ctx context.Context, name string, at cell) {
	op := c.log.Call(name)
	e, err := c.subject.Tables[at.table].GetEntry(ctx, at.key)
	c.saw(op, at, there(e.Value, e.Version), err)
	if err == nil {
		c.version[at] = int64(e.Version)
	}
}

// getMany reads each key at a moment of its own.
func (c *client) getMany(ctx context.Context, name string, table int) {
	keys := c.cells(table)
	op := c.log.Call(name)
	values, err := c.subject.Tables[table].GetMany(ctx, keys)
	for _, key := range keys {
		value, ok := values[key]
		switch {
		case ok:
			c.saw(op, cell{table, key}, there(value, 0), nil)
		case err == nil:
			c.saw(op, cell{table, key}, Row{}, nil)
		default:
			c.counts[failedReads]++
		}
	}
}

func (c *client) exists(ctx context.Context, name string, table int) {
	at := c.cell(table)
	op := c.log.Call(name)
	ok, err := c.subject.Tables[table].Exists(ctx, at.key)
	c.saw(op, at, Row{Exists: ok}, err)
}

// peek tells nothing when memory has no copy.
func (c *client) peek(_ context.Context, name string, table int) {
	at := c.cell(table)
	op := c.log.Call(name)
	if value, ok := c.subject.Tables[table].Peek(at.key); ok {
		c.saw(op, at, there(value, 0), nil)
	}
}

// scan reads each row at a moment of its own; what it does not yield was absent
// at one. That is not recorded where others write the table: a scan drops older
// copies of the rows that it reports, and cannot know of which it reports none.
func (c *client) scan(ctx context.Context, name string, table int) {
	op := c.log.Call(name)
	found := make(map[int]bool)
	err := c.subject.Tables[table].Scan(ctx, func(e lockstep.Entry[int, int64]) {
		at := cell{table, e.Key}
		found[e.Key] = true
		c.version[at] = int64(e.Version)
		c.saw(op, at, there(e.Value, e.Version), nil)
		c.lookAgain(ctx, at)
		c.pause()
	})
	for key := range c.Keys {
		if !found[key] && !c.Elsewhere {
			c.saw(op, cell{table, key}, Row{}, err)
		}
	}
}

// lookAgain reads a row of which the client was just told what the database holds, where
// others write the table: memory must not answer with less.
func (c *client) lookAgain(ctx context.Context, at cell) {
	if get := c.subject.Tables[at.table].Get; c.Elsewhere && get != nil && c.chance(2) {
		op := c.log.Call("Get")
		value, err := get(ctx, at.key)
		c.saw(op, at, there(value, 0), err)
	}
}

// wrote records a write whose Reads and Writes are set.
func (c *client) wrote(ctx context.Context, op Op, err error) *Op {
	switch {
	case err == nil:
		op.Fate = Applied
	case errors.Is(err, lockstep.ErrUnknownOutcome):
		op.Fate, op.Doubted = Unknown, true
		c.counts[doubts]++
		c.left(ctx, LeftLate)
	default:
		op.Fate = NotApplied
		c.counts[notApplied]++
		c.left(ctx, LeftEarly)
	}
	recorded := c.log.Return(op)
	if op.Fate == Unknown {
		c.doubted = append(c.doubted, recorded)
		c.settlements.Go(func() { c.settle(context.WithoutCancel(ctx), recorded, err) })
	}
	return recorded
}

func (c *client) left(ctx context.Context, what string) {
	if ctx.Err() != nil {
		c.counts[what]++
	}
}

// settle waits until it is known what became of the operation.
func (c *client) settle(ctx context.Context, op *Op, unknown error) {
	op.Return = Forever
	// A *lockstep.WriteError, or what stands for one of another process.
	var w interface {
		error
		Wait(context.Context) (applied bool, version lockstep.Version, err error)
	}
	if !errors.As(unknown, &w) {
		return
	}
	applied, version, err := w.Wait(ctx)
	fate := Unknown
	switch {
	case err != nil && ctx.Err() != nil:
		return
	case err == nil && applied:
		fate = Applied
		if len(op.Writes) == 1 {
			op.Writes[0].Version = int64(version)
		}
	case err == nil:
		fate = NotApplied
	}
	c.log.Settle(op, fate)
}

func (c *client) set(ctx context.Context, name string, table int) {
	at := c.cell(table)
	op := c.log.Call(name)
	value := c.value()
	op.Writes = []Row{{Key: at.String(), Exists: true, Value: value}}
	c.log.Intend(op)
	version, err := c.subject.Tables[table].Set(ctx, at.key, value)
	op.Writes[0].Version = int64(version)
	c.wrote(ctx, op, err)
	if err == nil {
		c.version[at] = int64(version)
	}
}

// setFor also records the end of the row: after its lifetime, counted from the
// moment of the write, the row is absent if it is still what was written.
func (c *client) setFor(ctx context.Context, name string, table int) {
	at := c.cell(table)
	lifetime := time.Microsecond + time.Duration(c.random.Int64N(int64(c.Lifetime)))
	op := c.log.Call(name)
	op.Lifetime = lifetime
	value := c.value()
	op.Writes = []Row{{Key: at.String(), Exists: true, Value: value}}
	c.log.Intend(op)
	version, err := c.subject.Tables[table].SetFor(ctx, at.key, value, lifetime)
	op.Writes[0].Version = int64(version)
	c.wrote(ctx, op, err)
}

// condition is what a conditional write expects: no row, or the version that the
// client has last been told of, which may be an old one.
func (c *client) condition(at cell) (expect lockstep.Expect, row Row) {
	row.Key = at.String()
	if row.Version = c.version[at]; row.Version == 0 || c.chance(3) {
		row.Version = 0
		return lockstep.Expect{Kind: lockstep.ExpectAbsent}, row
	}
	row.Exists = true
	return lockstep.Expect{Kind: lockstep.ExpectVersion, Version: lockstep.Version(row.Version)}, row
}

func (c *client) setIf(ctx context.Context, name string, table int) {
	at := c.cell(table)
	if c.subject.Tables[table].GetEntry != nil && c.chance(2) {
		c.getEntryOf(ctx, "GetEntry", at)
	}
	expect, expected := c.condition(at)
	op := c.log.Call(name)
	value := c.value()
	op.Reads = []Row{expected}
	op.Writes = []Row{{Key: at.String(), Exists: true, Value: value}}
	c.log.Intend(op)
	version, err := c.subject.Tables[table].SetIf(ctx, at.key, value, expect)
	op.Writes[0].Version = int64(version)
	c.wrote(ctx, op, err)
	c.conflicted(ctx, op, at, err)
	if err == nil {
		c.version[at] = int64(version)
	}
}

// conflicted records what a conditional write found that was refused: at a
// moment of the call the row was as found, and not as expected.
func (c *client) conflicted(ctx context.Context, op Op, at cell, err error) {
	var conflict *lockstep.ConflictError
	if !errors.As(err, &conflict) {
		return
	}
	c.counts[conflicts]++
	expected := op.Reads[0]
	found := Row{Key: expected.Key, Exists: conflict.Exists, Version: int64(conflict.Version)}
	if found.Exists == expected.Exists && found.Version == expected.Version {
		op.Broken = "a conflict with what was expected"
	}
	op.Name += ", conflict"
	op.Reads, op.Writes = []Row{found}, nil
	c.log.Return(op)
	c.lookAgain(ctx, at)
}

func (c *client) delete(ctx context.Context, name string, table int) {
	at := c.cell(table)
	op := c.log.Call(name)
	op.Writes = []Row{{Key: at.String()}}
	c.log.Intend(op)
	existed, err := c.subject.Tables[table].Delete(ctx, at.key)
	if err == nil {
		op.Reads = []Row{{Key: at.String(), Exists: existed}}
	}
	c.wrote(ctx, op, err)
}

func (c *client) deleteIf(ctx context.Context, name string, table int) {
	at := c.cell(table)
	version := c.version[at]
	if version == 0 {
		c.delete(ctx, name, table)
		return
	}
	op := c.log.Call(name)
	op.Reads = []Row{{Key: at.String(), Exists: true, Version: version}}
	op.Writes = []Row{{Key: at.String()}}
	c.log.Intend(op)
	existed, err := c.subject.Tables[table].DeleteIf(ctx, at.key, lockstep.Version(version))
	if err == nil && !existed {
		op.Broken = "deleted a version of a row that was not there"
	}
	c.wrote(ctx, op, err)
	c.conflicted(ctx, op, at, err)
}

func (c *client) setMany(ctx context.Context, name string, table int) {
	values := make(map[int]int64)
	op := c.log.Call(name)
	for _, key := range c.cells(table) {
		values[key] = c.value()
		op.Writes = append(op.Writes, Row{Key: cell{table, key}.String(), Exists: true, Value: values[key]})
	}
	c.log.Intend(op)
	c.wrote(ctx, op, c.subject.Tables[table].SetMany(ctx, values))
}

func (c *client) deleteMany(ctx context.Context, name string, table int) {
	keys := c.cells(table)
	op := c.log.Call(name)
	for _, key := range keys {
		op.Writes = append(op.Writes, Row{Key: cell{table, key}.String()})
	}
	c.log.Intend(op)
	c.wrote(ctx, op, c.subject.Tables[table].DeleteMany(ctx, append(keys, keys[0])))
}

func (c *client) deleteAll(ctx context.Context, name string, table int) {
	op := c.log.Call(name)
	for key := range c.Keys {
		op.Writes = append(op.Writes, Row{Key: cell{table, key}.String()})
	}
	c.log.Intend(op)
	c.wrote(ctx, op, c.subject.Tables[table].DeleteAll(ctx))
}

var errStop = errors.New("history: the function gives up")

// update records what its function is given as reads, and the update itself from
// the last call of its function on.
func (c *client) update(ctx context.Context, name string, table int) {
	at := c.cell(table)
	plan := c.random.IntN(8)
	var old Row
	op := c.log.Call(name)
	op.Inherits = true
	began := op.Call
	value, err := c.subject.Tables[table].Update(ctx, at.key, func(value int64, exists bool) (int64, error) {
		c.again(op)
		old = there(value, 0)
		old.Exists = exists
		if !c.Elsewhere {
			read := c.log.Call(name + "'s read")
			read.Call = began
			c.saw(read, at, old, nil)
		}
		c.pause()
		op.Call, op.Writes = c.log.clock.now(), nil
		began = op.Call
		switch plan {
		case 0:
			return 0, lockstep.Keep
		case 1:
			return 0, errStop
		}
		op.Reads = []Row{{Key: at.String(), Exists: exists, Value: value}}
		op.Writes = []Row{{Key: at.String(), Exists: true, Value: c.value()}}
		c.log.Intend(op)
		return op.Writes[0].Value, nil
	})
	switch {
	case len(op.Writes) > 0:
		if err == nil && value != op.Writes[0].Value {
			op.Broken = fmt.Sprintf("returned %d", value)
		}
		c.wrote(ctx, op, err)
	case err == nil && (plan != 0 || value != old.Value):
		op.Broken = fmt.Sprintf("was to keep %d and returned %d", old.Value, value)
		c.log.Return(op)
	}
}

// RunAgain ends the name of what a function did that was then run again.
const RunAgain = ", to be run again"

// again records, when a function is run again, that what it wrote the last time
// was not applied.
func (c *client) again(op Op) {
	if len(op.Writes) == 0 {
		return
	}
	c.counts[reruns]++
	op.Name += RunAgain
	op.Fate = NotApplied
	c.log.Return(op)
}

// transact reads some rows and writes some, in one table or in several. What it
// reads is recorded row by row, and as one operation when Transact says that it
// was true at one moment.
func (c *client) transact(ctx context.Context, name string, table int) {
	reads, writes := c.plan(table), c.plan(table)
	if c.chance(4) {
		writes = nil
	}
	gives := c.chance(5)
	op := c.log.Call(name)
	err := c.subject.Transact(ctx, func(ctx context.Context, in func(int) InTx) error {
		c.again(op)
		op.Call, op.Reads, op.Writes = c.log.clock.now(), nil, nil
		for _, at := range reads {
			read := c.log.Call(name + "'s read")
			value, err := in(at.table).Get(ctx, at.key)
			if !c.Elsewhere {
				c.saw(read, at, there(value, 0), err)
			}
			if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
				return err
			}
			op.Reads = append(op.Reads, Row{Key: at.String(), Exists: err == nil, Value: value})
			c.pause()
		}
		for _, at := range writes {
			w := Row{Key: at.String(), Exists: !c.chance(4)}
			var err error
			if w.Exists {
				w.Value = c.value()
				err = in(at.table).Set(ctx, at.key, w.Value)
			} else {
				err = in(at.table).Delete(ctx, at.key)
			}
			if err != nil {
				return err
			}
			op.Writes = append(op.Writes, w)
		}
		if gives {
			return errStop
		}
		if len(op.Writes) > 0 {
			c.log.Intend(op)
		}
		return nil
	})
	if errors.Is(err, errStop) && !errors.Is(err, lockstep.ErrUnknownOutcome) {
		// What it had written is not applied, and what it had read was so.
		c.wrote(ctx, Op{Client: op.Client, Name: name + " that gave up", Call: op.Call, Writes: op.Writes}, err)
		op.Name += " that gave up, what it read"
		op.Writes = nil
		err = nil
	}
	if len(op.Reads)+len(op.Writes) > 0 {
		c.wrote(ctx, op, err)
	}
}

// plan is some keys, mostly of one table.
func (c *client) plan(table int) (cells []cell) {
	for other := range c.subject.Tables {
		if other != table && !c.chance(3) {
			continue
		}
		for _, key := range c.cells(other) {
			cells = append(cells, cell{other, key})
		}
	}
	return cells
}

func (c *client) invalidate(_ context.Context, _ string, table int) {
	c.subject.Tables[table].Invalidate(c.random.IntN(c.Keys))
}

func (c *client) invalidateAll(_ context.Context, _ string, table int) {
	c.subject.Tables[table].InvalidateAll()
}

// refresh tells nothing. That what it loaded is not older than what others knew
// shows in the reads that come after it.
func (c *client) refresh(ctx context.Context, _ string, table int) {
	c.failed(c.subject.Tables[table].Refresh(ctx, c.random.IntN(c.Keys)))
}

func (c *client) warm(ctx context.Context, _ string, table int) {
	c.failed(c.subject.Tables[table].Warm(ctx))
}

func (c *client) failed(err error) {
	if err != nil {
		c.counts[failedReads]++
	}
}

// audit finds no difference where nobody writes past the cache.
func (c *client) audit(ctx context.Context, name string, table int) {
	op := c.log.Call(name)
	differences, err := c.subject.Tables[table].Audit(ctx)
	c.failed(err)
	for _, d := range differences {
		op.Broken = d
		c.log.Return(op)
	}
}

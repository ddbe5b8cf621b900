package lockstep

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"reflect"
	"time"
)

// AuditReport is what Audit found.
type AuditReport[K comparable, V any] struct {
	// Entries is the number of copies that were compared with their rows.
	Entries int
	// InMotion were not compared: a write, a load or an eviction came between.
	InMotion int
	// Differences are copies that were not what the table held. Each of them has
	// been dropped.
	Differences []Difference[K, V]
}

// Difference is a copy in memory that was not what the table held.
type Difference[K comparable, V any] struct {
	Key K
	// Cached and Stored are what memory and the table said.
	Cached, Stored Row[V]
}

func (d Difference[K, V]) String() string {
	say := func(r Row[V]) string {
		if !r.Exists {
			return "no row"
		}
		return fmt.Sprintf("version %d (%v)", r.Version, r.Value)
	}
	return fmt.Sprintf("key %v: memory has %s, the table has %s", d.Key, say(d.Cached), say(d.Stored))
}

const auditChunk = 256

// Audit compares every copy in memory with its row, and drops those that are
// wrong. A copy whose key is being written meanwhile is not compared. In a cache
// that is the only writer of its table the report has no differences; elsewhere
// it shows what others have changed and no reader has noticed yet.
//
// It loads the whole of memory from the store, 256 keys at a time.
func (c *Cache[K, V]) Audit(ctx context.Context) (AuditReport[K, V], error) {
	var report AuditReport[K, V]
	if err := cmp.Or(c.options.Mode.permitsTable("Audit"), c.admit(ctx)); err != nil {
		return report, err
	}
	if err := c.drain(ctx); err != nil {
		return report, err
	}
	chunk := make(map[K]*entry[K, V], auditChunk)
	for key, e := range c.memory.All() {
		if !c.fresh(e) {
			continue // it answers for nothing
		}
		if chunk[key] = e; len(chunk) == auditChunk {
			if err := c.auditChunk(ctx, chunk, &report); err != nil {
				return report, err
			}
			clear(chunk)
		}
	}
	return report, c.auditChunk(ctx, chunk, &report)
}

// auditInTurn is the audit that Options.AuditInterval asks for.
func (c *Cache[K, V]) auditInTurn() {
	defer c.tasks.end()
	ticker := time.NewTicker(c.options.AuditInterval)
	defer ticker.Stop()
	next, stop := iter.Pull2(c.memory.All())
	defer func() { stop() }()
	for {
		select {
		case <-ticker.C:
		case <-c.closing.Done():
			return
		}
		chunk := make(map[K]*entry[K, V], auditChunk)
		for len(chunk) < auditChunk {
			key, _, ok := next()
			if !ok {
				stop()
				next, stop = iter.Pull2(c.memory.All())
				break
			}
			// The one that All yields is as old as its turn.
			if e, ok := c.memory.Get(key); ok && c.fresh(e) {
				chunk[key] = e
			}
		}
		var report AuditReport[K, V]
		if err := c.auditChunk(c.life, chunk, &report); err != nil {
			continue // it is counted as a load that has failed; the others' turn comes all the same
		}
		for _, d := range report.Differences {
			c.options.Logger.Warn("lockstep: a copy in memory was not what the table holds, and is dropped", "key", d.Key,
				"cached", d.Cached.Version, "stored", d.Stored.Version)
		}
	}
}

func (c *Cache[K, V]) auditChunk(ctx context.Context, chunk map[K]*entry[K, V], report *AuditReport[K, V]) error {
	if len(chunk) == 0 {
		return nil
	}
	keys := make([]K, 0, len(chunk))
	for key := range chunk {
		keys = append(keys, key)
	}
	rows, err := c.loadRows(ctx, keys, nil)
	if err != nil {
		return err
	}
	for key, e := range chunk {
		row := rows[key]
		compared, wrong := false, false
		idle := c.gate.IfIdle(key, func() {
			// The very copy that was there before the load, and nothing under way now:
			// whatever was under way between would have replaced or removed it.
			now, ok := c.memory.Get(key)
			if !ok || now != e || !c.fresh(e) {
				return
			}
			compared = true
			if wrong = !c.same(e, row); wrong {
				c.memory.Delete(key)
			}
		})
		switch {
		case !idle:
			// A commit under way may have been seen, and the report will not tell.
			// Its readers must not learn less than the auditor did.
			c.gate.Observe(key, func(e *entry[K, V]) bool { return c.atLeast(e, row) })
			report.InMotion++
		case !compared:
			report.InMotion++
		default:
			report.Entries++
			c.counts.audited.Add(1)
		}
		if wrong {
			c.counts.differences.Add(1)
			c.tellOutside(OutsideEvent[K]{Keys: []K{key}})
			if hook := c.options.Hooks.Difference; hook != nil {
				c.events.Push(func() { hook(key) })
			}
			report.Differences = append(report.Differences, Difference[K, V]{
				Key:    key,
				Cached: Row[V]{Value: e.Value, Version: Version(e.Version), Exists: e.Exists},
				Stored: row,
			})
		}
	}
	return nil
}

// same tells whether the copy is what the row is. The version of an absent row
// is its tombstone's, which a store may forget. Of a value that does not equal its
// own copy, for there is a NaN in it, the version alone can tell.
func (c *Cache[K, V]) same(e *entry[K, V], row Row[V]) bool {
	if e.Exists != row.Exists || !e.Exists {
		return e.Exists == row.Exists
	}
	if Version(e.Version) != row.Version {
		return false
	}
	if c.options.Clone != nil {
		row.Value = c.options.Clone(row.Value)
	}
	if reflect.DeepEqual(e.Value, row.Value) {
		return true
	}
	twin, err := c.copier.private(e.Value)
	return err == nil && !reflect.DeepEqual(e.Value, twin)
}

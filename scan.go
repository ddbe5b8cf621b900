package lockstep

import (
	"context"
	"fmt"
	"iter"
	"reflect"
)

const scanPage = 512

// Scan yields the rows of the table, loaded or not, in an order of the store's
// own. It reads page by page, so the rows are not of one moment; each of them is
// at least as new as any write acknowledged before Scan was called. Memory does
// not grow by it; older copies of the rows that it yields leave memory, and one of a
// row that another program has deleted may stay as long as it would have without.
// An error ends the sequence.
func (c *Cache[K, V]) Scan(ctx context.Context) iter.Seq2[Entry[K, V], error] {
	return func(yield func(Entry[K, V], error) bool) {
		err := c.pages(ctx, func(page Page[K, V]) bool {
			now := c.clock.Time(c.clock.Precise())
			for i, key := range page.Keys {
				row := page.Rows[i]
				e := Entry[K, V]{Key: key, Value: row.Value, Version: row.Version, CreatedAt: now, AccessedAt: now, ExpiresAt: row.ExpiresAt}
				if !yield(e, nil) {
					return false
				}
			}
			return true
		})
		if err != nil {
			yield(Entry[K, V]{}, err)
		}
	}
}

// pages reads the table until f returns false. Before f sees a page, memory has
// nothing older than what the page tells: neither than its rows, nor than the
// absence of those that a commit under way has deleted.
func (c *Cache[K, V]) pages(ctx context.Context, f func(Page[K, V]) bool) error {
	var cursor any
	for {
		page, err := c.pageOf(ctx, "Scan", cursor, scanPage)
		if err != nil {
			return err
		}
		if !f(page) || page.Next == nil {
			return nil
		}
		cursor = page.Next
	}
}

// ScanPage is a step of Scan, for who has to answer between two of them: at most limit
// rows of the table, from its start where cursor is nil, and else from where the page
// ended whose Next it is. A cursor may be used again, and by anybody; it costs nothing
// to forget one. A page may have fewer rows, or none, and yet a Next.
func (c *Cache[K, V]) ScanPage(ctx context.Context, cursor any, limit int) (Page[K, V], error) {
	return c.pageOf(ctx, "ScanPage", cursor, limit)
}

func (c *Cache[K, V]) pageOf(ctx context.Context, call string, cursor any, limit int) (Page[K, V], error) {
	if err := c.options.Mode.permitsTable(call); err != nil {
		return Page[K, V]{}, err
	}
	switch {
	case c.can.Scan == nil:
		return Page[K, V]{}, fmt.Errorf("%w: Scan", ErrUnsupported)
	case limit < 1:
		return Page[K, V]{}, fmt.Errorf("%w: a page of %d rows", ErrInvalid, limit)
	}
	if err := c.admit(ctx); err != nil {
		return Page[K, V]{}, err
	}
	if err := c.drain(ctx); err != nil {
		return Page[K, V]{}, err
	}
	page, err := c.scanPage(ctx, cursor, min(limit, scanPage))
	if err != nil {
		return Page[K, V]{}, err
	}
	c.gate.ObserveBusy()
	for i, key := range page.Keys {
		row := page.Rows[i]
		c.gate.Observe(key, func(e *entry[K, V]) bool { return c.atLeast(e, row) })
	}
	return page, nil
}

func (c *Cache[K, V]) scanPage(ctx context.Context, cursor any, limit int) (page Page[K, V], err error) {
	err = guarded("Scan", nil, func() (err error) {
		page, err = c.can.Scan(ctx, cursor, limit)
		return err
	})
	if err == nil && len(page.Keys) != len(page.Rows) {
		err = fmt.Errorf("lockstep: the store's page has %d keys and %d rows", len(page.Keys), len(page.Rows))
	}
	return page, err
}

// atLeast tells whether memory's copy is at least as new as the row that was
// read. Without versions only an equal one is known to be.
func (c *Cache[K, V]) atLeast(e *entry[K, V], row Row[V]) bool {
	if c.can.Versions && (e.Exists || c.can.Tombstones) {
		return Version(e.Version) >= row.Version
	}
	return e.Exists == row.Exists && Version(e.Version) == row.Version && (!row.Exists || reflect.DeepEqual(e.Value, row.Value))
}

// noOlder tells whether an entry is known to be at least as new as another one of its
// key. An absence has a version where the store keeps tombstones, and then 0 is that of a
// row which never was.
func (c *Cache[K, V]) noOlder(a, b *entry[K, V]) bool {
	if c.can.Versions && (c.can.Tombstones || a.Exists && b.Exists) {
		return a.Version >= b.Version
	}
	return !a.Exists && !b.Exists
}

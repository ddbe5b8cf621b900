package lockstep

import (
	"context"
	"fmt"
)

// WarmOptions bounds a Warm.
type WarmOptions struct {
	// Limit is the number of rows to load. Zero means as many as fit: MaxEntries,
	// or until MaxBytes is reached.
	Limit int
	// Progress, when set, is told after each page how many rows were loaded, or found in
	// memory.
	Progress func(rows int)
}

// warmPage is the number of rows of the first page where memory is bounded by bytes: how
// many fit is not known before some were weighed.
const warmPage = 16

// Warm fills memory from the table and returns the number of rows it loaded or
// found there. It reads the keys by a scan and the rows by loads, which readers
// may share, and which writes defeat as they do any load. Rows come in the
// store's order: when the table is larger than memory, which of them are kept is
// the store's and the eviction's choice. It reads up to 512 rows at a time, and where memory
// is bounded by bytes no more than about fit. Of a table that is watched it waits
// for the watch to have begun, for before that memory keeps nothing. An error
// ends it, and what it has loaded stays.
func (c *Cache[K, V]) Warm(ctx context.Context, options WarmOptions) (n int, err error) {
	if options.Limit < 0 {
		return 0, fmt.Errorf("%w option: Limit is negative", ErrInvalid)
	}
	limit := options.Limit
	if limit == 0 {
		limit = c.options.MaxEntries
	}
	size, weight, weigh := scanPage, uint64(0), c.memoryConfig().Weigh
	if weigh != nil {
		size = warmPage
	}
	var cursor any
	for {
		if limit > 0 {
			size = min(size, limit-n)
		}
		page, err := c.pageOf(ctx, "Warm", cursor, size)
		if err == nil {
			err = c.awaitWatch(ctx)
		}
		if err != nil {
			return n, err
		}
		entries, err := c.readMany(ctx, page.Keys)
		for _, e := range entries {
			if !e.Exists {
				continue // deleted since the scan
			}
			n++
			if weigh != nil {
				weight += uint64(weigh(e))
			}
		}
		if options.Progress != nil {
			options.Progress(n)
		}
		most := uint64(c.options.MaxBytes)
		switch {
		case err != nil:
			return n, err
		case page.Next == nil, limit > 0 && n >= limit, weigh != nil && weight >= most:
			return n, nil
		case weight > 0:
			size = int(max(1, min(scanPage, float64(most-weight)/float64(weight)*float64(n))))
		}
		cursor = page.Next
	}
}

package demo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/text"
)

// Comparison is what memory and the database say of one table.
type Comparison struct {
	Table string `json:"table"`
	// Rows are in the table, Scanned were yielded by Scan, and InMemory are the
	// rows that memory has too. Audited are the copies that the cache has compared
	// by itself, remembered absences included.
	Rows     int `json:"rows"`
	Scanned  int `json:"scanned"`
	InMemory int `json:"in_memory"`
	Audited  int `json:"audited"`
	// Differences has a sentence for each row that was not the same everywhere.
	Differences []string `json:"differences"`
}

// compared is a table whatever its type.
type compared interface {
	compare(ctx context.Context, s *stage) (*Comparison, error)
	tamper(ctx context.Context, s *stage) (key string, err error)
	close(ctx context.Context) error
}

// compare compares all tables and shows what it found.
func (s *stage) compare(ctx context.Context) error {
	s.headline("The comparison")
	s.say("Each table is read once more, by plain SQL on a connection that knows nothing of the cache. Beside it: what Scan yields, what memory holds, and what the cache's own Audit has looked at. Memory also remembers that rows do not exist; Audit compares that too, and so may count more than there are rows in memory.")
	if s.options.Tamper {
		key, err := s.tables[0].tamper(ctx, s)
		if err != nil {
			return err
		}
		s.say("Before that, as asked, %s is changed in the database behind the cache's back.", key)
	}
	rows := [][]string{{"table", "rows", "scanned", "in memory", "audited", "differences"}}
	for _, t := range s.tables {
		c, err := t.compare(ctx, s)
		if err != nil {
			return err
		}
		s.result.Comparison = append(s.result.Comparison, c)
		rows = append(rows, []string{c.Table, text.Count(c.Rows), text.Count(c.Scanned), text.Count(c.InMemory), text.Count(c.Audited), text.Count(len(c.Differences))})
	}
	s.show("lrrrrr", rows...)
	const shown = 10
	for _, c := range s.result.Comparison {
		for i, d := range c.Differences {
			if i == shown {
				s.tick(false, fmt.Sprintf("%s: and %d more", c.Table, len(c.Differences)-shown))
				break
			}
			s.tick(false, c.Table+": "+d)
		}
	}
	return nil
}

// compare reads the table past the cache first: Audit and Scan drop the copies
// that they find to be old, and there would be nothing left to find.
func (t *table[V]) compare(ctx context.Context, s *stage) (*Comparison, error) {
	c := &Comparison{Table: t.name, Differences: []string{}}
	rows, err := readRows[V](ctx, s, t.sql)
	if err != nil {
		return nil, err
	}
	wrong := make(map[string]string)
	differ := func(key, who string, value V, version lockstep.Version) {
		if _, known := wrong[key]; !known {
			wrong[key] = fmt.Sprintf("%s: %s has %+v at version %d, the database %s", key, who, value, version, rows[key])
		}
	}

	for key, row := range rows {
		if row.exists {
			c.Rows++
		}
		value, ok := t.cache.Peek(key)
		if !ok {
			continue
		}
		c.InMemory++
		entry, err := t.cache.GetEntry(ctx, key)
		if err != nil {
			return nil, err
		}
		if !row.exists || value != row.value || entry.Value != row.value || entry.Version != row.version {
			differ(key, "memory", value, entry.Version)
		}
	}

	audit, err := t.cache.Audit(ctx)
	if err != nil {
		return nil, err
	}
	c.Audited = audit.Entries
	for _, d := range audit.Differences {
		differ(d.Key, "memory, says Audit,", d.Cached.Value, d.Cached.Version)
	}

	for entry, err := range t.cache.Scan(ctx) {
		if err != nil {
			return nil, err
		}
		c.Scanned++
		if row := rows[entry.Key]; !row.exists || entry.Value != row.value || entry.Version != row.version {
			differ(entry.Key, "Scan", entry.Value, entry.Version)
		}
	}
	if c.Scanned != c.Rows {
		wrong[""] = fmt.Sprintf("Scan yields %d rows, and the table has %d", c.Scanned, c.Rows)
	}
	for _, key := range slices.Sorted(maps.Keys(wrong)) {
		c.Differences = append(c.Differences, wrong[key])
	}
	return c, nil
}

func (r plainRow[V]) String() string {
	if !r.exists {
		return "no row"
	}
	return fmt.Sprintf("%+v at version %d", r.value, r.version)
}

// tamper changes a row that memory has a copy of, to another one's value.
func (t *table[V]) tamper(ctx context.Context, s *stage) (string, error) {
	rows, err := readRows[V](ctx, s, t.sql)
	if err != nil {
		return "", err
	}
	keys := slices.Sorted(maps.Keys(rows))
	for _, key := range keys {
		if _, ok := t.cache.Peek(key); !ok {
			continue
		}
		for _, other := range keys {
			if rows[other].exists && rows[other].value != rows[key].value {
				return strings.Join([]string{t.name, key}, " "), t.overwrite(ctx, s, key, rows[other].value, false)
			}
		}
	}
	return "", fmt.Errorf("nothing of table %s is in memory", t.name)
}

package server

import (
	"context"
	"fmt"

	"github.com/lockstep-cache/lockstep"
)

// served is a cache of the server, as those who ask about all of them see it: that of the keys, whose
// table is "", and one for each of Options.Tables.
type served struct {
	table string
	stats lockstep.Stats
}

// caches are all of them, the keys' first; none where there is no Store.
func (s *Server) caches() (all []served) {
	if s.keys == nil {
		return nil
	}
	all = append(all, served{"", s.keys.cache.Stats()})
	for _, t := range s.keys.tables.all {
		all = append(all, served{t.name, t.cache.Stats()})
	}
	return all
}

// together is what INFO tells by Redis's names, which knows of one cache.
func together(all []served) (sum lockstep.Stats) {
	for _, c := range all {
		sum.Hits += c.stats.Hits
		sum.Misses += c.stats.Misses
		sum.Evictions += c.stats.Evictions
		sum.Expirations += c.stats.Expirations
	}
	return sum
}

// audited is what an audit has found, with keys as clients have them.
type audited struct {
	entries, inMotion int
	differences       []auditDifference
}

type auditDifference struct {
	key            string
	cached, stored auditRow
}

type auditRow struct {
	exists  bool
	version lockstep.Version
}

// audit compares the copies of one table, or, without a name, of all of them.
func (k *keyspace) audit(ctx context.Context, only *string) (found audited, err error) {
	if only == nil || *only == "" {
		if err = addAudit(ctx, &found, k.cache.Cache, func(key string) string { return key }); err != nil {
			return found, err
		}
	}
	known := only == nil || *only == ""
	for _, t := range k.tables.all {
		if only != nil && *only != t.name {
			continue
		}
		known = true
		if err = addAudit(ctx, &found, t.cache, t.of); err != nil {
			return found, fmt.Errorf("table %s: %w", t.name, err)
		}
	}
	if !known {
		err = reply("ERR no table is served as '" + cText([]byte(*only), 128) + "'")
	}
	return found, err
}

func addAudit[K comparable, V any](ctx context.Context, found *audited, cache *lockstep.Cache[K, V], name func(K) string) error {
	report, err := cache.Audit(ctx)
	if err != nil {
		return err
	}
	found.entries += report.Entries
	found.inMotion += report.InMotion
	for _, d := range report.Differences {
		found.differences = append(found.differences, auditDifference{name(d.Key), auditRow{d.Cached.Exists, d.Cached.Version}, auditRow{d.Stored.Exists, d.Stored.Version}})
	}
	return nil
}

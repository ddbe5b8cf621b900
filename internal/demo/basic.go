package demo

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/text"
)

// WriteThroughFigures are those of the first scene.
type WriteThroughFigures struct {
	Rows    int     `json:"rows"`
	Room    int     `json:"room"`
	Reads   int     `json:"reads"`
	Hits    uint64  `json:"hits"`
	Misses  uint64  `json:"misses"`
	HitRate float64 `json:"hit_rate"`
	Hit     Latency `json:"hit"`
	Load    Latency `json:"load"`
	Write   Latency `json:"write"`

	Evictions uint64 `json:"evictions"`
	Entries   uint64 `json:"entries"`

	AbsentReads  int    `json:"absent_reads"`
	AbsentLoads  uint64 `json:"absent_loads"`
	NegativeHits uint64 `json:"negative_hits"`

	TTL       time.Duration `json:"ttl_ns"`
	OldReads  int           `json:"reads_of_the_old_copy"`
	SeenAfter time.Duration `json:"outside_change_seen_after_ns"`
	Lifetime  time.Duration `json:"lifetime_ns"`
	GoneAfter time.Duration `json:"row_gone_after_ns"`
}

func writeThrough(ctx context.Context, s *stage) (any, error) {
	f := &WriteThroughFigures{Rows: s.some(5000, 200), Reads: s.some(40_000, 500)}
	f.Room = f.Rows / 5
	// Hooks.Miss runs on the goroutine that reads, and only one does.
	var misses atomic.Int64
	users, err := openTable(ctx, s, recipe[User]{
		name: "users", open: s.options.Database.Users,
		options: lockstep.Options[string, User]{
			MaxEntries: f.Room,
			Hooks:      lockstep.Hooks[string]{Miss: func(string) { misses.Add(1) }},
		},
	})
	if err != nil {
		return nil, err
	}
	sessions, err := openTable(ctx, s, recipe[User]{name: "sessions", open: s.options.Database.Users})
	if err != nil {
		return nil, err
	}
	if err := f.writeAndRead(ctx, s, users, &misses); err != nil {
		return nil, err
	}
	if err := f.askForNobody(ctx, s, sessions); err != nil {
		return nil, err
	}
	return f, f.expire(ctx, s, sessions)
}

func (f *WriteThroughFigures) writeAndRead(ctx context.Context, s *stage, users *table[User], misses *atomic.Int64) error {
	keys, want := make([]string, f.Rows), make([]User, f.Rows)
	for i := range keys {
		keys[i], want[i] = userKey(i), userRow(i)
	}
	done := s.progress("writing and reading")
	defer done()
	if err := users.fill(ctx, f.Rows, userKey, userRow); err != nil {
		return err
	}
	var hits, loads, writes []time.Duration
	next := popular(f.Rows, 1)
	for n := range s.some(300, 20) {
		i := next()
		want[i].City = cities[n%len(cities)]
		d, err := took(func() error { _, err := users.cache.Set(ctx, keys[i], want[i]); return err })
		if err != nil {
			return err
		}
		writes = append(writes, d)
	}
	before := users.cache.Stats()
	wrong := 0
	for range f.Reads {
		i, missed := next(), misses.Load()
		var user User
		d, err := took(func() (err error) { user, err = users.cache.Get(ctx, keys[i]); return err })
		switch {
		case err != nil:
			return err
		case misses.Load() == missed:
			hits = append(hits, d)
		default:
			loads = append(loads, d)
		}
		if user != want[i] {
			wrong++
		}
	}
	done()
	after := users.cache.Stats()
	f.Hits, f.Misses = after.Hits-before.Hits, after.Misses-before.Misses
	f.HitRate = ratio(float64(f.Hits), float64(f.Reads))
	f.Hit, f.Load, f.Write = latencyOf(hits), latencyOf(loads), latencyOf(writes)
	settled, err := users.evicted(ctx, keys[0])
	if err != nil {
		return err
	}
	f.Evictions, f.Entries = settled.Evictions, settled.Entries

	s.say("A table of %s users, and memory for %s of them. %s reads ask mostly for the same few people, as reads do. What memory does not have is loaded from the database and kept, and something else is evicted to make room.",
		text.Count(f.Rows), text.Count(f.Room), text.Count(f.Reads))
	s.show("lrrr",
		[]string{"", "", "half within", "99 % within"},
		[]string{"hits: reads from memory", text.Count(f.Hits), text.Span(f.Hit.P50), text.Span(f.Hit.P99)},
		[]string{"misses: reads from the database", text.Count(f.Misses), text.Span(f.Load.P50), text.Span(f.Load.P99)},
		[]string{"writes, until committed on disk", text.Count(f.Write.Count), text.Span(f.Write.P50), text.Span(f.Write.P99)},
		[]string{"hit rate", text.Percent(f.HitRate)},
		[]string{"evictions", text.Count(f.Evictions)},
		[]string{"entries in memory now", text.Count(f.Entries)},
	)
	s.expect(wrong == 0, "all %s reads returned what was last written", text.Count(f.Reads))
	s.expect(f.Hits+f.Misses == uint64(f.Reads), "hits and misses add up to the reads")
	s.expect(f.Evictions > 0 && f.Entries <= settled.Maximum, "memory kept to its bound, %s entries", text.Count(settled.Maximum))
	return nil
}

// evicted is the cache's Stats when memory is within its bound. Eviction is the
// work of a goroutine of its own, and may be a few entries behind the last read;
// nothing in the cache's API waits for it. Reads of one row add nothing to memory,
// and remind it. Their number is bounded: a memory that stays over its bound is
// one for the caller's expectation to find.
func (t *table[V]) evicted(ctx context.Context, key string) (lockstep.Stats, error) {
	pause := time.NewTicker(time.Millisecond)
	defer pause.Stop()
	stats := t.cache.Stats()
	for reads := 0; stats.Entries > stats.Maximum && reads < 10_000; reads++ {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return stats, ctx.Err()
		}
		if _, err := t.cache.Get(ctx, key); err != nil {
			return stats, err
		}
		stats = t.cache.Stats()
	}
	return stats, nil
}

// askForNobody reads rows that do not exist.
func (f *WriteThroughFigures) askForNobody(ctx context.Context, s *stage, sessions *table[User]) error {
	const nobodies, times = 10, 100
	before := sessions.cache.Stats()
	found := 0
	for i := range nobodies * times {
		_, err := sessions.cache.Get(ctx, fmt.Sprintf("session:none-%d", i%nobodies))
		switch {
		case err == nil:
			found++
		case !errors.Is(err, lockstep.ErrNotFound):
			return err
		}
	}
	after := sessions.cache.Stats()
	f.AbsentReads = nobodies * times
	f.AbsentLoads, f.NegativeHits = after.Loads-before.Loads, after.NegativeHits-before.NegativeHits
	s.say("That a row does not exist is remembered, too. %s reads of %d sessions that nobody ever opened cost %s of the database and %s answers from memory.",
		text.Count(f.AbsentReads), nobodies, text.Plural(f.AbsentLoads, "read"), text.Count(f.NegativeHits))
	s.expect(found == 0 && f.AbsentLoads == nobodies && f.AbsentLoads+f.NegativeHits == nobodies*times,
		"each of them was looked up once")
	return nil
}

// expire shows the two lifetimes: of a copy in memory, and of a row.
//
// A row of each kind is read again and again until both are over. What is checked
// is what a read may say that began after the end: it does not matter how many
// reads the machine finds time for.
func (f *WriteThroughFigures) expire(ctx context.Context, s *stage, sessions *table[User]) error {
	f.TTL = max(50*time.Millisecond, s.lasting(200*time.Millisecond))
	f.Lifetime = 2 * f.TTL
	const copied, mortal = "session:copied", "session:mortal"
	old, changed := userRow(1), userRow(2)

	began := time.Now()
	if _, err := sessions.cache.Set(ctx, copied, old, lockstep.TTL(f.TTL)); err != nil {
		return err
	}
	copyEnds := time.Now().Add(f.TTL)
	if _, err := sessions.cache.Set(ctx, mortal, old, lockstep.Lifetime(f.Lifetime)); err != nil {
		return err
	}
	rowEnds := time.Now().Add(f.Lifetime)
	if err := sessions.overwrite(ctx, s, copied, changed, true); err != nil {
		return err
	}

	done := s.progress("waiting for a copy and a row to end")
	defer done()
	pause := time.NewTicker(time.Millisecond)
	defer pause.Stop()
	const patience = 10 * time.Second
	late := 0
	for (f.SeenAfter == 0 || f.GoneAfter == 0) && time.Since(began) < patience {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		asked := time.Now()
		switch user, err := sessions.cache.Get(ctx, copied); {
		case err != nil:
			return err
		case user == changed:
			if f.SeenAfter == 0 {
				f.SeenAfter = time.Since(began)
			}
		case asked.After(copyEnds):
			late++
		default:
			f.OldReads++
		}
		asked = time.Now()
		switch _, err := sessions.cache.Get(ctx, mortal); {
		case errors.Is(err, lockstep.ErrNotFound):
			if f.GoneAfter == 0 {
				f.GoneAfter = time.Since(began)
			}
		case err != nil:
			return err
		case asked.After(rowEnds):
			late++
		}
	}
	done()
	s.say("There are two lifetimes. TTL bounds how long memory answers for a copy. With a TTL of %s, a row that another program changed behind the cache's back was read as it had been %s; the change was seen %s after the copy was made. Lifetime bounds the row itself: a session written to live for %s was gone for every reader after %s.",
		text.Span(f.TTL), text.Plural(f.OldReads, "more time"), text.Span(f.SeenAfter), text.Span(f.Lifetime), text.Span(f.GoneAfter))
	s.expect(late == 0 && f.SeenAfter > 0 && f.GoneAfter > 0, "no read was answered by a copy, or by a row, whose time was over")
	s.expect(f.GoneAfter > f.Lifetime-time.Millisecond, "and the row was there until then")
	return nil
}

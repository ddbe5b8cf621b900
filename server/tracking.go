package server

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// tracking knows which connections may have a copy of which key, and tells them when it is
// out of date (CLIENT TRACKING). Its rules, and the interleavings that they are made for,
// are in docs/design/server.md:
//
//  1. A key is busy from before its write is handed to the cache until after the cache has
//     answered: while its outcome is unknown, until that is settled.
//  2. Who reads a key is put down for it before it is read.
//  3. When a key becomes busy, all who are down for it are told, once: the invalidation is
//     put into their outboxes in the same step in which they are taken off. So it is before
//     whatever they are answered from then on, and it travels while the database commits.
//  4. Replies that were being built when an invalidation came are followed by another one;
//     so is the value of a key that is busy.
//  5. The writer's replies leave when every invalidation that was put down by then, by
//     whomever, is with the kernel, or its connection is closed (deliver).
type tracking struct {
	server *Server
	seed   maphash.Seed
	shards [trackingShards]trackingShard
	// known is how many keys have somebody down for them, or an end.
	known atomic.Int64

	mu        sync.Mutex
	followers map[*follower]struct{}            // all that track, in whatever mode
	prefixes  map[string]map[*follower]struct{} // those of BCAST
	lengths   map[int]int                       // how many prefixes have that length
	// broadcasts is the number of prefixes, for who has to know whether there are any.
	broadcasts atomic.Int64

	// undelivered are outboxes with invalidations that the kernel does not have yet. It is
	// the innermost lock.
	undeliveredMu sync.Mutex
	undelivered   map[*outbox]struct{}

	alarms alarms
	// doubts are the goroutines that wait for unknown outcomes. They grow only while over is
	// false, under doubtsMu.
	doubtsMu sync.Mutex
	doubts   sync.WaitGroup
	over     bool
}

const trackingShards = 64

type trackingShard struct {
	mu   sync.Mutex
	keys map[string]*tracked
	busy int // writes of all keys
}

// tracked is what there is to know of one key. Its shard's lock guards it.
type tracked struct {
	busy    int  // writes under way, or in doubt
	doubted bool // one of them is
	readers []*follower
	// lapse is when the copies' time is over, nil for never; announced says that those
	// who track by prefix are told then, too.
	lapse     *alarm
	announced bool
}

// follower is a connection that has tracked keys. It outlives the connection where that
// is down for keys that nobody writes, and so has nothing of it.
type follower struct {
	conn atomic.Pointer[conn] // nil when it is closed
}

// mode is how a connection tracks. It belongs to the connection, which changes it with the
// lock of its outbox held.
type mode struct {
	on, bcast, optIn, optOut, noLoop bool
	redirect                         int64 // 0: to itself
	broken                           bool  // redirect is not there any more; others change it
}

func newTracking(s *Server) *tracking {
	t := &tracking{server: s, seed: maphash.MakeSeed(), followers: map[*follower]struct{}{},
		prefixes: map[string]map[*follower]struct{}{}, lengths: map[int]int{}, undelivered: map[*outbox]struct{}{}}
	for i := range t.shards {
		t.shards[i].keys = map[string]*tracked{}
	}
	t.alarms.ring = t.expire
	return t
}

func (t *tracking) shard(key string) *trackingShard {
	return &t.shards[maphash.String(t.seed, key)%trackingShards]
}

// get returns what is known of a key, making it.
func (s *trackingShard) get(key string) *tracked {
	e := s.keys[key]
	if e == nil {
		e = &tracked{}
		s.keys[key] = e
	}
	return e
}

// tidy forgets a key of which there is nothing to know.
func (s *trackingShard) tidy(key string, e *tracked) {
	if e.busy == 0 && !e.known() {
		delete(s.keys, key)
	}
}

func (e *tracked) known() bool { return len(e.readers) > 0 || e.lapse != nil }

// begin makes a key busy, and tells those who may have it. w is the write, if its
// connection is to be told by itself.
func (t *tracking) begin(key string, w *writing) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.get(key)
	e.busy++
	t.invalidate(e, key, w, true)
}

// end is the other side of begin. In doubt, the write's caller has been told that nobody
// knows: reading goes on being followed by an invalidation, and the end by one more.
func (t *tracking) end(key string) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.keys[key]
	e.busy--
	if e.busy == 0 {
		if e.doubted {
			t.invalidate(e, key, nil, true)
		}
		e.doubted = false
		t.forget(e) // they were told at once
	}
	s.tidy(key, e)
}

// doubt says that nobody knows what a write of the key has done.
func (t *tracking) doubt(key string) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[key].doubted = true
}

// changed tells those who may have a key that it is not to be trusted, for another reason
// than a write of ours.
func (t *tracking) changed(key string) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.keys[key]; e != nil {
		t.invalidate(e, key, nil, true)
		s.tidy(key, e)
	} else if t.broadcasts.Load() > 0 {
		t.broadcast(key, nil)
	}
}

// invalidate tells who is down for the key, and takes him off. It has the shard's lock: who
// writes the key next, and finds nobody, must not be answered before they have been told.
func (t *tracking) invalidate(e *tracked, key string, w *writing, broadcast bool) {
	for _, f := range e.readers {
		t.tell(f, invalidation{key: key}, w, false)
	}
	t.forget(e)
	if broadcast && t.broadcasts.Load() > 0 {
		t.broadcast(key, w)
	}
}

// forget takes everybody off who is down for the key.
func (t *tracking) forget(e *tracked) {
	if !e.known() {
		return
	}
	t.known.Add(-1)
	t.alarms.cancel(e.lapse)
	e.readers, e.lapse, e.announced = nil, nil, false
}

// broadcast tells those who track keys by their beginnings, once for each that fits.
func (t *tracking) broadcast(key string, w *writing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// By their lengths, of which there are few: a write must not cost what others have
	// listed.
	for n := range t.lengths {
		if n > len(key) {
			continue
		}
		for f := range t.prefixes[key[:n]] {
			t.tell(f, invalidation{key: key}, w, true)
		}
	}
}

// beginAll makes all keys busy, and tells everybody that nothing is to be trusted.
func (t *tracking) beginAll(w *writing) {
	t.everyShard(func(s *trackingShard) { s.busy++ })
	// Who begins to track from here on finds all keys busy.
	t.tellAll(w)
	t.everyShard(func(s *trackingShard) {
		for key, e := range s.keys {
			t.forget(e)
			s.tidy(key, e)
		}
	})
}

func (t *tracking) endAll(doubted bool) {
	// First: who has been told finds no key busy. Whatever was read before is followed by an
	// invalidation of its own.
	t.everyShard(func(s *trackingShard) { s.busy-- })
	if doubted {
		t.tellAll(nil)
	}
}

func (t *tracking) everyShard(f func(s *trackingShard)) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		f(s)
		s.mu.Unlock()
	}
}

func (t *tracking) tellAll(w *writing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for f := range t.followers {
		t.tell(f, invalidation{all: true}, w, false)
	}
}

// register puts a connection down for a key, and tells whether the key is busy.
func (t *tracking) register(f *follower, key string) (busy bool) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.get(key)
	t.learn(s, e, key)
	e.add(f)
	return e.busy > 0 || s.busy > 0
}

// learn makes room for a key of which there is something to know from now on.
func (t *tracking) learn(s *trackingShard, e *tracked, key string) {
	if !e.known() && t.known.Add(1) > int64(t.server.options.TrackedKeys) {
		t.evict(s, key)
	}
}

// add puts somebody down once. Those whose connection is closed go when there is no more
// room.
func (e *tracked) add(f *follower) {
	for _, r := range e.readers {
		if r == f {
			return
		}
	}
	if len(e.readers) == cap(e.readers) {
		var live []*follower
		for _, r := range e.readers {
			if r.conn.Load() != nil {
				live = append(live, r)
			}
		}
		e.readers = live
	}
	e.readers = append(e.readers, f)
}

// evict takes some key out of the table, any but the one, and tells who was down for it.
func (t *tracking) evict(s *trackingShard, but string) {
	for key, e := range s.keys {
		if key != but && e.known() {
			t.invalidate(e, key, nil, e.announced)
			s.tidy(key, e)
			return
		}
	}
}

// isBusy tells it of a key for which nobody is put down.
func (t *tracking) isBusy(key string) bool {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.keys[key]
	return s.busy > 0 || e != nil && e.busy > 0
}

// lapses has those who are down for a key be told at a time at the latest, when the copies
// that they may have are no good any more.
func (t *tracking) lapses(key string, at time.Time, announced bool) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.get(key)
	if e.lapse == nil || at.Before(e.lapse.at) {
		t.learn(s, e, key)
		t.alarms.cancel(e.lapse)
		e.lapse = t.alarms.set(key, at)
	}
	e.announced = e.announced || announced
}

// expire is an alarm's.
func (t *tracking) expire(a *alarm) {
	s := t.shard(a.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.keys[a.key]
	if e == nil || e.lapse != a {
		return // it was written since
	}
	t.invalidate(e, a.key, nil, e.announced)
	s.tidy(a.key, e)
}

// join and leave are of connections that begin to track, and end it.
func (t *tracking) join(f *follower, prefixes []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followers[f] = struct{}{}
	for _, prefix := range prefixes {
		if t.prefixes[prefix] == nil {
			t.prefixes[prefix] = map[*follower]struct{}{}
			t.lengths[len(prefix)]++
			t.broadcasts.Add(1)
		}
		t.prefixes[prefix][f] = struct{}{}
	}
}

func (t *tracking) leave(f *follower, prefixes []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.followers, f)
	for _, prefix := range prefixes {
		if followers := t.prefixes[prefix]; followers != nil {
			delete(followers, f)
			if len(followers) == 0 {
				delete(t.prefixes, prefix)
				if t.lengths[len(prefix)]--; t.lengths[len(prefix)] == 0 {
					delete(t.lengths, len(prefix))
				}
				t.broadcasts.Add(-1)
			}
		}
	}
}

// listen has connections be told of what others have changed, where the cache knows. name
// is what clients call a row.
func listen[K comparable](t *tracking, hooks *lockstep.Hooks[K], name func(K) string) {
	program := hooks.Outside
	var mu sync.Mutex
	blind := false // all keys are busy while nobody sees what others change
	hooks.Outside = func(e lockstep.OutsideEvent[K]) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case e.Blind && !blind:
			t.beginAll(nil)
		case e.All && blind && !e.Blind:
			t.endAll(true)
		case e.All && !e.Blind:
			t.tellAll(nil)
		}
		blind = e.Blind || blind && !e.All
		for _, key := range e.Keys {
			t.changed(name(key))
		}
		if program != nil {
			program(e)
		}
	}
}

// clients is how many connections track.
func (t *tracking) clients() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.followers)
}

// size is how many keys have somebody down for them, how many that are together, and how
// many prefixes are tracked.
func (t *tracking) size() (keys, items, prefixes int) {
	t.everyShard(func(s *trackingShard) {
		for _, e := range s.keys {
			if len(e.readers) > 0 {
				keys, items = keys+1, items+len(e.readers)
			}
		}
	})
	return keys, items, int(t.broadcasts.Load())
}

// outlast runs what waits for unknown outcomes: beside its caller, or, where the server's life
// is over, which nothing waits beyond, at once.
func (t *tracking) outlast(wait func()) {
	t.doubtsMu.Lock()
	over := t.over
	if !over {
		t.doubts.Go(wait)
	}
	t.doubtsMu.Unlock()
	if over {
		wait()
	}
}

// close waits for what waits for unknown outcomes. The server's life is over; connections may
// not be, where Shutdown has given up.
func (t *tracking) close() {
	t.alarms.stop()
	t.doubtsMu.Lock()
	t.over = true
	t.doubtsMu.Unlock()
	t.doubts.Wait()
}

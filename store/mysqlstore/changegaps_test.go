package mysqlstore

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Gaps are a set of numbers, whatever is put together and taken apart again.
func TestGapsAreTheNumbersThatWereNotSeen(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	now := time.Unix(0, 0)
	for range 300 {
		var g gaps
		missing := map[int64]bool{}
		owner := func(id int64) int64 { return id % 3 }
		next := int64(1)
		for range 60 {
			switch r.IntN(5) {
			case 0, 1:
				n := r.Int64N(5)
				g.pass(next, next+n-1, now)
				for id := next; id < next+n; id++ {
					missing[id] = true
				}
				next += n + 1
			case 2:
				var ids []int64
				for _, s := range g.spans {
					for id := s.lo; id <= s.hi; id++ {
						if r.IntN(3) == 0 {
							ids = append(ids, id)
							delete(missing, id)
						}
					}
				}
				g.fill(append([]int64{-1}, append(ids, next+9)...))
			case 3:
				conn := r.Int64N(3)
				var ids []int64
				for _, s := range g.spans {
					for id := s.lo; id <= s.hi; id++ {
						if owner(id) == conn {
							ids = append(ids, id)
						}
					}
				}
				if len(ids) > 0 {
					g.join(conn, ids, now)
				}
			case 4:
				end := r.Int64N(next + 1)
				for _, conn := range g.landed(func(id int64) bool { return id == end }) {
					g.part(conn)
				}
			}
			got := map[int64]bool{}
			least := next
			add := func(spans []span) {
				last := int64(-1)
				for _, s := range spans {
					if s.lo <= last || s.hi < s.lo {
						t.Fatalf("spans out of order: %v", spans)
					}
					last = s.hi
					for id := s.lo; id <= s.hi; id++ {
						if got[id] {
							t.Fatalf("%d is there twice", id)
						}
						got[id], least = true, min(least, id)
					}
				}
			}
			add(g.spans)
			asked := g.lookedFor()
			for _, f := range g.flights {
				add(f.spans)
				lo, hi := f.ends()
				for _, end := range []int64{lo, hi} {
					if !slices.ContainsFunc(asked, func(s span) bool { return s.lo <= end && end <= s.hi }) {
						t.Fatalf("%d, the end of a flight, is not looked for", end)
					}
				}
			}
			if len(got) != len(missing) || least != g.least(next) {
				t.Fatalf("got %v, want %v; least %d and %d", got, missing, g.least(next), least)
			}
			for id := range missing {
				if !got[id] {
					t.Fatalf("%d is not missing any more", id)
				}
			}
		}
	}
}

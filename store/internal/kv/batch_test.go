package kv_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

func rows(t *testing.T) *kv.Rows[string, string] {
	t.Helper()
	key, err := keytext.New[string](1 << 10)
	if err != nil {
		t.Fatal(err)
	}
	return &kv.Rows[string, string]{Key: key, Values: codec.JSON[string](), MaxValueBytes: 1 << 10}
}

// A batch that works in the room of others is one like any other, however many keys
// those had, and it has nothing of theirs.
func TestABatchInTheRoomOfAnother(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	r := rows(t)
	var b kv.Batch[string, string]
	refused := false
	for range 2_000 {
		var sets []lockstep.ChangeSet[string, string]
		for range 1 + random.IntN(1+random.IntN(40)) {
			change := func() lockstep.Change[string, string] {
				return lockstep.Change[string, string]{Key: fmt.Sprint("k", random.IntN(60)), Value: "v"}
			}
			set := lockstep.ChangeSet[string, string]{Changes: []lockstep.Change[string, string]{change()}}
			switch random.IntN(10) {
			case 0:
				set.Checks = []lockstep.Check[string]{{Key: change().Key, Absent: true}}
			case 1:
				set = lockstep.ChangeSet[string, string]{Changes: []lockstep.Change[string, string]{change(), {Insert: true}}} // refused
			case 2:
				set.DeleteAll = true // refused, beside a change
			}
			sets = append(sets, set)
		}
		b.Borrow(r, sets)
		fresh := kv.NewBatch(r, sets)
		if !slices.Equal(b.Keys, fresh.Keys) || !slices.Equal(b.Encoded, fresh.Encoded) {
			t.Fatalf("seed %d: keys %q (%v), and in room of its own %q (%v)", seed, b.Keys, b.Encoded, fresh.Keys, fresh.Encoded)
		}
		for i := range fresh.Outcomes {
			refused = refused || fresh.Outcomes[i].Err != nil
			if (b.Outcomes[i].Err == nil) != (fresh.Outcomes[i].Err == nil) {
				t.Fatalf("seed %d: set %d: %v, and in room of its own %v", seed, i, b.Outcomes[i].Err, fresh.Outcomes[i].Err)
			}
		}
		for i := range 60 {
			k := fmt.Sprint("k", i)
			place, named := b.Place(k)
			if at := slices.Index(fresh.Keys, k); named != (at >= 0) || named && place != at {
				t.Fatalf("seed %d: Place(%s) = %d, %t, and it is at %d", seed, k, place, named, at)
			}
		}
		outcomes := b.Outcomes
		b.Forget()
		for _, k := range b.Keys[:cap(b.Keys)] {
			if k != "" {
				t.Fatalf("seed %d: it still has the key %q", seed, k)
			}
		}
		for _, e := range b.Encoded[:cap(b.Encoded)] {
			if e != nil {
				t.Fatalf("seed %d: it still has the key %v", seed, e)
			}
		}
		if b.Sets != nil || b.Outcomes != nil || len(outcomes) != len(sets) {
			t.Fatalf("seed %d: %v, %v, %d outcomes of %d", seed, b.Sets, b.Outcomes, len(outcomes), len(sets))
		}
	}
	if !refused {
		t.Error("no set was refused")
	}
}

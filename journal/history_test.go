package journal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// What callers see is linearizable also while the disk is full, and its syncs fail, and
// while flushes do: a write that the journal has not kept was never seen, and one whose
// outcome is unknown is settled as not applied.
func TestHistoriesWithAJournal(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			db := memstore.NewDatabase()
			store := fault.Inject(memstore.New(memstore.Options[int, int64]{Database: db}),
				fault.MustParse("begin 10%: fail\n commit 5%: lose reply\n commit 5%: lose request\n commit 10%: fail\n apply 5%: fail\n settle 20%: fail"), seed)
			positions := fault.Inject(memstore.New(memstore.Options[string, int64]{Database: db}), fault.MustParse("commit 20%: fail"), seed)
			disk := newBadDisk()
			var kept *Journal[int, int64]
			for kept == nil { // until the faults let it
				kept, _ = open(t.Context(), filepath.Join(t.TempDir(), "journal"), Options[int, int64]{Positions: positions, FileBytes: 2000, Logger: quiet}, disk)
			}
			defer kept.Close()
			cache, err := lockstep.New[int, int64](store, lockstep.Options[int, int64]{
				Mode: lockstep.WriteBehind, Logger: quiet, CommitTimeout: time.Second,
				Behind: lockstep.Behind[int, int64]{Journal: kept, MaxWrites: []int{2, 20}[random.IntN(2)], MaxDelay: []time.Duration{0, time.Millisecond}[random.IntN(2)]},
			})
			if err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			var harm sync.WaitGroup
			harm.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(3 * time.Millisecond):
					}
					disk.set(func() {
						disk.partly, disk.unsynced, disk.uncut = random.IntN(6) == 0, random.IntN(12) == 0, random.IntN(2) == 0
						disk.uncreate = random.IntN(6) == 0
					})
				}
			})
			s := history.Caches(cache)
			s.Transact = nil
			table := &s.Tables[0]
			table.SetFor, table.SetIf, table.Delete, table.DeleteIf, table.Update = nil, nil, nil, nil, nil
			h := history.Workload{
				Seed: seed, Calls: 300, Clients: 6, Keys: 4, Pause: time.Millisecond, Patience: 20 * time.Second,
				Leave: 0.02, LeaveAfter: 2 * time.Millisecond, Clock: history.RealTime(),
			}.Run(context.Background(), s)
			close(stop)
			harm.Wait()
			disk.set(func() { disk.partly, disk.unsynced, disk.uncut, disk.uncreate = false, false, false, false })
			if err := cache.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if err := history.Check(h.Ops, time.Minute); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			t.Logf("%d operations, %v", len(h.Ops), h.Counts)
		})
	}
}

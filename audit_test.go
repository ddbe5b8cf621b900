package lockstep_test

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

func TestAuditOfAValueThatIsNotEqualToItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cachetest.Open[string, float64](t, memstore.New(memstore.Options[string, float64]{}), lockstep.Options[string, float64]{})
		if _, err := c.Set(t.Context(), "k", math.NaN()); err != nil {
			t.Fatal(err)
		}
		report, err := c.Audit(t.Context())
		if len(report.Differences) > 0 || err != nil {
			t.Errorf("the only writer of the table differs from it: %v, %v", report.Differences, err)
		}
	})
}

// What somebody else has changed leaves memory when the auditor comes by, is counted,
// and told to the hook.
func TestTheAuditorDropsWhatOthersHaveChanged(t *testing.T) {
	told := make(chan string, 10)
	inBubble(t, options{AuditInterval: time.Second, Hooks: lockstep.Hooks[string]{Difference: func(key string) { told <- key }}}, func(s *scene) {
		s.write("a", 1)
		s.write("b", 1)
		s.behind("a", 2)
		if v, ok := s.Peek("a"); !ok || v != 1 {
			t.Fatalf("memory has %v, %v: the scene is not what it is to be", v, ok)
		}
		time.Sleep(time.Second + 1)
		synctest.Wait()
		if v, ok := s.Peek("a"); ok {
			t.Errorf("memory still has %v", v)
		}
		if _, ok := s.Peek("b"); !ok {
			t.Error("a copy that was right has gone")
		}
		if st := s.Stats(); st.AuditDifferences != 1 || st.AuditedEntries != 2 {
			t.Errorf("%d differences in %d entries are counted, and not 1 in 2", st.AuditDifferences, st.AuditedEntries)
		}
		if len(told) != 1 || <-told != "a" {
			t.Error("the hook was not told of a, or of more")
		}
	})
}

// All of memory has its turn, and again.
func TestTheAuditorGoesThroughAllOfMemory(t *testing.T) {
	inBubble(t, options{AuditInterval: time.Second}, func(s *scene) {
		const n = 1000
		for i := range n {
			s.write(fmt.Sprint(i), i)
		}
		s.behind("7", 0)
		s.behind("998", 0)
		time.Sleep(4500 * time.Millisecond) // 4 times 256 are more than there are
		synctest.Wait()
		if st := s.Stats(); st.AuditDifferences != 2 || st.AuditedEntries != n {
			t.Errorf("%d differences in %d entries, and not 2 in %d", st.AuditDifferences, st.AuditedEntries, n)
		}
		s.behind("8", 0)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if st := s.Stats(); st.AuditDifferences != 3 {
			t.Errorf("the second round has found %d differences, and not one more", st.AuditDifferences-2)
		}
	})
}

// A database that is away is asked again at the next turn.
func TestTheAuditorOutlivesAnOutage(t *testing.T) {
	inBubble(t, options{AuditInterval: time.Second}, func(s *scene) {
		s.write("a", 1)
		s.behind("a", 2)
		s.script("load *: fail")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if st := s.Stats(); st.LoadErrors < 5 || st.AuditDifferences != 0 {
			t.Fatalf("%d loads have failed, %d differences: the scene is not what it is to be", st.LoadErrors, st.AuditDifferences)
		}
		s.script("")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := s.Stats().AuditDifferences; n != 1 {
			t.Errorf("%d differences, and not 1", n)
		}
	})
}

// A copy whose key is being written is not taken for a difference.
func TestTheAuditorLeavesAWriteUnderWayAlone(t *testing.T) {
	inBubble(t, options{AuditInterval: time.Second}, func(s *scene) {
		s.write("a", 1)
		s.script("commit *: latency 8s")
		done := make(chan error, 1)
		go func() { _, err := s.Set(s.ctx, "a", 2); done <- err }()
		time.Sleep(5*time.Second + 1)
		synctest.Wait()
		if n := s.Stats().AuditDifferences; n != 0 {
			t.Errorf("%d differences, while a commit is under way", n)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

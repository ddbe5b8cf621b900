package lockstep_test

import (
	"math"
	"testing"
	"testing/synctest"

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

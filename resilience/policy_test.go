package resilience

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lockstep-cache/lockstep"
)

func TestBadPoliciesAreRefusedByName(t *testing.T) {
	for _, c := range []struct {
		policy RetryPolicy
		fields []string
	}{
		{RetryPolicy{MaxAttempts: -1}, []string{"MaxAttempts"}},
		{RetryPolicy{BaseDelay: -1}, []string{"BaseDelay"}},
		{RetryPolicy{MaxDelay: -1}, []string{"MaxDelay"}},
		{RetryPolicy{MaxElapsed: -1}, []string{"MaxElapsed"}},
		{RetryPolicy{Budget: RetryBudget{Reserve: -1}}, []string{"Budget.Reserve"}},
		{RetryPolicy{Budget: RetryBudget{Reserve: math.MaxInt}}, []string{"Budget.Reserve"}},
		{RetryPolicy{Budget: RetryBudget{PerSuccess: -0.1}}, []string{"Budget.PerSuccess"}},
		{RetryPolicy{Budget: RetryBudget{PerSuccess: 1.1}}, []string{"Budget.PerSuccess"}},
		{RetryPolicy{Budget: RetryBudget{PerSuccess: math.NaN()}}, []string{"Budget.PerSuccess"}},
		{RetryPolicy{BaseDelay: 2, MaxDelay: 1}, []string{"BaseDelay", "MaxDelay"}},
	} {
		store, err := Retry(&script{}, c.policy)
		if store != nil || !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%+v: store %v, error %v", c.policy, store, err)
			continue
		}
		for _, field := range c.fields {
			if !strings.Contains(err.Error(), field) {
				t.Errorf("%+v: error %q does not name %s", c.policy, err, field)
			}
		}
	}
	if _, err := Retry[string, int](nil, RetryPolicy{}); !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "store") {
		t.Errorf("nil store: %v", err)
	}
}

func TestDefaultsFollowWhatIsSet(t *testing.T) {
	set := RetryPolicy{MaxAttempts: 3, BaseDelay: 1, MaxDelay: 2, MaxElapsed: 9, Budget: RetryBudget{7, 0.5}}
	budget := RetryBudget{DefaultReserve, DefaultPerSuccess}
	for _, c := range []struct{ given, want RetryPolicy }{
		{RetryPolicy{}, RetryPolicy{MaxAttempts: DefaultMaxAttempts, BaseDelay: DefaultBaseDelay, MaxDelay: DefaultMaxDelay, Budget: budget}},
		{RetryPolicy{BaseDelay: time.Hour}, RetryPolicy{MaxAttempts: DefaultMaxAttempts, BaseDelay: time.Hour, MaxDelay: time.Hour, Budget: budget}},
		{RetryPolicy{MaxDelay: time.Millisecond}, RetryPolicy{MaxAttempts: DefaultMaxAttempts, BaseDelay: time.Millisecond, MaxDelay: time.Millisecond, Budget: budget}},
		{set, set},
	} {
		if got, err := c.given.normal(); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v becomes %+v, %v; want %+v", c.given, got, err, c.want)
		}
	}
}

func TestEveryAcceptedPolicyHasBoundedWaits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		delay := rapid.Int64Range(0, math.MaxInt64)
		given := RetryPolicy{
			MaxAttempts: rapid.IntRange(0, math.MaxInt).Draw(t, "attempts"),
			BaseDelay:   time.Duration(delay.Draw(t, "base")),
			MaxDelay:    time.Duration(delay.Draw(t, "max")),
			MaxElapsed:  time.Duration(delay.Draw(t, "max elapsed")),
		}
		p, err := given.normal()
		if err != nil {
			if given.BaseDelay <= given.MaxDelay {
				t.Fatalf("refused: %v", err)
			}
			return
		}
		elapsed := time.Duration(delay.Draw(t, "elapsed"))
		before := time.Duration(0)
		for retries := range 70 {
			longest, wait := p.longest(retries), p.wait(retries, elapsed)
			if longest < before || longest > p.MaxDelay || longest <= 0 {
				t.Fatalf("after %d retries at most %v, before at most %v", retries, longest, before)
			}
			if wait < 0 || wait > longest || p.MaxElapsed > 0 && wait > max(0, p.MaxElapsed-elapsed) {
				t.Fatalf("wait of %v after %d retries and %v", wait, retries, elapsed)
			}
			before = longest
		}
	})
}

// Full jitter is spread over the whole of the range: of 1,000 waits each tenth
// of it gets its share.
func TestJitterIsFull(t *testing.T) {
	p, _ := RetryPolicy{BaseDelay: time.Second, MaxDelay: time.Second}.normal()
	var tenths [10]int
	for range 1000 {
		tenths[int(p.wait(3, 0)-1)*10/int(time.Second)]++
	}
	for i, n := range tenths {
		if n < 40 { // 100 expected; below 40 once in 10¹¹ runs
			t.Errorf("%d of 1,000 waits in tenth %d", n, i)
		}
	}
}

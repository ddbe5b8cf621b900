package turn

import (
	"context"
	"math/rand/v2"
	"time"
)

// Yield gives others a moment after the attempt of that number, from 1, has collided with
// one that no turn could prevent: another process's. It grows to 25 ms on average, and
// ends with ctx.
//
// Who has written last has the row in memory, and needs no load before he writes again.
// One who has to load it, and asks again at once, would lose for as long as that goes on.
func Yield(ctx context.Context, attempt int) {
	if attempt < 2 {
		return
	}
	timer := time.NewTimer(rand.N(min(50*time.Millisecond, time.Millisecond<<min(attempt, 10))))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

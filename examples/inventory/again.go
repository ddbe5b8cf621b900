package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// again calls f until it is known what has become of it, or ctx ends; a database that is
// away is waited for. It is for what may be done twice with the effect of once, which
// reading is, and Reserve, Release and Checkout of one order. A shop that took an unknown outcome for a failure would hold units for nobody.
func again(ctx context.Context, f func() error) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f()
		if !errors.Is(err, lockstep.ErrUnknownOutcome) && !errors.Is(err, lockstep.ErrUnavailable) {
			return err
		}
		select {
		case <-time.After(rand.N(pause)):
		case <-ctx.Done():
			return err
		}
	}
}

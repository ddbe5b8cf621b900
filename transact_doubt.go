package lockstep

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// settle asks until it is answered, or until the last of the caches is closed, and
// returns what the outcome is then. A cache that is closed before is let go: its
// keys are nobody's any more, and those of the others are still in doubt.
func (j *joint) settle(ask func(context.Context) (applied bool, err error)) error {
	wanted, cancel := context.WithCancel(context.Background())
	defer cancel()
	letGo := func(p jointPart) func() {
		return func() {
			if j.letGo(p) {
				cancel()
			}
		}
	}
	var stops []func() bool
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for _, p := range j.parts {
		stops = append(stops, context.AfterFunc(p.host().life, letGo(p)))
	}
	patience := patience{life: wanted, timeout: j.lead.timeout, logger: j.lead.logger, hopeless: func() {
		for _, p := range j.parts {
			stops = append(stops, context.AfterFunc(p.host().closing, letGo(p)))
		}
		<-wanted.Done()
	}}
	applied, lost := false, error(nil)
	err := patience.until(func(ctx context.Context) error {
		return aside("Settle", nil, func() (err error) {
			if applied, err = ask(ctx); errors.Is(err, ErrUnknownOutcome) {
				lost, err = err, nil // a Txn's word for "nobody will ever know"
			}
			return err
		})
	})
	switch {
	case err != nil:
		return err
	case lost != nil:
		return fmt.Errorf("%w: settled, but it cannot be told which way: %w", ErrUnknownOutcome, lost)
	case !applied:
		return fmt.Errorf("%w: the database did not commit it", ErrUnavailable)
	}
	return nil
}

// letGo ends the part of a cache that is closed while the outcome is unknown, and
// tells whether it is the last one: the transaction's goroutine ends that, so
// that it does not outlive its caches.
func (j *joint) letGo(p jointPart) (last bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := slices.Index(j.open, p)
	if i < 0 || len(j.open) == 1 {
		return i == 0
	}
	j.open = slices.Delete(j.open, i, i+1)
	p.abandon()
	p.release(errUnsettled)
	p.finished(errUnsettled, true)
	p.unblock()
	p.leave()
	return false
}

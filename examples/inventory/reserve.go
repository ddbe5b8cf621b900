package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// A reserving keeps units of an item for an order, until it is paid or the hold's time is
// over. With nil they are kept. There are two ways; neither ever promises more than there
// is, because both have the database decide whether the row is still what the rule has
// seen. Both may be called again for the same order.
type reserving func(ctx context.Context, order, item string, units int) (Hold, error)

// ReserveByUpdate is the way for programs: Update reads, asks the rule, and writes, and
// does so again when somebody else was faster. Buyers of one item in one process take
// turns, and so nobody's work is in vain.
func (s *Shop) ReserveByUpdate(ctx context.Context, order, item string, units int) (Hold, error) {
	h, err := s.offer(ctx, item, units)
	if err != nil {
		return Hold{}, err
	}
	stock, err := s.stock.Update(ctx, item, func(old Stock, exists bool) (Stock, error) {
		if !exists {
			return old, ErrNoSuchItem
		}
		return old.hold(order, h, time.Now())
	})
	return stock.Holds[order], err
}

// ReserveByVersion is the same by hand: a conditional write, of the version that was
// seen. It is the way where the one who looks and the one who writes are not the same
// call, as with a form that a person fills in; see Recount. Many buyers of one item make
// each other try again.
func (s *Shop) ReserveByVersion(ctx context.Context, order, item string, units int) (Hold, error) {
	h, err := s.offer(ctx, item, units)
	if err != nil {
		return Hold{}, err
	}
	const longest = 400 * time.Millisecond
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		seen, err := s.stock.GetEntry(ctx, item)
		if errors.Is(err, lockstep.ErrNotFound) {
			return Hold{}, ErrNoSuchItem
		} else if err != nil {
			return Hold{}, err
		}
		next, err := seen.Value.hold(order, h, time.Now())
		if errors.Is(err, lockstep.Keep) {
			return next.Holds[order], nil
		} else if err != nil {
			return Hold{}, err
		}
		_, err = s.stock.Set(ctx, item, next, lockstep.IfVersion(seen.Version))
		if err == nil {
			return next.Holds[order], nil
		}
		// An unknown outcome may have a conflict among its causes, and is not one.
		if errors.Is(err, lockstep.ErrUnknownOutcome) || !errors.Is(err, lockstep.ErrConflict) {
			return Hold{}, err
		}
		// Somebody was faster. Those who collided come back at different times.
		select {
		case <-time.After(rand.N(pause)):
		case <-ctx.Done():
			return Hold{}, ctx.Err()
		}
	}
}

func (s *Shop) offer(ctx context.Context, item string, units int) (Hold, error) {
	if units < 1 {
		return Hold{}, fmt.Errorf("an order of %d units is none", units)
	}
	price, err := s.Price(ctx, item)
	return Hold{Units: units, Price: price, Until: time.Now().Add(holdFor)}, err
}

// Release gives back what is held for an order that will not be paid.
func (s *Shop) Release(ctx context.Context, order, item string) error {
	_, err := s.stock.Update(ctx, item, func(old Stock, _ bool) (Stock, error) {
		if _, ok := old.Holds[order]; !ok {
			return old, lockstep.Keep
		}
		return old.without(order), nil
	})
	return err
}

// Stock puts an item on the shelf that was never there. It is ErrConflict if it was.
func (s *Shop) Stock(ctx context.Context, item string, units int) error {
	_, err := s.stock.Set(ctx, item, Stock{OnHand: units}, lockstep.IfAbsent())
	return err
}

// Look is what somebody sees who is about to count.
func (s *Shop) Look(ctx context.Context, item string) (lockstep.Entry[string, Stock], error) {
	return s.stock.GetEntry(ctx, item)
}

// Recount puts right how many units are on the shelf, for somebody who has looked, gone
// there, and counted. If anything was promised or sold since it is ErrConflict, and the
// count is worth nothing.
func (s *Shop) Recount(ctx context.Context, seen lockstep.Entry[string, Stock], counted int) error {
	if held := seen.Value.Held(time.Now()); counted < held {
		return fmt.Errorf("%d units of %s are held for buyers, and %d were counted", held, seen.Key, counted)
	}
	next := Stock{OnHand: counted, Holds: seen.Value.Holds}
	_, err := s.stock.Set(ctx, seen.Key, next, lockstep.IfVersion(seen.Version))
	return err
}

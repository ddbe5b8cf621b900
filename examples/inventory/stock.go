package main

import (
	"errors"
	"maps"
	"time"

	"github.com/lockstep-cache/lockstep"
)

var (
	ErrNoSuchItem = errors.New("there is no such item")
	ErrSoldOut    = errors.New("sold out")
	ErrNoHold     = errors.New("nothing is held for this order")
)

// Stock is what there is of one item: one row, so that whoever changes it has seen all of
// it. It has as many holds as there are buyers on their way to the till, and no more than
// units on hand. An item of which there are ten thousand, all of them in somebody's cart,
// had better be several rows, one for each shelf.
type Stock struct {
	OnHand int             `json:"on_hand"`
	Holds  map[string]Hold `json:"holds,omitempty"` // by order
}

// Hold keeps units for somebody who is about to pay.
type Hold struct {
	Units int       `json:"units"`
	Price Cents     `json:"price"` // of one, as it was shown to the buyer
	Until time.Time `json:"until"`
}

// Held is the number of units that are promised at that time.
func (s Stock) Held(now time.Time) (units int) {
	for _, h := range s.Holds {
		if now.Before(h.Until) {
			units += h.Units
		}
	}
	return units
}

// Available is the number of units that can be promised.
func (s Stock) Available(now time.Time) int { return s.OnHand - s.Held(now) }

// hold is the rule by which units are promised, whatever the way in which the row is
// written then. It changes nothing of s, which may be memory's own copy. A hold that is
// there already is lockstep.Keep: the buyer has not heard of it, and asks again.
//
// Holds whose time is over make room. The clock decides only when that is; who loses a
// hold to it finds out at the till, and nothing is sold twice.
func (s Stock) hold(order string, h Hold, now time.Time) (Stock, error) {
	if _, ok := s.Holds[order]; ok {
		return s, lockstep.Keep
	}
	if s.Available(now) < h.Units {
		return s, ErrSoldOut
	}
	next := Stock{OnHand: s.OnHand, Holds: map[string]Hold{order: h}}
	for other, h := range s.Holds {
		if now.Before(h.Until) {
			next.Holds[other] = h
		}
	}
	return next, nil
}

// without is s without the order's hold.
func (s Stock) without(order string) Stock {
	s.Holds = maps.Clone(s.Holds)
	delete(s.Holds, order)
	return s
}

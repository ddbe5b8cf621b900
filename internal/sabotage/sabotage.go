package sabotage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
)

// Names for what is of int and int64 throughout, as a history is.
type (
	store        = lockstep.Store[int, int64]
	cache        = lockstep.Cache[int, int64]
	options      = lockstep.Options[int, int64]
	capabilities = lockstep.Capabilities[int, int64]
	row          = lockstep.Row[int64]
	change       = lockstep.Change[int, int64]
	changeSet    = lockstep.ChangeSet[int, int64]
	outcome      = lockstep.Outcome[int64]
	settlement   = lockstep.Settlement[int64]
	page         = lockstep.Page[int, int64]
)

// Sabotage is a fault that is built in on purpose. The zero value is none.
type Sabotage struct {
	// Name is how a person asks for it: short, in small letters and hyphens.
	Name string
	// About says in one line what is broken, and what somebody sees of it.
	About string
	Needs Needs

	// only keeps the functions with which it shows; nil keeps all. Whatever else is
	// broken with them would be found first.
	only func(history.Table) history.Table
	// plain: no transactions, and one table.
	plain bool
	// slow: a load's answer is late now and then, which is nobody's fault, and leaves
	// room for a write where the database is quicker to read than to write.
	slow bool

	// What is broken, one of these. A store is handed out with a function that waits
	// for what it has under way on its own.
	store   func(inner store) (broken store, wait func())
	subject func(history.Subject) history.Subject
	open    func([]store, options) (history.Subject, Close, error)
	// around is no fault: it is how a program uses the cache, broken or not.
	around func(history.Subject, []store) history.Subject
}

// Needs is what it takes to show a sabotage, beside several callers who use a few
// keys at the same time.
type Needs struct {
	// LostReplies: the outcome of a commit is unknown now and then, and it was made.
	LostReplies bool
	// LostRequests: likewise, and it was not made.
	LostRequests bool
	// Failures: a commit fails now and then, and says so.
	Failures bool
	// Leavers: callers leave while their commit is under way.
	Leavers bool
	// Versions: the store keeps versions. Open refuses one that does not.
	Versions bool
	// Tables is the number of tables of one database; 0 for one. Open refuses fewer.
	Tables int
	// RealTime: it holds a mutex while the database works, and a testing/synctest
	// bubble, where nobody may wait for that, would hang.
	RealTime bool
}

// Close ends what Open has opened, and waits for it, or until ctx ends.
type Close func(ctx context.Context) error

// All returns every sabotage, in an order that stays: the textbook's faults in the
// order of their numbers, then the laws of lockstep.Store, then the cache's rules.
func All() []Sabotage {
	return slices.Concat(ofTextbook, ofLaws, ofRules)
}

// Find returns the sabotage of that name. The error lists the names there are.
func Find(name string) (Sabotage, error) {
	var names []string
	for _, s := range All() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Sabotage{}, fmt.Errorf("%w: there is no sabotage %q; there are: %s", lockstep.ErrInvalid, name, strings.Join(names, ", "))
}

// Mended is the same without what is broken: the cache as it is, with the functions
// with which the sabotage would show. It has the same name.
func (s Sabotage) Mended() Sabotage {
	s.store, s.subject, s.open = nil, nil, nil
	return s
}

// Open makes a cache, broken in that way, over each of the stores, which are tables
// of one database and have no rows; faults may have been put into them. Some
// sabotages use the first store alone. Nothing but the subject may use the stores
// until it is closed. A store that lacks what the sabotage needs is
// lockstep.ErrUnsupported.
func (s Sabotage) Open(stores []lockstep.Store[int, int64], o lockstep.Options[int, int64]) (history.Subject, Close, error) {
	if err := s.lacks(stores); err != nil {
		return history.Subject{}, nil, fmt.Errorf("sabotage %s: %w", s.Name, err)
	}
	stores = slices.Clone(stores)
	if s.plain {
		stores = stores[:1]
	}
	if s.slow {
		for i, inner := range stores {
			stores[i], _ = breaks(slowLoads)(inner)
		}
	}
	open := s.open
	if open == nil {
		open = s.ours
	}
	subject, end, err := open(stores, o)
	if err != nil {
		return history.Subject{}, nil, err
	}
	if s.subject != nil {
		subject = s.subject(subject)
	}
	if s.around != nil {
		subject = s.around(subject, stores)
	}
	if s.only != nil {
		for i, t := range subject.Tables {
			subject.Tables[i] = s.only(t)
		}
	}
	if s.plain {
		subject.Transact = nil
	}
	return subject, end, nil
}

func (s Sabotage) lacks(stores []store) error {
	if needed := max(1, s.Needs.Tables); len(stores) < needed {
		return fmt.Errorf("%w: it takes %d tables, and there are %d", lockstep.ErrUnsupported, needed, len(stores))
	}
	for i, store := range stores {
		can := store.Capabilities()
		if s.Needs.Versions && !can.Versions {
			return fmt.Errorf("%w: store %d (%s) keeps no versions", lockstep.ErrUnsupported, i, can.Name)
		}
		if s.Needs.Tables > 1 && can.Database == nil {
			return fmt.Errorf("%w: store %d (%s) shares no transactions", lockstep.ErrUnsupported, i, can.Name)
		}
	}
	return nil
}

// ours opens our caches, over stores that may be broken.
func (s Sabotage) ours(stores []store, o options) (history.Subject, Close, error) {
	var caches []*cache
	var waits []func()
	end := func(ctx context.Context) error {
		var errs []error
		for _, c := range caches {
			errs = append(errs, c.Close(ctx))
		}
		for _, wait := range waits {
			wait()
		}
		return errors.Join(errs...)
	}
	for _, store := range stores {
		if s.store != nil {
			broken, wait := s.store(store)
			store, waits = broken, append(waits, wait)
		}
		c, err := lockstep.New(store, o)
		if err != nil {
			return history.Subject{}, nil, errors.Join(err, end(context.Background()))
		}
		caches = append(caches, c)
	}
	return history.Caches(caches...), end, nil
}

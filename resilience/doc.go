// Package resilience makes a store fit for a database that is not always there.
// Each part is a lockstep.Store around a Store, so that they can be stacked and
// left out, and the cache does not know of them:
//
//	store, err := sqlitestore.Open[string, User](ctx, "app.db", sqlitestore.Options{})
//	…
//	protected, err := resilience.Protect(store, resilience.Policy{})
//	…
//	cache, err := lockstep.New(protected, lockstep.Options[string, User]{})
//
// Protect is all the parts with one Policy, whose zero value is a sound choice. A
// call of the cache goes through them from the top, and its answer comes back from
// below:
//
//	cache
//	  │
//	Retry      tries again what was not done, within the context and a budget
//	  │
//	Limit      waits for one of a number of places
//	  │
//	Breaker    refuses at once while the database does not answer
//	  │
//	Timeout    ends the call that takes too long
//	  │
//	store
//
// Each attempt thus has a place and a deadline of its own; what the breaker sees is
// the database and not a queue in front of it; and a call that hung is a failure that
// it sees.
//
// Stores of one database share a Guard, made once: its circuits, its budget and its
// places (ProtectWith).
//
// What the inner store can do beside Load and Commit, the outer one can do too. The
// parts surround Load, Scan, Commit and Begin. Settle, Watch and what happens inside a
// transaction pass by: what is in doubt is settled while a circuit is open and all
// places are taken.
//
// # Hooks and statistics
//
// The parts count what they do in the cache's Stats, and tell the functions of their
// policies whose names begin with On. Those run on a goroutine of the part's, one at a
// time, in the order in which things happened, with no lock held, and may call the cache.
// One that is slow delays the ones behind it and never a call of the store; when
// 65,536 events wait, further ones are dropped and counted in Stats.HooksDropped. A
// panic in one is logged, by slog.Default. Closing the cache does not wait for them.
//
// # Three kinds of error
//
// Everything here turns on one question: could the database have done it?
//
//   - Passing: it was not done, and doing it again may succeed. For a commit this
//     is lockstep.ErrUnavailable alone, by which a store says that it never sent
//     the commit or that the database rolled it back. For what only reads it is
//     any error that is not of the second kind, as reading twice does no harm.
//   - Permanent: it was not done, and doing it again will not help. The database
//     refused it (ErrInvalid, ErrTooLarge, ErrConflict), the store cannot do it
//     (ErrUnsupported), or nobody wants it any more (ErrClosed, an ended context).
//   - Unknown: it may have been done (ErrUnknownOutcome). It is never tried again
//     here, and the error is passed on as it is, for the cache to settle. Doing it
//     again first would undo what somebody else was told is written meanwhile.
//
// An error of several kinds is the worst of them: unknown before permanent
// before passing.
package resilience

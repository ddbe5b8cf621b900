// Package fault is a lockstep.Store around a Store that goes wrong on purpose:
// it fails, dawdles, hangs and panics, and it loses the requests and the replies
// of commits, so that the outcome of a write is really unknown to whoever made
// it. What goes wrong is written in a script, or arranged by a test that stops an
// operation at a chosen point. Without either it changes nothing, and keeps the
// contract of the store inside.
//
//	script, err := fault.ParseScript(`
//		commit 3:    lose reply            # applied, and nobody was told
//		commit 5:    lose reply, late      # applied later, if it is not settled first
//		commit 10%:  fail                  # not applied, and says so
//		commit *:    latency 1ms..5ms
//		load 2:      hang                  # until its context ends, or Release
//		settle 1..2: fail
//	`)
//	store := fault.Inject(inner, script, seed)
//
// # Scripts
//
// A script has a statement on each line, or several with semicolons between
// them; # starts a comment.
//
//	statement = operation which ":" fault { "," detail }
//	operation = "load" | "commit" | "settle" | "scan" | "begin" | "apply"
//	which     = N | N..M | N.. | "every" N | P% | "*"
//
// Operations of each kind are numbered from 1. The commit of a transaction is a
// commit like that of a batch. "every 4" is the 4th, the 8th and so on; P% is
// that part of them, drawn from the seed. The faults:
//
//	latency D, latency D..E   it takes that long more, part of it before the
//	                          database is asked and part after it has answered
//	fail                      the database is not asked: lockstep.ErrUnavailable
//	refuse                    likewise, for good: lockstep.ErrInvalid
//	hang, hang after          it waits, before or after the database, until its
//	                          context ends or Release lets it go on
//	panic, panic after        it panics, before or after the database
//	lose request              commits only: not applied, outcome unknown
//	lose reply                commits only: applied, outcome unknown
//
// lose takes details. "late", for a reply: the commit is not applied yet when it
// is called unknown; it is applied before some later operation, or by the time it
// is settled, or settling fences it off, as the seed decides. "forget rows": the settlement tells whether it was
// applied, and has no outcomes, unless a set without conditions was left out. "forget outcome": nothing can take effect any
// more, and what did is not known. A transaction's late commit is decided at
// once, for it would hold its locks until it is, and its settlement forgets
// nothing.
//
// Every statement that matches an operation takes part: latencies add up, and of
// the other faults the first one in the script happens. Draws depend on the seed,
// the kind and the number of the operation and on nothing else, so that a script
// with a seed is the same for every run that makes its operations in one order.
//
// A context that ends during a latency, a hang or a block ends the operation.
// Where that is after the database has committed, the reply is lost.
package fault

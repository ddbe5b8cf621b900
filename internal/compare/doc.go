// Package compare runs one workload through each pattern of caching, and measures what
// each of them costs and what it does not keep: lockstep compare.
//
// # How it works
//
// Every pattern has a table of its own and a program of its own (Program, in another
// process), one after the other. The program has clients that read and write as fast as
// they are answered. When it has been measured for long enough, it goes on and tells on a
// pipe of each write that it was answered for; then it is killed. Who has asked for the
// run (Run) hears that, starts the program once more for those patterns that have
// something to recover, and reads the table past all caches.
//
// # What is counted
//
// The rows of a key are numbers. Each key has one client that writes it, and each of its
// writes is one more than the one before: so the order of a key's writes is known, and
// to compare two numbers is to compare two moments.
//
// A stale read is one whose number is below that of a write which had been acknowledged
// before the read began. A lost write is one that had been acknowledged, and whose number
// is above that in the table after the crash.
//
// What is measured is the time between call and return, as the clients see it, which wait
// for one answer before they ask again: where a database is slow they ask less often.
// That is coordinated omission; the percentiles say what a call takes, and not what
// a queue of them would.
package compare

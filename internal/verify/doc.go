// Package verify breaks a program that uses Lockstep, in every way that it knows, and
// checks that the promise was kept all the same: lockstep verify.
//
// # How it works
//
// A run is a row of rounds. In each, a program of its own (Program, in another process)
// has caches over new tables of the database, and clients that call them at random
// (internal/history). It tells what they are about to write and what they were answered
// on a pipe, as it happens; so what a client was told is known when the program is killed
// in the next moment. The process that it tells is the judge (Run). It breaks the
// connections, the program and the server while the clients work; what goes wrong inside
// the program is arranged there (store/storetest/fault).
//
// When a program has come to its end, by itself or because it was killed, and the server
// has done with its sessions, the judge reads the tables past all caches. Then the program
// is started again, or the round is over and its history is checked. The history of a
// round is that of all its programs, and the judge's reads are a part of it: so one order
// has to explain what every client saw before and after each crash, and what was in the
// tables in between. That says, among other things, that each write that was acknowledged
// is in the database, each that was refused is not, and each that nobody knows of is there
// as a whole or not at all.
//
//	the judge                     the program
//	makes the tables
//	starts the program        →   caches, clients, faults inside
//	breaks things             ⇄   what clients intend, and what they are answered
//	kills it, or it ends
//	waits for its sessions
//	reads the tables
//	starts it again, or checks the round
//
// # What a seed decides
//
// The caches' options, the faults, when they come (by the number of what the program has
// told), and what each client asks for. Not when the database answers, nor in which order
// the system lets clients run: a seed that has failed fails again often, and not always.
//
// # What it cannot see
//
// A power cut: a program that is killed leaves what it has written in the system's
// memory. And the time between a crash and the next start is never shorter here than
// the server's sessions take to end: where a commit of a dead program is still under
// way at the server, one that was started again has no way to know of it.
package verify

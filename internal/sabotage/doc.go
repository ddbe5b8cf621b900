// Package sabotage breaks the cache on purpose, each time in one way, so that
// whatever looks for violations of its promise can be seen to find one. A check
// that has never failed has shown nothing.
//
// A sabotage is one of three things:
//
//   - the cache of package textbook in place of ours, with those of its functions
//     with which one of its faults shows;
//   - our cache over a store that breaks one law of lockstep.Store, and is for the
//     rest whatever store it was given, a real database's among them;
//   - our cache, and around it a program that breaks one of its rules.
//
// Nothing in the cache helps: it has no hook and no switch for this. What every
// sabotage has to do is to go wrong soon, whatever the database, so that a search
// that is given seconds can be expected to find it. What it takes from the world
// for that is its Needs.
//
// The zero Sabotage breaks nothing. It, and what Mended returns, are for
// comparison: a search that finds something there is wrong, or has found a bug.
package sabotage

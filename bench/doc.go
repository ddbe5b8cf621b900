// Package bench holds Lockstep beside its rivals, in one run on one machine.
//
// A benchmark has one sub-benchmark a case, and below that one a rival, named
// for it: BenchmarkWrite/writers=128/direct. Rivals of one case thus run one
// after the other, but for a lone writer's, who take turns of some writes each. Program paired runs everything in rounds, so that a machine
// which slows down slows all of them, and prints the ratios within the rounds.
// make bench is that program.
//
// Program redis holds lockstep serve beside Redis, by redis-benchmark.
//
// Program connections tells what 10,000 connections cost lockstep serve.
//
// Program soak puts one cache under load for half an hour, and looks for what grows.
//
// It is a module of its own, so that nobody who uses Lockstep gets a rival.
package bench

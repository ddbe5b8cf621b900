//go:build race

package lockstep_test

// The race detector makes a seed cost six times as much.
const simulationDefault = 1000

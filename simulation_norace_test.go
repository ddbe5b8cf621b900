//go:build !race

package lockstep_test

const simulationDefault = 4000

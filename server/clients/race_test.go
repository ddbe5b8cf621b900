//go:build race

package clients

// What the tests start is watched by the race detector too.
var buildFlags = []string{"-race"}

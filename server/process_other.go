//go:build !unix

package server

import "time"

// cpuTime, residentBytes and machineBytes are not told here.
func cpuTime() (system, user time.Duration) { return 0, 0 }

func residentBytes() uint64 { return 0 }

func machineBytes() uint64 { return 0 }

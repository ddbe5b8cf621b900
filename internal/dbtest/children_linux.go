package dbtest

import (
	"bytes"
	"os"
	"strconv"
)

// childrenOf returns the children of a process that have not ended. It reads
// /proc, because small images have no ps.
func childrenOf(pid int) (children []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue // not a process
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent ...; the name may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 || string(fields[0]) == "Z" || string(fields[0]) == "X" {
			continue
		}
		if string(fields[1]) == strconv.Itoa(pid) {
			children = append(children, child)
		}
	}
	return children, nil
}

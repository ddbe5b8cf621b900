package dbserver

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// The kernel is asked through /proc, because small images have no ps.

// childrenOf returns the children of a process that have not ended.
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
		if state, parent := stat(filepath.Join("/proc", entry.Name())); ended(state) || parent != strconv.Itoa(pid) {
			continue
		}
		children = append(children, child)
	}
	return children, nil
}

// stopped tells whether the kernel has stopped all threads of a process, which takes
// a moment from the signal on. A process that has ended is [os.ErrProcessDone].
func stopped(pid int) (bool, error) {
	tasks, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*"))
	if err != nil {
		return false, err
	}
	threads := 0
	for _, task := range tasks {
		switch state, _ := stat(task); {
		case ended(state):
		case state != "T":
			return false, nil
		default:
			threads++
		}
	}
	if threads == 0 {
		return false, os.ErrProcessDone
	}
	return true, nil
}

// stat is the state of a process or thread, "" when it is gone, and its parent's number.
func stat(dir string) (state, parent string) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return "", ""
	}
	// pid (name) state parent ...; the name may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return "", ""
	}
	return string(fields[0]), string(fields[1])
}

func ended(state string) bool { return state == "" || state == "Z" || state == "X" }

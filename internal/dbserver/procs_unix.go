//go:build unix && !linux

package dbserver

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// childrenOf returns the children of a process that have not ended.
func childrenOf(pid int) (children []int, err error) {
	err = each(func(process, parent int, state string) {
		if parent == pid {
			children = append(children, process)
		}
	})
	return children, err
}

// stopped tells whether the kernel has stopped a process, which takes a moment from the
// signal on. A process that has ended is [os.ErrProcessDone].
func stopped(pid int) (is bool, err error) {
	there := false
	err = each(func(process, _ int, state string) {
		if process == pid {
			there, is = true, strings.HasPrefix(state, "T")
		}
	})
	if err == nil && !there {
		err = os.ErrProcessDone
	}
	return is, err
}

// each calls f for each process that has not ended.
func each(f func(process, parent int, state string)) error {
	out, err := exec.Command("ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "state=").Output()
	if err != nil {
		return fmt.Errorf("ps: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || strings.HasPrefix(fields[2], "Z") {
			continue
		}
		process, err := strconv.Atoi(fields[0])
		if err != nil {
			return fmt.Errorf("ps: %w", err)
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			return fmt.Errorf("ps: %w", err)
		}
		f(process, parent, fields[2])
	}
	return nil
}

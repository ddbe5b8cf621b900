package verify

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// Fault is something that goes wrong.
type Fault string

// The faults that there are.
const (
	Latency    Fault = "latency"
	Errors     Fault = "errors"
	LostReply  Fault = "lost-replies"
	Hangs      Fault = "hangs"
	Cancelled  Fault = "cancelled-callers"
	Evictions  Fault = "evictions"
	Expiry     Fault = "expiry"
	Outside    Fault = "outside-changes"
	Cuts       Fault = "cuts"
	Stalls     Fault = "stalls"
	Pauses     Fault = "pauses"
	Kills      Fault = "kills"
	Stops      Fault = "server-stops"
	ServerKill Fault = "server-kills"
)

type description struct {
	Fault
	text  string
	needs need
}

var about = []description{
	{Latency, "loads and commits that take longer", nothing},
	{Errors, "errors before the commit: refused, or never sent", nothing},
	{LostReply, "errors after the commit: nobody is told what became of it, and some come late", nothing},
	{Hangs, "loads, commits and settlements that hang or fail", nothing},
	{Cancelled, "callers who leave before they are answered", nothing},
	{Evictions, "memory for very few entries", nothing},
	{Expiry, "copies and rows whose time is over", nothing},
	{Outside, "rows changed by another program, of which no cache is told", nothing},
	{Cuts, "connections to the server cut", network},
	{Stalls, "connections that carry nothing for a while, and then all of it", network},
	{Pauses, "the program stopped (SIGSTOP) and woken", signals},
	{Kills, "the program killed (SIGKILL) and started again", nothing},
	{Stops, "a process of the server, with PostgreSQL a session's, stopped (SIGSTOP) and woken", server},
	{ServerKill, "the database server killed (SIGKILL) and started again", server},
}

// need is what a fault cannot do without.
type need int

const (
	nothing need = iota
	network      // a server at an address
	server       // one that was started for the run
	signals      // an operating system that can stop a process
)

// FaultsHelp lists the faults, a line each, indented.
func FaultsHelp() string {
	var b strings.Builder
	for _, a := range about {
		fmt.Fprintf(&b, "  %-18s %s\n", a.Fault, a.text)
	}
	return strings.TrimRight(b.String(), "\n")
}

// choose returns the faults that are meant by a list of names, and those that "all"
// has to leave out.
func choose(names []string, address string, started bool) (chosen, left []Fault, err error) {
	lacks := func(n need) string {
		switch {
		case n == network && address == "":
			return "the database is not on a server with an address"
		case n == server && !started:
			return "the server was not started for the run (--start)"
		case n == signals && runtime.GOOS == "windows":
			return "there are no signals on this operating system"
		}
		return ""
	}
	if slices.Contains(names, "none") && len(names) > 1 {
		return nil, nil, fmt.Errorf("--faults: none is alone, or not there")
	}
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("--faults: it is empty; there are all, none, or a list")
	}
	for _, name := range names {
		if name == "all" {
			for _, a := range about {
				if lacks(a.needs) != "" {
					left = append(left, a.Fault)
				} else {
					chosen = append(chosen, a.Fault)
				}
			}
			continue
		}
		i := slices.IndexFunc(about, func(d description) bool { return string(d.Fault) == name })
		switch {
		case name == "none":
		case i < 0:
			return nil, nil, fmt.Errorf("--faults: there is none called %q; there are all, none, or a list of:\n%s", name, FaultsHelp())
		case lacks(about[i].needs) != "":
			return nil, nil, fmt.Errorf("--faults %s: %s", name, lacks(about[i].needs))
		default:
			chosen = append(chosen, about[i].Fault)
		}
	}
	slices.Sort(chosen)
	return slices.Compact(chosen), left, nil
}

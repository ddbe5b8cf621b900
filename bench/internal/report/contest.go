package report

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// RoundVariable is the environment's variable that has the number of the round, from 0.
const RoundVariable = "BENCH_ROUND"

// Contests are the results of all rounds, case by case.
type Contests struct {
	order []string // the cases, as they ran
	cases map[string]*contest
}

// contest is one case: what every rival measured in every round.
type contest struct {
	rivals []string
	units  []string
	// rounds[r][rival][unit] is the result of round r.
	rounds []map[string]map[string]float64
}

// Len is the number of cases.
func (m *Contests) Len() int { return len(m.order) }

// Add notes what a rival has measured in a round, which are counted from 0.
func (m *Contests) Add(round int, name, rival, unit string, value float64) {
	m.contest(name).add(round, rival, unit, value)
}

func (c *contest) add(round int, rival, unit string, value float64) {
	for len(c.rounds) <= round {
		c.rounds = append(c.rounds, map[string]map[string]float64{})
	}
	if !slices.Contains(c.rivals, rival) {
		c.rivals = append(c.rivals, rival)
	}
	if !slices.Contains(c.units, unit) {
		c.units = append(c.units, unit)
	}
	if c.rounds[round][rival] == nil {
		c.rounds[round][rival] = map[string]float64{}
	}
	c.rounds[round][rival][unit] = value
}

func (m *Contests) contest(name string) *contest {
	if m.cases[name] == nil {
		if m.cases == nil {
			m.cases = map[string]*contest{}
		}
		m.cases[name] = &contest{}
		m.order = append(m.order, name)
	}
	return m.cases[name]
}

// results are one rival's, in the order of the rounds.
func (c *contest) results(rival, unit string) (all []float64) {
	for _, round := range c.rounds {
		if value, ok := round[rival][unit]; ok {
			all = append(all, value)
		}
	}
	return all
}

// ratios are subject's results divided by rival's of the same round.
func (c *contest) ratios(subject, rival, unit string) (all []float64) {
	for _, round := range c.rounds {
		a, okA := round[subject][unit]
		b, okB := round[rival][unit]
		if okA && okB && b != 0 {
			all = append(all, a/b)
		}
	}
	return all
}

// Report prints a line for every rival and unit of every case, with the
// subject's ratio to it.
func (m *Contests) Report(w io.Writer, subject string) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "case\tunit\trival\tits median\t%s's\tratio\tlowest\thighest\n", subject)
	for _, name := range m.order {
		c := m.cases[name]
		for _, rival := range c.rivals {
			if rival == subject && len(c.rivals) > 1 {
				continue
			}
			for _, unit := range c.units {
				its := c.results(rival, unit)
				if len(its) == 0 {
					continue
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%.4g", name, unit, rival, median(its))
				if own := c.results(subject, unit); len(own) > 0 && rival != subject {
					fmt.Fprintf(table, "\t%.4g", median(own))
				} else {
					fmt.Fprint(table, "\t-")
				}
				if ratios := c.ratios(subject, rival, unit); len(ratios) > 0 && rival != subject {
					fmt.Fprintf(table, "\t%.2f\t%.2f\t%.2f\n", median(ratios), slices.Min(ratios), slices.Max(ratios))
				} else {
					fmt.Fprint(table, "\t-\t-\t-\n")
				}
			}
		}
	}
	table.Flush()
}

// median of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

package deepcopy

import (
	"fmt"
	"slices"
	"strings"
)

// refusal says why a value cannot be copied, and where it was met. The steps
// are added on the way out, innermost first: a plan is shared by all places in
// which its type occurs, and does not know where it is.
type refusal struct {
	reason string
	steps  []string
}

func refuse(format string, args ...any) error {
	return &refusal{reason: fmt.Sprintf(format, args...)}
}

// within adds the step that led to err.
func within(step string, err error) error {
	if r, ok := err.(*refusal); ok {
		r.steps = append(r.steps, step)
	}
	return err
}

func (r *refusal) Error() string {
	const ends = 8 // of a path that leads through a long list, only the ends tell something
	path := slices.Clone(r.steps)
	slices.Reverse(path)
	if len(path) > 2*ends {
		path = slices.Concat(path[:ends], []string{"…"}, path[len(path)-ends:])
	}
	return strings.Join(path, ".") + ": " + r.reason
}

package txconn

import (
	"context"
	"errors"
	"fmt"
)

// Call is a call that cannot be interrupted: Commit and Rollback of database/sql take no
// context, and wait for statements under way.
type Call struct {
	done chan struct{}
	err  error
}

// Start begins it.
func Start(f func() error) *Call {
	c := &Call{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = f()
	}()
	return c
}

// Wait returns what the call does, or an error that is Left when ctx ends before.
func (c *Call) Wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return leftError{fmt.Errorf("it has not returned: %w", context.Cause(ctx))}
	}
}

// Left says that the call goes on.
func Left(err error) bool { return errors.As(err, new(leftError)) }

type leftError struct{ error }

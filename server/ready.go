package server

import (
	"context"
	"errors"
	"fmt"
)

// readyKey is one that nobody has: whether it is there does not matter.
const readyKey = "lockstep:ready"

// Ready asks the store for a row, and returns nil when it answers. The error tells that the
// server has been shut down, or what the store said; ctx bounds how long it waits. A server
// without a store is ready until Shutdown.
func (s *Server) Ready(ctx context.Context) error {
	select {
	case <-s.stop:
		return errors.New("server: it is shut down")
	default:
	}
	if s.keys == nil {
		return nil
	}
	if _, err := s.options.Store.Load(ctx, []string{readyKey}); err != nil {
		return fmt.Errorf("server: asking the store: %w", err)
	}
	return nil
}

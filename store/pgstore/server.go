package pgstore

import "sync"

// server is the server behind a Database, by the moment when it was started. A
// failover or a restore may leave sessions at two of them: a watcher's at the old one,
// where nothing changes any more, and those of its cache's reads and writes at the
// new one. So it ends when a new session meets another server than it has.
type server struct {
	mu      sync.Mutex
	started int64
	changed chan struct{} // closed when it is another
}

// met notes the server of a new session.
func (s *server) met(started int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started == started {
		return
	}
	s.started = started
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// is tells whether the latest session was of this server, and returns a channel that
// is closed when one is not.
func (s *server) is(started int64) (same bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.started == started, s.changed
}

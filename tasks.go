package lockstep

import "sync"

// tasks counts the goroutines that a cache has started, so that Close can wait
// for them. Unlike a WaitGroup it may be told of new ones while it is waited for,
// and refuses them once it is closed.
type tasks struct {
	mu     sync.Mutex
	n      int // guarded by mu, as what follows
	closed bool
	idle   chan struct{}
}

func newTasks() *tasks { return &tasks{idle: make(chan struct{})} }

// begin returns false once the tasks are closed.
func (t *tasks) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.n++
	return true
}

func (t *tasks) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	if t.closed && t.n == 0 {
		close(t.idle)
	}
}

// close refuses new tasks. The channel is closed when the last one has ended.
func (t *tasks) close() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		if t.n == 0 {
			close(t.idle)
		}
	}
	return t.idle
}

func (t *tasks) running() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

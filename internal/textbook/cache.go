package textbook

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Options configures a Cache. Zero means: no bound, no expiry, no batches, no
// retries.
type Options struct {
	// MaxEntries bounds the number of entries, on the paths that remember to.
	MaxEntries int
	// TTL is how long an entry is served.
	TTL time.Duration
	// CleanupInterval is the time between two clean-ups; zero is a minute.
	CleanupInterval time.Duration

	// BatchSize, when above zero, sends Set through a queue that is written out
	// when it is that long, or BatchDelay after its first write.
	BatchSize  int
	BatchDelay time.Duration

	// MaxRetries, when above zero, makes Set try again that many times, after
	// RetryDelay and twice as long each time.
	MaxRetries int
	RetryDelay time.Duration
}

// Cache is the faulty cache. See the package's list.
type Cache[K comparable, V any] struct {
	store   lockstep.Store[K, V]
	options Options
	killed  chan struct{}
	kill    sync.Once

	mu      sync.RWMutex // guards what follows, and everything else that takes long
	entries map[K]*entry[V]
	stats   counters
	closed  bool

	flightMu sync.Mutex
	flights  map[K]*flight[V]

	queueMu sync.Mutex
	queue   []*queued[K, V]
	timer   *time.Timer
}

// errKilled is what those get who hung until Kill.
var errKilled = errors.New("textbook: killed while it hung")

// New returns a cache over store, and starts its clean-up goroutine.
func New[K comparable, V any](store lockstep.Store[K, V], options Options) *Cache[K, V] {
	if options.CleanupInterval <= 0 {
		options.CleanupInterval = time.Minute
	}
	c := &Cache[K, V]{
		store:   store,
		options: options,
		killed:  make(chan struct{}),
		entries: make(map[K]*entry[V]),
		flights: make(map[K]*flight[V]),
	}
	go c.cleanup()
	return c
}

// cleanup removes expired entries for ever.
//
// FAULT 11: nothing but Kill, which articles do not have, ends it; Close does
// not, and so the cache is never collected.
func (c *Cache[K, V]) cleanup() {
	ticker := time.NewTicker(c.options.CleanupInterval)
	for {
		select {
		case <-ticker.C:
			c.removeExpired()
		case <-c.killed:
			ticker.Stop()
			return
		}
	}
}

// Close makes later calls return ErrClosed. FAULT 11, FAULT 19: it stops
// neither the clean-up goroutine nor answers those who wait in the queue.
func (c *Cache[K, V]) Close(context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.queueMu.Lock()
	defer c.queueMu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	return nil
}

// Kill ends the clean-up goroutine and whatever hangs in the queue or in a
// load that panicked, so that a test that has shown the fault can end.
func (c *Cache[K, V]) Kill() {
	c.kill.Do(func() { close(c.killed) })
	c.Close(context.Background())
}

func (c *Cache[K, V]) isClosed() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.closed
}

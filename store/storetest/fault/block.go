package fault

import "sync"

// Point is a place where an operation can be stopped: before the database is
// asked, or when it has answered and the caller does not know it yet.
type Point uint8

// Each operation has two points. AfterCommit is where the database has committed
// and the cache has not heard of it; AfterLoad is where a row has been read and
// may be outdated by the time it arrives.
const (
	BeforeLoad Point = iota
	AfterLoad
	BeforeCommit
	AfterCommit
	BeforeSettle
	AfterSettle
	BeforeScan
	AfterScan
	BeforeBegin
	AfterBegin
	BeforeApply
	AfterApply
)

func point(op Op, after bool) Point {
	if after {
		return Point(2*op + 1)
	}
	return Point(2 * op)
}

// Block is a place in the way of one operation. See Store.Block.
type Block struct {
	// Reached is closed when an operation has arrived.
	Reached <-chan struct{}

	in      *injector
	at      Point
	keys    map[any]bool // nil for any
	reached chan struct{}
	pass    chan struct{}
	once    sync.Once
}

// Pass lets the operation go on. Before one has arrived it takes the block away.
// Calling it again does nothing, so that it can be deferred.
func (b *Block) Pass() {
	b.once.Do(func() {
		b.in.remove(b)
		close(b.pass)
	})
}

// names tells whether an operation names one of the block's keys. An operation
// that names none, as DeleteAll and Scan, is taken to name them all.
func (b *Block) names(keys []any) bool {
	if b.keys == nil || keys == nil {
		return true
	}
	for _, key := range keys {
		if b.keys[key] {
			return true
		}
	}
	return false
}

package lockstep

import "fmt"

// Mode is the pattern that a cache follows: what becomes of a write. The zero value is
// WriteThrough. What each promises is a table, docs/patterns.md.
type Mode uint8

const (
	// WriteThrough: a write is committed in the database, and memory then holds the row.
	WriteThrough Mode = iota
	// WriteAround: a write is committed in the database, and its rows then leave memory:
	// the next read loads them. It promises what WriteThrough promises. It is for rows
	// that are written more often than they are read, which would take the places of
	// others in memory, and for values that are too large to be kept before somebody asks
	// for them. The write option TTL is ErrUnsupported, for no copy is left.
	WriteAround
	// ReadOnly: the cache reads, by way of memory, and every write is ErrUnsupported. Who
	// writes the table by other means has to call Invalidate, or have the table watched;
	// or TTL bounds for how long that stays unseen. Transactions may read. The options
	// that are about writes alone are refused.
	ReadOnly
	// WriteBehind: a write is acknowledged from memory, and the database has it a little
	// later. Reads through the cache see it from then on. What is not there yet is lost
	// with the program: at most Behind.MaxWrites, and always the last ones, so that the
	// database holds what all writes up to some moment have made of it, less what it has
	// refused. With Behind.Journal a write is acknowledged when the journal has it, and none
	// of these is lost. A write that the
	// database refuses has been acknowledged by then: see Rejected, and Hooks.Rejected.
	// Flush and Close wait until the database has what was acknowledged; so do Scan,
	// ScanPage, Audit, Refresh and DeleteAll, each before it begins.
	//
	// Set returns version 0, and Delete whether memory knew of a row. Conditions, row
	// lifetimes and TTL of a write are refused, and so are Update, Insert and transactions:
	// they need an answer of the database's. Others may write the same rows only where it
	// does not matter that a flush overwrites, later, what they wrote meanwhile.
	WriteBehind
	// CacheAside: the program has no Store. It reads by GetWith and writes by WriteWith,
	// with functions of its own, and the cache keeps memory in step with those: one load of a
	// key at a time, and none that a write has met fills memory, which is how cache-aside
	// goes wrong by hand. New takes it with ByHand, and refuses the options that are about
	// writes, tables or loads of the cache's own. Peek, Invalidate, InvalidateAll, Stats, Close and
	// the hooks are as ever, all other calls ErrUnsupported. A write that fails may leave
	// its rows open, see WriteWith; TTL bounds what comes of that.
	CacheAside
)

var modeNames = [...]string{WriteThrough: "WriteThrough", WriteAround: "WriteAround", ReadOnly: "ReadOnly", WriteBehind: "WriteBehind", CacheAside: "CacheAside"}

func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// permitsRead, permitsWrite, permitsTable and permitsHand are nil if the mode makes the
// call, which is a method's name: one that reads, that writes, that is about what the store
// can do besides, or that brings a function of the program's.

func (m Mode) permitsRead(call string) error {
	if m == CacheAside {
		return fmt.Errorf("%w: %s in Mode %v, in which GetWith reads", ErrUnsupported, call, m)
	}
	return nil
}

func (m Mode) permitsWrite(call string) error {
	switch {
	case m == ReadOnly, m == WriteBehind && !writesBehind[call]:
		return fmt.Errorf("%w: %s in Mode %v", ErrUnsupported, call, m)
	case m == CacheAside:
		return fmt.Errorf("%w: %s in Mode %v, in which WriteWith writes", ErrUnsupported, call, m)
	}
	return nil
}

func (m Mode) permitsTable(call string) error {
	if m == CacheAside {
		return fmt.Errorf("%w: %s in Mode %v, in which the cache has no store", ErrUnsupported, call, m)
	}
	return nil
}

func (m Mode) permitsHand(call string) error {
	if m != CacheAside {
		return fmt.Errorf("%w: %s in Mode %v; it is for Mode %v", ErrUnsupported, call, m, CacheAside)
	}
	return nil
}

// writesBehind are the writes that need no answer of the database's, by the names that
// permitsWrite is called with: a method's, or a taker's. "Set in a transaction" is another
// name, and so refused.
var writesBehind = map[string]bool{"Set": true, "Delete": true, "SetMany": true, "DeleteMany": true, "DeleteAll": true}

// gather is gather for a cache of a mode.
func (c *Cache[K, V]) gather(options []WriteOption, by taker) (writeOptions, error) {
	if err := c.options.Mode.permitsWrite(by.name); err != nil {
		return writeOptions{}, err
	}
	w, err := gather(options, by)
	if err == nil && len(options) > 0 && c.options.Mode == WriteBehind {
		err = fmt.Errorf("%w: %s with %v in Mode %v", ErrUnsupported, by.name, options[0].kind, c.options.Mode)
	}
	if err == nil && w.ttl > 0 && c.options.Mode == WriteAround {
		err = fmt.Errorf("%w: %s with TTL in Mode %v, in which a write leaves no copy", ErrUnsupported, by.name, c.options.Mode)
	}
	return w, err
}

// contradicted names the options that cannot be followed in the mode.
func (o *Options[K, V]) contradicted() (names []string) {
	if o.Mode != ReadOnly && o.Mode != CacheAside {
		return nil
	}
	hand := o.Mode == CacheAside
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"MaxValueBytes", o.MaxValueBytes != 0}, {"CommitTimeout", o.CommitTimeout != 0},
		{"QueueLimit", o.QueueLimit != 0}, {"Validate", o.Validate != nil},
		{"Batch.MaxOps", o.Batch.MaxOps != 0}, {"Batch.MaxDelay", o.Batch.MaxDelay != 0}, {"Batch.InFlight", o.Batch.InFlight != 0},
		{"StaleIfError", hand && o.StaleIfError != 0}, {"RefreshAhead", hand && o.RefreshAhead != 0},
		{"AuditInterval", hand && o.AuditInterval != 0},
	} {
		if f.set {
			names = append(names, f.name)
		}
	}
	return names
}

package lockstep

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"
)

// Defaults of Options.
const (
	DefaultMaxEntries    = 100_000
	DefaultMaxValueBytes = 8 << 20
	DefaultCommitTimeout = 10 * time.Second
	DefaultQueueLimit    = 65_536
	DefaultBatchOps      = 512
	DefaultBatchBytes    = 32 << 20
)

// Options configures a Cache. The zero value is a sound choice for most
// programs.
type Options[K comparable, V any] struct {
	// Mode is the pattern that the cache follows. Zero means WriteThrough. Options that
	// contradict it are refused.
	Mode Mode

	// MaxEntries bounds memory by the number of entries; absent rows that are
	// remembered count. Zero means DefaultMaxEntries, unless MaxBytes is set. The
	// bound is soft: it may be exceeded by a few hundred entries for a moment.
	MaxEntries int

	// MaxBytes bounds memory by what Weigher adds up to. It excludes MaxEntries
	// and needs Weigher.
	MaxBytes int64

	// Weigher returns an entry's size in bytes; 0 counts as 1. For a remembered
	// absent row it is called with the zero value. It must be quick, must not
	// call the cache, and is called once for each copy.
	Weigher func(K, V) uint32

	// TTL is how long memory may answer for a copy, from the start of its load or
	// commit. It bounds how long a change made behind the cache's back stays
	// unseen. Zero means as long as the copy is there.
	TTL time.Duration

	// NegativeTTL is TTL for absent rows. Zero means TTL; below zero, absent rows
	// are not remembered and each read of one goes to the database.
	NegativeTTL time.Duration

	// StaleIfError is how long after its TTL a copy may still answer where the load that
	// should replace it fails with ErrUnavailable, or has not answered by the deadline of
	// the reader's context. (The name is RFC 5861's.) Only GetEntry answers so, and marks
	// it: Entry.Stale. Every other read, and every write, returns the error. Such a copy
	// is what the database held when it was last asked or written through this cache: no
	// write that the cache has acknowledged is missing from it, and what others have
	// changed since then is. A key in doubt, one that was invalidated, one whose table or
	// server is not known to be watched or to be the same, a row whose Lifetime is over
	// and an absent row are never answered so. Copies take their place in memory for that
	// much longer. Zero means never; it needs TTL.
	StaleIfError time.Duration

	// RefreshAhead is how long before the end of its TTL a copy that is read is loaded
	// anew, in the background. The copy answers meanwhile, its readers do not wait, and
	// one that goes on being read is not missed for its age, as long as its loads succeed in
	// time. Only what is read is loaded,
	// absent rows too, once at a time, up to 64 keys in a call of Store.Load and up to 4
	// such calls at once; what finds no place is left to its next reader. After a load that
	// failed an eighth of RefreshAhead passes before the next one, and the copy answers until
	// its TTL is over. A copy whose time is shorter than twice RefreshAhead, by NegativeTTL or
	// the write option TTL, is loaded anew in the second half of it. A row that will be over, by its
	// Lifetime, before its copy's TTL is not loaded anew. Zero means never; it
	// needs TTL, and is at most half of it.
	RefreshAhead time.Duration

	// MaxValueBytes is the largest encoded value that may be written; a larger
	// one is ErrTooLarge. Zero means DefaultMaxValueBytes. A store may have a limit
	// of its own; the lower of the two holds. It applies to stores
	// that encode values.
	MaxValueBytes int

	// CommitTimeout is the deadline of a commit, and how long a write may wait
	// for its commit to begin. Callers' contexts have no part in it. Zero means
	// DefaultCommitTimeout.
	CommitTimeout time.Duration

	// QueueLimit is the number of writes that may wait, transactions of several
	// caches that have not begun among them. One more is
	// ErrUnavailable at once. Zero means DefaultQueueLimit.
	QueueLimit int

	// Batch bounds group commit.
	Batch Batch

	// Behind bounds what Mode WriteBehind may keep from the database, and for how long.
	Behind Behind[K, V]

	// Clone returns a deep copy of a value. Set it when callers change the values
	// that they get: then every value that enters or leaves memory is copied, and
	// a hit costs a copy. Without it values are shared; Update and In(tx).Get
	// then copy by the type's own Clone method or by its structure, and return
	// ErrUnsupported for a type that can be copied in neither way.
	Clone func(V) V

	// Validate is called before anything is written. Its error is returned as
	// ErrInvalid, and nothing is written. For Insert the key is the zero value.
	Validate func(K, V) error

	// AuditInterval is how often 256 of the copies in memory are compared with their
	// rows while the program runs, all of memory in turn: 100,000 entries take 391
	// intervals. One that is not what the table holds is dropped, counted in
	// Stats.AuditDifferences, logged and told to Hooks.Difference. Each time costs
	// one Load of 256 keys. Zero means never.
	AuditInterval time.Duration

	// Hooks are told of events; see there.
	Hooks Hooks[K]

	// Logger takes what nobody is there to be told: a settlement that fails, a
	// panic in a hook. Nil means slog.Default().
	Logger *slog.Logger
}

// Batch bounds group commit. A batch is whatever queued up while the last one
// was under way; those that are under way at once are even shares of it.
type Batch struct {
	// MaxOps is the number of writes in a batch. Zero means what the store
	// advises, or DefaultBatchOps. It is less where their values come to more than
	// the store advises, or DefaultBatchBytes.
	MaxOps int
	// MaxDelay lets a batch wait that long to fill up. Zero means not at all,
	// which is best for all but databases that charge by the transaction.
	MaxDelay time.Duration
	// InFlight is the number of batches under way at once. Zero means what the
	// store advises, or 1.
	InFlight int
}

// resolve checks the options, naming every field that is wrong, and fills in the
// defaults.
func (o Options[K, V]) resolve(advice BatchAdvice) (Options[K, V], error) {
	var errs []error
	refuse := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w option: "+format, append([]any{ErrInvalid}, args...)...))
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"MaxEntries", int64(o.MaxEntries)}, {"MaxBytes", o.MaxBytes}, {"TTL", int64(o.TTL)},
		{"StaleIfError", int64(o.StaleIfError)}, {"RefreshAhead", int64(o.RefreshAhead)},
		{"MaxValueBytes", int64(o.MaxValueBytes)}, {"CommitTimeout", int64(o.CommitTimeout)},
		{"QueueLimit", int64(o.QueueLimit)}, {"Batch.MaxOps", int64(o.Batch.MaxOps)},
		{"Batch.MaxDelay", int64(o.Batch.MaxDelay)}, {"Batch.InFlight", int64(o.Batch.InFlight)},
		{"AuditInterval", int64(o.AuditInterval)},
	} {
		if f.value < 0 {
			refuse("%s is negative", f.name)
		}
	}
	if o.MaxEntries > 0 && o.MaxBytes > 0 {
		refuse("MaxEntries and MaxBytes exclude each other")
	}
	if o.MaxBytes > 0 && o.Weigher == nil {
		refuse("MaxBytes needs Weigher")
	}
	if o.Weigher != nil && o.MaxBytes == 0 {
		refuse("Weigher needs MaxBytes")
	}
	if o.StaleIfError > 0 && o.TTL == 0 {
		refuse("StaleIfError needs TTL, without which no copy expires")
	}
	switch {
	case o.RefreshAhead > 0 && o.TTL == 0:
		refuse("RefreshAhead needs TTL, without which no copy expires")
	case o.TTL > 0 && o.RefreshAhead > o.TTL/2:
		refuse("RefreshAhead (%v) is more than half of TTL (%v)", o.RefreshAhead, o.TTL)
	}
	if int(o.Mode) >= len(modeNames) {
		refuse("there is no %v", o.Mode)
	}
	for _, name := range o.contradicted() {
		refuse("%s contradicts Mode %v", name, o.Mode)
	}
	o.Behind.resolve(o.Mode, o.Batch, advice, refuse)
	orDefault := func(field *int, values ...int) {
		for _, v := range values {
			if *field == 0 {
				*field = v
			}
		}
	}
	orDefault(&o.MaxValueBytes, DefaultMaxValueBytes)
	orDefault(&o.QueueLimit, DefaultQueueLimit)
	orDefault(&o.Batch.MaxOps, advice.MaxOps, DefaultBatchOps)
	orDefault(&o.Batch.InFlight, advice.InFlight, 1)
	if o.MaxBytes == 0 {
		orDefault(&o.MaxEntries, DefaultMaxEntries)
	}
	if o.CommitTimeout == 0 {
		o.CommitTimeout = DefaultCommitTimeout
	}
	if o.Batch.MaxDelay > 0 && o.Batch.MaxDelay >= o.CommitTimeout {
		refuse("Batch.MaxDelay is not below CommitTimeout")
	}
	if o.NegativeTTL == 0 {
		o.NegativeTTL = o.TTL
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, errors.Join(errs...)
}

// WriteOption is a condition or a lifetime of one write.
type WriteOption struct {
	kind    writeOptionKind
	version Version
	d       time.Duration
	at      time.Time
}

type writeOptionKind uint8

const (
	optIfVersion writeOptionKind = iota + 1
	optIfAbsent
	optLifetime
	optExpiresAt
	optTTL
)

func (k writeOptionKind) String() string {
	return [...]string{optIfVersion: "IfVersion", optIfAbsent: "IfAbsent", optLifetime: "Lifetime", optExpiresAt: "ExpiresAt", optTTL: "TTL"}[k]
}

// IfVersion makes the write only if the row exists with that version. The
// database decides; otherwise the error is a *ConflictError.
func IfVersion(v Version) WriteOption { return WriteOption{kind: optIfVersion, version: v} }

// IfAbsent makes the write only if there is no row. Like IfVersion it needs a
// store that keeps versions.
func IfAbsent() WriteOption { return WriteOption{kind: optIfAbsent} }

// Lifetime ends the row's life that long after the commit, by the database's
// clock, to the microsecond: it is then gone for every reader. A write without
// it makes a row that stays.
func Lifetime(d time.Duration) WriteOption { return WriteOption{kind: optLifetime, d: d} }

// ExpiresAt ends the row's life at that moment of the database's clock, to the
// microsecond. One that is over already makes a row that is gone for every reader. It
// excludes Lifetime, which is for ends that are counted from the commit.
func ExpiresAt(t time.Time) WriteOption { return WriteOption{kind: optExpiresAt, at: t} }

// TTL takes the place of Options.TTL for the copy that this write leaves in
// memory. It does not touch the row, and is forgotten with the copy.
func TTL(d time.Duration) WriteOption { return WriteOption{kind: optTTL, d: d} }

// writeOptions is a write's options taken together.
type writeOptions struct {
	expect    Expect
	lifetime  time.Duration
	expiresAt time.Time
	ttl       time.Duration
}

// taker is what options are given to, and says which it takes.
type taker struct {
	name  string
	takes optionSet
}

type optionSet [optTTL + 1]bool

var (
	ofSet    = taker{"Set", optionSet{optIfVersion: true, optIfAbsent: true, optLifetime: true, optExpiresAt: true, optTTL: true}}
	ofUpdate = taker{"Update", optionSet{optLifetime: true, optExpiresAt: true, optTTL: true}}
	ofInsert = taker{"Insert", optionSet{optLifetime: true, optExpiresAt: true, optTTL: true}}
	// What a joined transaction writes leaves no copy in memory.
	ofJoinedSet = taker{"Set in a joined transaction", optionSet{optIfVersion: true, optIfAbsent: true, optLifetime: true, optExpiresAt: true}}
	ofTxSet     = taker{"Set in a transaction", optionSet{optIfVersion: true, optIfAbsent: true, optLifetime: true, optExpiresAt: true, optTTL: true}}

	ofTxDelete = taker{"Delete in a transaction", optionSet{optIfVersion: true}}

	ofJoinedDelete = taker{"Delete in a joined transaction", optionSet{optIfVersion: true}}

	ofDelete = taker{"Delete", optionSet{optIfVersion: true}}
)

func gather(options []WriteOption, by taker) (w writeOptions, err error) {
	var seen optionSet
	for _, o := range options {
		switch {
		case o.kind == 0:
			return w, fmt.Errorf("%w option: the zero WriteOption", ErrInvalid)
		case !by.takes[o.kind]:
			return w, fmt.Errorf("%w option: %s does not take %s", ErrInvalid, by.name, o.kind)
		case seen[o.kind]:
			return w, fmt.Errorf("%w option: %s is given twice", ErrInvalid, o.kind)
		}
		seen[o.kind] = true
		switch o.kind {
		case optIfVersion:
			w.expect = Expect{Kind: ExpectVersion, Version: o.version}
		case optIfAbsent:
			w.expect = Expect{Kind: ExpectAbsent}
		case optLifetime:
			if o.d < time.Microsecond {
				return w, fmt.Errorf("%w option: Lifetime(%v) is under a microsecond", ErrInvalid, o.d)
			}
			w.lifetime = o.d
		case optExpiresAt:
			if o.at.IsZero() {
				return w, fmt.Errorf("%w option: ExpiresAt of the zero time", ErrInvalid)
			}
			w.expiresAt = o.at
		case optTTL:
			if o.d <= 0 {
				return w, fmt.Errorf("%w option: TTL(%v) is not above zero", ErrInvalid, o.d)
			}
			w.ttl = o.d
		}
	}
	if seen[optIfVersion] && seen[optIfAbsent] {
		return w, fmt.Errorf("%w option: IfVersion and IfAbsent exclude each other", ErrInvalid)
	}
	if seen[optLifetime] && seen[optExpiresAt] {
		return w, fmt.Errorf("%w option: Lifetime and ExpiresAt exclude each other", ErrInvalid)
	}
	return w, nil
}

// saturate adds a duration to a clock reading without wrapping around.
func saturate(nanos int64, d time.Duration) int64 {
	if d > 0 && nanos > math.MaxInt64-int64(d) {
		return math.MaxInt64
	}
	return nanos + int64(d)
}

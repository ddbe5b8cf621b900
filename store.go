package lockstep

import (
	"context"
	"time"
)

// Version orders the states of one row. Where a store keeps versions
// (Capabilities.Versions), every committed change of a key gives it a higher
// version than any it had before, deletions included, across restart, eviction
// and re-creation. Versions of different keys are not related. A store that
// keeps none reports 0 for every row.
type Version int64

// Store is what a cache needs from a database. It is bulk first, so that
// GetMany, joined loads, group commit, transactions and conditional writes all
// travel through the same two methods.
//
// # The law
//
// An implementation must keep the following; package store/storetest checks it.
//
//  1. Load sees every commit that was acknowledged, by anyone, before Load was
//     called. A replica that lags is not a Store.
//
//  2. A nil error from Commit, and a nil Err in a set's Outcome, mean that the
//     set is durable and visible to every Load that starts afterwards.
//
//  3. A set is all or nothing. One set never decides the fate of another: a set
//     whose expectations or checks fail, or which the database refuses, is left
//     out, its Outcome says why, and the rest of the batch is committed.
//
//  4. Sets take effect in the order given, also where two of them name one key.
//
//  5. An error from Commit means that nothing was applied and nothing will be,
//     unless errors.Is(err, ErrUnknownOutcome). A store that cannot be sure
//     says unknown; it never guesses.
//
//  6. After Settle has answered for an unknown outcome, nothing of that commit
//     takes effect later than the answer.
//
//  7. Outcome.Rows holds what Load would return, not what the caller passed.
//
//  8. Versions grow per key, in commit order, for as long as the table exists.
//     What a deletion leaves behind may be forgotten after a day, and in a table
//     that is not the store's own at once; the clock then takes its place.
//
//  9. Two keys that differ by Go's == are two rows; two that are equal are one.
//
//  10. A row whose lifetime is over is absent, for Load, for expectations and
//     for checks, from that moment by the database's clock. Deleting it is still
//     a change of its version, or a clock that is set back would bring back what
//     was deleted; deleting a row that was deleted before is none.
//
//  11. Both methods may be called from many goroutines at once, return soon
//     after their context ends (but see Patient), and keep neither the slices
//     nor the maps that they were given.
//
//  12. What the store does not declare in its Capabilities it refuses with
//     ErrUnsupported, and leaves no trace of.
//
//  13. A change with Insert is alone in its set, with neither checks nor
//     expectations, or the set is refused with ErrInvalid; Apply refuses it with
//     ErrUnsupported. It makes a row that was not there, or is refused: it never
//     changes one that is. Where it was committed its Outcome has the key.
//
// Values that pass through a Store belong to the receiver: a store neither
// keeps a reference into a value that it was given nor returns one that it will
// change.
type Store[K comparable, V any] interface {
	// Load returns what the database holds for the keys: rows and, where the
	// store keeps them, tombstones with their version. A key that is not in the
	// map has no row. An error means that nothing is known about any of the keys.
	// One that is ErrInvalid or ErrTooLarge is taken for the refusal of some key
	// or row, and the others are asked for again without it.
	Load(ctx context.Context, keys []K) (map[K]Row[V], error)

	// Commit applies the change sets, in order, in one durable transaction and
	// returns one Outcome for each of them. See the law above for what its error
	// and each Outcome mean.
	Commit(ctx context.Context, sets []ChangeSet[K, V]) ([]Outcome[V], error)

	// Capabilities tells what else the store can do. It is cheap, and always
	// returns the same answer.
	Capabilities() Capabilities[K, V]
}

// Patient tells a store that the one who called Commit with ctx waits, at no
// cost, until what was sent to the database has come back, even beyond the end of
// ctx: the cache does, which answers its own callers in time whatever a store
// does. A store whose calls cannot be interrupted, as an embedded database's
// cannot, then need not leave them behind on another goroutine. It must still
// send nothing more once ctx has ended.
func Patient(ctx context.Context) bool {
	patient, _ := ctx.Value(patientKey{}).(bool)
	return patient
}

type patientKey struct{}

// Hasty tells a store that is Immediate that the one who called Commit with ctx
// wants it done at once, on this goroutine, or not at all: where the commit would
// have to wait for anybody, it answers ErrWouldWait, and has done nothing.
func Hasty(ctx context.Context) bool {
	hasty, _ := ctx.Value(hastyKey{}).(bool)
	return hasty
}

type hastyKey struct{}

// Parting tells a store whose Outcomes may be Blocked that the one who called Commit with
// ctx would have a set left out, rather than wait for a row that somebody else holds
// locked, also where it is the only one. The cache does, but for a DeleteAll: a batch of
// one that waited would keep a place for which writes of other keys wait.
func Parting(ctx context.Context) bool {
	parting, _ := ctx.Value(partingKey{}).(bool)
	return parting
}

type partingKey struct{}

// Row is what the database holds for one key.
type Row[V any] struct {
	// Value is the row's value; the zero value when Exists is false.
	Value V
	// Version is the row's, or its tombstone's, version; 0 where none is kept.
	Version Version
	// Exists is false for a key without a row, and for a tombstone.
	Exists bool
	// ExpiresAt is when the row's lifetime is over, by the database's clock;
	// zero for a row that stays until it is deleted.
	ExpiresAt time.Time
	// Remaining is ExpiresAt less the database's clock at the moment it
	// answered. It spares the cache a comparison between two machines' clocks.
	// It means nothing while ExpiresAt is zero.
	Remaining time.Duration
}

// Change is one row's new state.
type Change[K comparable, V any] struct {
	Key K
	// Insert makes a new row whose key the database gives: Key is ignored, and
	// Outcome.Keys tells what it was.
	Insert bool
	// Delete removes the row; Value, ExpiresAt and Lifetime are then ignored.
	// Deleting a row that is not there is no error.
	Delete bool
	Value  V
	// Expect is the condition under which the change is made.
	Expect Expect
	// ExpiresAt ends the row's lifetime at a moment of the database's clock.
	ExpiresAt time.Time
	// Lifetime, when above zero, ends the row's lifetime that long after the
	// commit, by the database's clock; ExpiresAt is then ignored. With neither,
	// the row stays until it is deleted, whatever lifetime it had before.
	Lifetime time.Duration
	// Prepared is whatever Capabilities.Prepare left here for Commit.
	Prepared any
}

// ExpectKind says what an Expect demands.
type ExpectKind uint8

const (
	// ExpectAnything makes the change whatever the row is.
	ExpectAnything ExpectKind = iota
	// ExpectAbsent makes the change only if the key has no row.
	ExpectAbsent
	// ExpectVersion makes the change only if the row exists with that version.
	ExpectVersion
)

// Expect is what a change demands of the row it finds. It is decided by the
// database, in the transaction that makes the change. The zero value demands
// nothing.
type Expect struct {
	Kind    ExpectKind
	Version Version
}

// Check is one row that a transaction has read, and which must still be the
// same when the transaction commits.
type Check[K comparable] struct {
	Key K
	// Version is the version that was read. Stores that keep versions compare
	// it; ignored when Absent is set.
	Version Version
	// Absent says that no row was found.
	Absent bool
	// Value is the value that was read, a V. Stores that keep no versions
	// compare it with the row. It is shared, and must not be changed.
	Value any
}

// ChangeSet is a group of changes that is applied as a whole or not at all.
type ChangeSet[K comparable, V any] struct {
	// Changes names each key at most once.
	Changes []Change[K, V]
	// Checks may name keys that Changes names too. A set with checks alone is a
	// transaction that only reads.
	Checks []Check[K]
	// DeleteAll deletes every row of the table. Such a set is alone: one that has
	// changes or checks, too, is refused with ErrInvalid. The cache sends it in a
	// batch of its own.
	DeleteAll bool
}

// Outcome is what became of one ChangeSet.
type Outcome[V any] struct {
	// Rows[i] is the row as the database now holds it, for Changes[i]. A store
	// that cannot tell what a row has become leaves Rows nil, and the cache
	// drops the keys.
	Rows []Row[V]
	// Keys[i] is the key, a K, that the database gave Changes[i]. It is nil for a set
	// without Insert.
	Keys []any
	// Existed[i] tells whether a row was there before Changes[i]. It may be nil
	// for a set without deletions.
	Existed []bool
	// Err is nil when the set was committed. Otherwise it was left out: a
	// *ConflictError when an expectation or a check failed, an error that is
	// ErrInvalid when the database refused the set, one that is ErrUnavailable
	// when it could not be tried. It is never ErrUnknownOutcome.
	Err error
	// Blocked, beside an Err that is ErrUnavailable, says that the set was left out
	// because somebody else holds a row of it locked, and the rest of the batch was
	// not made to wait for it. The cache then commits it apart: a store waits for
	// locks as long as its context lasts where it was given one set, and only for a
	// moment where it was given several, or the caller is Parting.
	Blocked bool
}

// Capabilities says what a store can do beside Load and Commit. It is a value,
// and not a set of interfaces, so that a Store around a Store passes on what it
// does not change. The zero value is a store that can do nothing else; what a
// store cannot do, the cache refuses with ErrUnsupported.
type Capabilities[K comparable, V any] struct {
	// Name is the store's kind, for logs, errors and statistics: "sqlite".
	Name string

	// ReadOnly stores refuse every write.
	ReadOnly bool
	// Versions: rows carry versions that grow, and Expect is honoured.
	Versions bool
	// Checks: Check is honoured, by version where Versions is set and else by
	// value. Update and Transact need it.
	Checks bool
	// Atomic: a set of several changes is one transaction, whatever it mixes.
	// Without it a set holds either one change, or several that set values and
	// expect nothing.
	Atomic bool
	// Tombstones: Load reports the version of a deleted row.
	Tombstones bool
	// Lifetimes: ExpiresAt and Lifetime of a Change are honoured.
	Lifetimes bool
	// DeleteAll: a ChangeSet may ask for it.
	DeleteAll bool
	// Inserts: the database gives keys, and a Change may be an Insert.
	Inserts bool

	// Immediate: Commit honours Hasty, and then waits for nothing but a disk of this
	// machine. The cache runs a write that finds nothing else queued or under way on
	// the goroutine of its caller, which spares two hand-overs, a tenth of a durable
	// write; such a caller cannot leave before the disk has answered. A Store around
	// a Store whose Commit may wait for something of its own leaves it unset.
	Immediate bool

	// Interruptible: Commit returns soon after its context ends, whatever the
	// database does, and Settle can tell what came of it. The cache then runs a write
	// that finds nothing else queued or under way on the goroutine of its caller, as
	// with Immediate, under a context that ends with the caller's; but not for callers
	// who have less than a second left, for whom an interrupted commit, which costs a
	// connection and a settlement, would be no rare thing.
	Interruptible bool

	// Batch is what the store advises for group commit. Zero fields stand for
	// 512 sets, 32 MiB and one commit at a time.
	Batch BatchAdvice

	// Prepare, when set, is called with every change before it is queued, on the
	// goroutine of the caller whose change it is. It returns the change as
	// Commit shall have it: Value as Load would return it, sharing nothing with
	// the caller's, and whatever was encoded on the way in Prepared. Size is the
	// encoded value's in bytes. An error refuses the write; it is ErrInvalid or
	// ErrTooLarge and names the key or the field.
	Prepare func(c Change[K, V]) (prepared Change[K, V], size int, err error)

	// Clone, when set, returns a deep copy of a value that Load returned.
	Clone func(v V) (V, error)

	// Settle ends an unknown outcome: it makes sure that nothing of the commit
	// that returned err can take effect any more, and then finds out what did.
	// It is called after that Commit has returned, and again, with back-off,
	// when it fails. Without it an unknown outcome stays unknown: the keys are
	// read from the database, and writes on them are refused.
	Settle func(ctx context.Context, err error) (Settlement[V], error)

	// Scan returns the table page by page: from the start when cursor is nil,
	// and from where the last page ended when it is that page's Next. A page has
	// at most limit rows. Each page sees every commit acknowledged before it was
	// asked for; the pages together are not a snapshot.
	Scan func(ctx context.Context, cursor any, limit int) (Page[K, V], error)

	// Table identifies the table, for stores that can tell: equal, non-nil values are
	// one table, of which two caches would not hear of each other's writes. It must be
	// comparable.
	Table any

	// Database names the database, for stores whose rows can be changed in one
	// transaction. Stores with equal, non-nil values accept each other's Txn. It
	// must be comparable. A wrapper that wraps the Txn gives another value.
	Database any
	// Begin opens a transaction of that database.
	Begin func(ctx context.Context) (Txn, error)
	// Apply makes a set's changes inside a transaction, after locking and
	// checking what the set expects. What the database refuses because of the
	// set is the Outcome's Err; an error beside it is the transaction's. Either
	// leaves the transaction fit for nothing but Rollback.
	Apply func(ctx context.Context, txn Txn, set ChangeSet[K, V]) (Outcome[V], error)
	// Read is Load inside a transaction, which sees its own changes. It locks nothing.
	// Where it is set the store can take part in a transaction that the program began
	// (Join).
	Read func(ctx context.Context, txn Txn, keys []K) (map[K]Row[V], error)

	// Watch tells f what is changed in the table by others, until ctx ends. Its first
	// call of f, with nothing perhaps, says that whatever is committed from then on
	// will be told; no change is left out after that, and none is told before it is
	// committed. It returns when it cannot go on, and never calls f afterwards; the
	// cache then calls it again. f is quick. What the store itself has committed need
	// not be told, and may be.
	Watch func(ctx context.Context, f func(Event[K])) error

	// Replaced, when set, has f called whenever the store finds that its server is not
	// the one it was: another one has taken over, an older copy was restored, or it was
	// started again. f has returned before what the new one says is returned by anything,
	// and from then on nothing is asked of the one before. f is quick, and calls nothing
	// of the store's. After stop it is not called any more.
	Replaced func(f func()) (stop func())

	// Report, when set, adds the store's own counters to the cache's statistics.
	Report func(*Stats)
}

// BatchAdvice is what a store knows about its own commits.
type BatchAdvice struct {
	// MaxOps is the number of sets in a batch beyond which it gains nothing.
	MaxOps int
	// MaxBytes is the size, as Prepare tells it, of all values of a batch together
	// beyond which the next set waits for the next batch. A set that is larger goes
	// alone.
	MaxBytes int
	// InFlight is the number of batches that are worth having under way at once.
	InFlight int
}

// Settlement is what became of a commit whose outcome was unknown.
type Settlement[V any] struct {
	// Applied: the transaction was committed, and Outcomes are what Commit would
	// have returned; nil where the store has lost them. Then all sets without
	// conditions were committed, and it is not known which of the others were.
	Applied  bool
	Outcomes []Outcome[V]
	// Err says that nothing of the commit can take effect any more, but that it
	// cannot be told what did.
	Err error
}

// Page is a part of a table, in an order of the store's own.
type Page[K comparable, V any] struct {
	Keys []K
	Rows []Row[V]
	// Next is where the next page starts; nil after the last.
	Next any
}

// Txn is an open transaction of a database. It belongs to one goroutine. One that
// wraps another has a method Unwrap() Txn.
type Txn interface {
	// Commit ends the transaction. Its error means what Store.Commit's does.
	Commit(ctx context.Context) error
	// Rollback ends the transaction without effect. It does nothing after Commit.
	Rollback(ctx context.Context) error
	// Settle does for an unknown Commit what Capabilities.Settle does for a
	// batch: it returns when nothing can take effect any more, and tells whether
	// the transaction did. An error that is ErrUnknownOutcome says that nothing can
	// take effect any more, but that it cannot be told what did.
	Settle(ctx context.Context) (applied bool, err error)
}

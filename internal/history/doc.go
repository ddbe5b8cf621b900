// Package history checks what concurrent callers saw of a cache: it records their
// calls, and tells whether one order of all of them explains every answer.
//
// # What is checked
//
// A history is linearizable if its operations can be put in an order such that
//
//   - an operation that had returned before another was called comes before it;
//   - each of them sees the rows as those before it left them, starting with none.
//
// That is the cache's promise: a write that was acknowledged is seen by every
// read that starts afterwards, and nobody who has seen a row sees an older one.
//
// An operation is a set of rows that it saw and a set of rows that it wrote, both
// at one moment between its call and its return:
//
//	Get, GetEntry, Peek, Exists   one row seen, or its absence
//	GetMany, Scan                 an operation for each row, or absence, as each
//	                              has a moment of its own
//	Set, Delete                   one row written; a deletion has seen whether
//	                              there was one
//	IfVersion, IfAbsent           the row expected is seen, the new one written
//	ErrConflict                   the row found is seen, and is not as expected
//	SetMany, DeleteMany, DeleteAll
//	                              all rows written at one moment
//	Update                        the old row seen, the new one written
//	Transact                      all reads and all writes at one moment; the reads
//	                              alone where its function gave up
//	In(tx).Get, Update's function each read also by itself: it may be undone, but
//	                              was never of a moment before the call
//	Lifetime                      its end is an operation too, at its moment: the
//	                              row is absent if it is still the one written, or
//	                              one that an Update has made of it
//
// Invalidations, refreshes, evictions and the like are not operations. They
// happen, and must not show.
//
// Every write has a value of its own, so that who reads a value names the write
// that it saw. Versions are checked with it: a value has one version and a version
// one value, and those of a key grow in the order of its writes, deletions
// included.
//
// # Writes that nobody was told of
//
// A write that was said not to be applied is in no order, and nobody may have
// seen it. One whose outcome is unknown may be at any moment after its call, or at
// none; whole, as a transaction, and once. When the cache settles it, that is
// held against the cache: settled as applied, it came before the settlement;
// settled as not applied, it came never; settled without an answer, it came before
// the settlement or never. If anybody saw a part of it, it came.
//
// # What makes a check sound
//
// Stamps: if a return is stamped below a call, it was before it; see Clock. A
// history of one table, or of all that take part in a transaction, is checked as
// one, since an order for each key alone is not yet an order for all. The search is
// porcupine's, over the model in model.go. Two things keep it short, and neither
// can change its answer: of the writes whose versions are known only one order is
// tried, and a read that can come now is not tried later (see eager). A search that
// runs out of time is ErrUndecided, which is no verdict; a test should fail on it.
//
// What fails is cut down to a few operations that fail by themselves (see reduce).
//
// What is not checked: that a call returns at all, and that a write which could be
// made was made.
package history

// Package lockstep is a write-through cache: it sits between a program and its
// database and keeps the two in step.
//
// # The promise
//
// A nil error from a write means that the database has committed it, and that no
// read that starts afterwards sees anything older. A write that did not happen
// says so. A write whose outcome nobody can know says that too, and the cache
// stops answering for that key from memory until the database has settled it.
//
// Options.Mode chooses another pattern, and WriteBehind promises less: there a nil error
// means that every read through this Cache sees the write, and the database has it later.
// What this page says of writes is about the other modes. Package journal keeps such
// writes on a disk meanwhile.
//
// The scope of the promise is reads through this Cache. Rows that somebody else
// changes, another process or a person at the database's own prompt, are seen
// when the copy in memory has reached its TTL or is invalidated; conditional
// writes, Update and Transact are right even then, because the database decides
// them.
//
// # What a write says, and what memory does
//
//	what happened                       the caller gets              memory, for the key
//	----------------------------------  ---------------------------  ----------------------------------
//	committed                           nil and the version          holds what the database now holds;
//	                                                                 after a transaction of several caches,
//	                                                                 or one that the program began (Join),
//	                                                                 and in Mode WriteAround always, nothing,
//	                                                                 and the next read loads it
//	refused before it was queued        not applied: ErrInvalid,     untouched
//	                                    ErrTooLarge, ErrUnsupported,
//	                                    ErrInTransaction, ErrClosed
//	no place in the queue, or waited    not applied: ErrUnavailable  untouched
//	there for CommitTimeout
//	caller left while it was queued     not applied: its context's   untouched
//	                                    error
//	caller left, or CommitTimeout or    not applied: its context's   dropped
//	Close came, before the commit of    error, ErrUnavailable or
//	several caches was sent             ErrClosed
//	a condition did not hold            not applied: ErrConflict     dropped
//	database refused it                 not applied: ErrInvalid      untouched *
//	database could not be reached       not applied: ErrUnavailable  untouched *
//	caller left during the commit       ErrUnknownOutcome            dropped; set right when the commit
//	                                                                 returns
//	commit ran into CommitTimeout       ErrUnknownOutcome            dropped; set right when it returns
//	the reply was lost                  ErrUnknownOutcome            dropped and in doubt until settled
//	a joined transaction was ended by   ErrUnknownOutcome            dropped and in doubt until settled
//	the driver's own Commit or Rollback
//	a joined transaction was forgotten  not applied: ErrUnavailable  dropped until it is rolled back
//	the store panicked in a commit, or  ErrUnknownOutcome            dropped and in doubt until settled
//	ended its goroutine (t.FailNow)
//	Close ran out of time               as above, or not applied:    empty
//	                                    ErrClosed
//
// (*) Where the set had several keys, one that it only checked among them, those
// that it writes have left memory when it was sent; see below. So has every key
// when DeleteAll was.
//
// Every error of a write is a *WriteError. Whatever is not ErrUnknownOutcome was
// not applied. An unknown write is settled in the background; WriteError.Wait
// tells how.
//
// # What a read says
//
//	what happened                       the caller gets
//	----------------------------------  --------------------------------------------------
//	memory has a copy                   the copy; the database is not asked, even while it
//	                                    is away
//	memory has none                     the row, from one load however many readers wait
//	there is no such row                ErrNotFound, which memory remembers too
//	the row cannot be read              ErrInvalid, for the readers of that key
//	the cache is closed                 ErrClosed
//	the context is a transaction's      ErrInTransaction; In(tx) is for that
//	the load failed                     the store's error, to all who waited for that load
//	the store refused one of the keys   the store's error, to those who asked for that key
//	the store panicked in the load, or  an error, to all who waited for that load
//	ended its goroutine (t.FailNow)
//	the reader's context ended          its error; the load goes on while others wait
//
// With Options.StaleIfError, GetEntry answers with a copy whose TTL is over where the
// database cannot be asked, or has not answered by the reader's deadline, and marks it:
// Entry.Stale. No other read does, and no write goes by such a copy.
//
// # States of a key
//
// A key is idle, loading, or busy. It is busy from before its write is sent to
// the database until the outcome is in memory, and in doubt, which is busy for
// longer, while the outcome is unknown. The rules that keep the promise:
//
//   - While a key is busy, no load of it fills memory, and a reader shares only a
//     load that starts after it asked. An old copy may go on answering until the
//     commit is known; its readers come before the write. Keys that are written
//     several at a time leave memory when they become busy, so nobody sees half.
//   - The write is acknowledged after memory has been set right.
//   - A key travels to the database in one batch at a time, so what is published
//     last was committed last.
//   - Whoever reads rows past memory (Scan, Refresh, Audit, a transaction's
//     validation, a conflict) removes older copies before reporting.
//   - Memory holds what the store's Load would return, never what the caller
//     passed.
//   - A caller who stops waiting does not stop the write.
//
// A hit takes no lock and allocates nothing. No lock is held while the database
// works.
//
// # Values
//
// The values that Get returns are shared by all readers and must not be changed;
// set Options.Clone for types whose values are. Update and In(tx).Get hand out
// private copies in any case.
//
// # Modes
//
// The tables are those of Mode WriteThrough, and of WriteAround where they say so. In
// Mode ReadOnly every write is ErrUnsupported. In WriteBehind a write is acknowledged
// from memory, before the database has it. In CacheAside the program
// reads and writes the database by functions of its own, given to GetWith and WriteWith,
// and an error of such a function is its caller's, as it is: what it has left open is
// bounded by the TTL. What each mode does not make is ErrUnsupported.
//
// # Layout
//
// Cache is in cache.go; the read path in read.go, the write path in write.go,
// transactions in transact.go. Store, in store.go, is the contract with a
// database.
package lockstep

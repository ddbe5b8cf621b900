// Package textbook is the write-through cache that articles print, faults and
// all. It exists to be measured and caught: a regression test that shows that
// the real cache does not have a fault is worth something only if it finds the
// fault here. Never use it for anything else, and never repair it.
//
// It runs over the same lockstep.Store as the real cache and has the same
// methods where it has them at all, so that one scenario runs over both. On a
// sunny day, with one caller, it works.
//
// Each fault is marked in the code, at its place, by its number:
//
//  1. A reader that missed puts the old row back over a write that was
//     acknowledged meanwhile. (read.go)
//  2. Readers that share a load get a value older than a write acknowledged
//     before they asked. (read.go)
//  3. One lock is held while the database works. (write.go)
//  4. A hit takes the write lock to note the access time. (read.go)
//  5. Versions are compared in memory only; what is not there matches. (write.go)
//  6. Versions start again at 1 after a reload, a retry, and a delete. (memory.go, retry.go)
//  7. A batch is a loop of single writes, waits for its timer, and runs under
//     one caller's context. (batch.go)
//  8. A failed write that was committed leaves the old value in memory. (write.go)
//  9. A retry sleeps without looking at the context, and has no jitter. (retry.go)
//  10. Eviction scans every entry; replacing an entry evicts another. (memory.go)
//  11. The clean-up goroutine never stops. (cache.go)
//  12. A batch that fails half-way leaves memory with what the database does not
//     have. (write.go)
//  13. A transaction becomes visible one key at a time. (transact.go)
//  14. A panic in a load leaves every waiter hanging. (read.go)
//  15. Two writers with the same expected version both pass. (write.go)
//  16. An invalidation is undone by a load that was under way. (read.go)
//  17. Caller and cache share one mutable value. (memory.go)
//  18. The batch, retry and version paths forget the size bound. (memory.go)
//  19. A caller in the queue cannot leave; closing strands the queue. (batch.go)
//  20. A permanent error is retried like a passing one. (retry.go)
//  21. A row that does not exist is looked up every time. (read.go)
//  22. Averages divide by zero, and hide every tail. (stats.go)
//
// What hangs here would hang a test's process too; [Cache.Kill] lets it go.
package textbook

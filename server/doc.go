// Package server speaks the Redis protocol with many clients at once, over a cache whose
// writes are in the database when they are answered. It has the commands about connections,
// strings, hashes, keys and channels, transactions, and client-side caching. There are no
// lists, sets, sorted sets, streams and scripts, and one database, 0.
//
// # What a command about keys says
//
//	what happened                         the reply
//	------------------------------------  ------------------------------------------------------
//	the write is committed                Redis's
//	not applied, and may be tried again   -UNAVAILABLE, and why: no database, a full queue, the
//	                                      server's end, others who changed the key again and again
//	nobody knows whether it was applied   -UNKNOWN, and why; the key is then read from the database
//	                                      until it is settled, and writes of it wait for that
//	a value or a key that is too large    -ERR too large: …, which names the limit
//	the store cannot do it                -ERR not supported: …
//	a read of a key that memory has not,  -UNAVAILABLE, and why
//	while the database is away
//
// Whatever is not -UNKNOWN was not applied. A key's end (EXPIRE, SET EX) is its row's: it is
// gone for every reader at its time by the database's clock. One that is counted from now on
// is counted from the commit. It must be in the year 9999 at the latest.
//
// A command that reads a key and writes it (INCR, APPEND, SET NX, GETDEL, HSET, EXPIRE GT) is one
// step for everybody, other processes over the same table included: the database refuses
// the write if somebody else has changed the row, and it is decided again. MSET, MSETNX and
// DEL of several keys, RENAME and COPY are one transaction.
//
// Consecutive writes of a pipeline whose replies are short are run beside each other, those
// of one key in order, so that they share commits. Each is committed and becomes visible by
// itself: a reader elsewhere may see a later one before an earlier one of another key. What
// follows them in the pipeline runs when all have been answered.
//
// LOCKSTEP.GETV and LOCKSTEP.SETV read and write a string by its row's version; a SETV
// whose version is not the row's answers -CONFLICT, and the version found. LOCKSTEP.AUDIT
// compares memory with the tables, and LOCKSTEP.STATUS tells what the caches have done.
//
// The commands between MULTI and EXEC are one transaction of the database: all of them are
// committed or none, what they have read is checked, and the replies are of one moment. An
// error of one of them, of the wrong type for example, is its reply, and the others are
// committed; -UNAVAILABLE and -UNKNOWN are said of EXEC. Commands about the connection are
// run once, when it is committed. What is about the whole table is refused inside MULTI.
// MGET outside of MULTI is one look at each key: beside an EXEC it may see one key from
// before it and another from after it.
//
// Where Options.Tables names tables that exist, their rows are hashes: users:42. A column that
// is NULL is a field that is not there, and what a column does not take is an error that names
// it. A row that an EXEC makes has its columns' defaults when that is committed, and none for
// what is behind it in the EXEC. KEYS and SCAN tell of tables, after the keys; DBSIZE,
// RANDOMKEY and FLUSHALL do not touch them, nor do commands about strings, ends, RENAME and
// COPY. A table has one name: two would have two caches, neither of which hears of the other's
// writes.
//
// DBSIZE, KEYS and RANDOMKEY read the whole table. A hash is one row: HGET looks through it,
// and a write of any of its fields writes all of it.
//
// # A connection's life
//
//	state      what it does                          what ends it
//	---------  ------------------------------------  ---------------------------------------------
//	refused    is told that there are too many       at once
//	open       its requests are run in order, one    the peer leaves; QUIT; CLIENT KILL; a request
//	           goroutine for each connection         that is none; a time-out; a panic
//	drained    (Shutdown) what had been read of it   its last reply is sent
//	           is still answered
//	closing    the last replies are sent, then its   the peer closes its half, or a second is over
//	           end; what still comes is thrown away
//
// Requests that have come together are run together: their replies are built whole, in
// memory, and sent with one write (or, beyond 1 MiB, with a few).
//
// # Messages
//
// What one connection has another one sent (PUBLISH) is whole, never inside a reply, and
// not before what was said of the subscription, nor behind what was said of its end. All
// who hear two messages hear them in the same order. A publisher is answered when the message
// is in the queue of everybody who has subscribed; who is disconnected by then, or falls
// too far behind, loses it: there is no other delivery than that.
//
// # Client-side caching
//
// A connection that tracks (CLIENT TRACKING, in all of Redis's modes) is told of each write
// to what it has read. Before a write is answered, that is in the socket of every such
// connection, or the connection is closed; and values and invalidations come in order on
// each. So after a round trip on its own connection a client holds nothing that is older
// than any write acknowledged before the round trip began. That includes writes of unknown
// outcome, and rows that end; what other programs write it is told when the cache hears of
// it, by a watch for one.
//
// With REDIRECT, invalidations come on another connection than values, and a client must
// not keep a value whose invalidation has come since it asked for it.
//
// # Who is slow stops nobody else
//
//	a peer that                                is bounded by
//	-----------------------------------------  ------------------------------------------------------
//	says nothing                               Options.IdleTimeout, if any, and 8 KiB or so of memory
//	does not end its TLS handshake             ten seconds
//	does not say who it is                     Options.AuthTimeout, 10 arguments, 16 KiB for each
//	sends a request a byte at a time           Options.RequestTimeout
//	announces what it does not send            what it sends: an announcement costs nothing
//	does not read its messages                 Options.OutputLimit, 32 MiB; publishers never wait
//	does not take an invalidation              Options.InvalidationTimeout, 100 ms, for which
//	                                           a write may wait; it is closed then
//	takes each invalidation just in time       a second of that in ten seconds; it is closed then
//	does not read its replies                  Options.WriteTimeout, 1 MiB of replies and the one that
//	                                           is being built; it is read from no further until then
//	asks for one value again and again         Limits.MaxRequest for the values of one reply (MGET, HMGET)
//	connects again and again                   Options.MaxClients
//
// # What fails
//
//	what                                what the peer sees         what the server does
//	----------------------------------  -------------------------  -----------------------------------
//	unknown command, wrong arguments    an error, as Redis's       goes on
//	a request that is none              an error, then the end     closes that connection
//	an HTTP request                     the end                    closes that connection, and logs
//	TLS where there is none             an error, then the end     closes that connection, and logs
//	no TLS where there is               an error, then the end     closes that connection, and logs
//	a TLS handshake that fails          the end                    closes that connection, and logs
//	its user is gone (UsersChanged)     the end                    closes that connection
//	a panic in a command                the end                    closes that connection, and logs
//	no more file descriptors            it waits to be accepted    tries again, from 5 ms to 1 s later
//	a failing listener                  -                          Serve returns the error
//	Shutdown's context ends             the end                    closes all connections
//
// A peer that closes its half of the connection has what it sent before answered.
package server

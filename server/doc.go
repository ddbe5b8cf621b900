// Package server speaks the Redis protocol with many clients at once. What it has now is
// connections: accepting them, pipelines, authentication, the table of commands and the
// commands about connections. Commands that store anything are not here yet.
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
// # Who is slow stops nobody else
//
//	a peer that                                is bounded by
//	-----------------------------------------  ------------------------------------------------------
//	says nothing                               Options.IdleTimeout, if any, and 2 KiB or so of memory
//	does not say who it is                     Options.AuthTimeout, 10 arguments, 16 KiB for each
//	sends a request a byte at a time           Options.RequestTimeout
//	announces what it does not send            what it sends: an announcement costs nothing
//	does not read its replies                  Options.WriteTimeout, 1 MiB of replies and the one that
//	                                           is being built; it is read from no further until then
//	connects again and again                   Options.MaxClients
//
// # What fails
//
//	what                                what the peer sees         what the server does
//	----------------------------------  -------------------------  -----------------------------------
//	unknown command, wrong arguments    an error, as Redis's       goes on
//	a request that is none              an error, then the end     closes that connection
//	an HTTP request                     the end                    closes that connection, and logs
//	a panic in a command                the end                    closes that connection, and logs
//	no more file descriptors            it waits to be accepted    tries again, from 5 ms to 1 s later
//	a failing listener                  -                          Serve returns the error
//	Shutdown's context ends             the end                    closes all connections
//
// A peer that closes its half of the connection has what it sent before answered.
package server

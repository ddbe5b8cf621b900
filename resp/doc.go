// Package resp reads and writes the Redis protocol, RESP2 and RESP3. It knows nothing of
// commands, connections or the cache.
//
// A server reads requests with a [Reader] and builds replies with a [Writer]; a client, a
// test or a tool makes requests with [AppendRequest] and reads replies with a [Decoder].
//
// # Requests
//
// The peer is hostile until shown otherwise. What it can make a Reader hold is bounded by
// [Limits], and by what it has really sent: a length that it announces allocates nothing.
//
//	what comes                               what Next returns
//	---------------------------------------  ------------------------------------------------
//	a whole request                          its arguments, slices of the reader's own buffer
//	the beginning of one                     nil: Fill reads more of it
//	an empty line, *0, *-1                   nothing: it is passed over, as Redis does
//	what is no request; a length, a number   *ProtocolError, from then on: where the next
//	of arguments or a line beyond a limit    request would begin is not known any more
//	the end, or a failure, of the source     Fill's error; what came before it is still there
//
// Requests are read as Redis 7.0 reads them, lax where it is: of the two bytes that end a
// line only the first is looked at, and of those that end an argument none. Three things
// differ. A NUL byte in a line is an error at once, where Redis goes on reading until
// 64 KiB have come: it is how a TLS handshake on the wrong port begins. The number of
// arguments has a limit (Redis 7.0 takes 2,147,483,647), and so has a request as a whole,
// with an error where Redis closes the connection without a word.
//
// # Replies
//
// One Writer serves both versions: what RESP2 has no type for is written as Redis writes
// it for a client that speaks RESP2. A reply is appended to a slice of bytes; nothing here
// does I/O but [Reader.Fill] and [Decoder.Decode].
//
// A Decoder is strict where a Reader is lax: what it accepts, [Value.AppendTo] writes back
// byte for byte.
package resp

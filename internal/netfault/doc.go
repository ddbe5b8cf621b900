// Package netfault breaks the network between clients and a server.
//
// A [Proxy] passes bytes on, and knows no protocol: a connection through it must not be
// encrypted. It cuts connections, all of them or the one on which something is said, and
// it lets answers, or everything, wait.
//
// # What matches
//
// A match is on the bytes that a client sends, however they are spread over
// packets, and exact. It must not be longer than 1024 bytes. Bytes that were passed on
// before the rule was made do not count, nor do those in which another rule was met. The
// first rule made is the first one met.
//
// What a client sends is not what the program wrote:
//
//   - pgx ends transactions with "commit", go-sql-driver/mysql with "COMMIT".
//   - A statement with arguments is prepared first. The prepared statement's text
//     travels in a message of its own, once for a connection, and is answered
//     before anything is executed; the message that executes it has the name of the
//     statement (pgx) or its number (mysql), and the arguments. So a rule that means
//     the execution matches a marker in an argument: text and bytes travel verbatim
//     in both protocols.
//   - A statement without arguments is sent as text, and executed at once; but pgx's
//     Query and QueryRow prepare those too.
//
// # What is an answer
//
// The answer to a message is what the server sends first after the message was
// passed on. With a client that waits for each answer, which is what both drivers
// do except for batches (pgx.Batch, pipelines), that is the answer to this
// message; after a COMMIT the server has committed, or has failed to.
//
// # What a server knows of a cut
//
// A server learns that its client is gone when it next reads, which is when it has done
// what it was asked to do: the session that was cut off in a commit may still commit. So
// the proxy closes only its half of the server's connection, reads what still comes, and
// counts the connection until the server has closed its own; [Proxy.AwaitServer] waits for
// that. Closing both halves would leave nobody who could tell.
//
// A driver may end such a session by itself: for a connection that it has lost, pgx asks
// the server, over a new one by way of the proxy, to cancel what is under way.
package netfault

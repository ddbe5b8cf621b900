package resp

import "fmt"

// What Limits are where they say nothing.
const (
	DefaultMaxArgs    = 1 << 20
	DefaultMaxBulk    = 512 << 20
	DefaultMaxRequest = 1 << 30

	DefaultUnauthenticatedArgs = 10
	DefaultUnauthenticatedBulk = 16 << 10
)

// MaxLine is the largest line, in bytes and without its end: an inline request, or the
// header of an array or a bulk string.
const MaxLine = 64 << 10

// Limits bounds what a peer can make a [Reader] hold. Zero means the default, which is
// Redis's where Redis has one. A negative one is the program's error, and allows nothing.
type Limits struct {
	// MaxArgs is the number of arguments of a request, the command's name among them.
	MaxArgs int

	// MaxBulk is the size of one argument in bytes. Redis calls it proto-max-bulk-len.
	MaxBulk int

	// MaxRequest is the size of a request as it was sent, in bytes. Redis calls it
	// client-query-buffer-limit.
	MaxRequest int

	// UnauthenticatedArgs and UnauthenticatedBulk take the place of MaxArgs and MaxBulk,
	// where they are lower, for peers who have not said who they are: see
	// [Reader.SetAuthenticated]. They do not apply to inline requests, which MaxLine
	// bounds for everybody.
	UnauthenticatedArgs, UnauthenticatedBulk int
}

func (l Limits) withDefaults() Limits {
	for _, field := range []struct {
		limit *int
		value int
	}{
		{&l.MaxArgs, DefaultMaxArgs},
		{&l.MaxBulk, DefaultMaxBulk},
		{&l.MaxRequest, DefaultMaxRequest},
		{&l.UnauthenticatedArgs, DefaultUnauthenticatedArgs},
		{&l.UnauthenticatedBulk, DefaultUnauthenticatedBulk},
	} {
		if *field.limit == 0 {
			*field.limit = field.value
		}
	}
	return l
}

// ProtocolError says that what came is not of the protocol, or is beyond a limit. Nothing
// that follows can be read.
type ProtocolError struct {
	// Reason is the text that a Redis would send: "invalid bulk length".
	Reason string
}

// Error is the reply that Redis sends, without its code: "Protocol error: …".
func (e *ProtocolError) Error() string { return "Protocol error: " + e.Reason }

func protocolError(format string, args ...any) error {
	return &ProtocolError{Reason: fmt.Sprintf(format, args...)}
}

package server

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
)

// Defaults of Options.
const (
	DefaultMaxClients     = 10_000
	DefaultAuthTimeout    = time.Minute
	DefaultRequestTimeout = 5 * time.Minute
	DefaultWriteTimeout   = time.Minute
	DefaultOutputLimit    = 32 << 20

	DefaultInvalidationTimeout = 100 * time.Millisecond
	DefaultTrackedKeys         = 1_000_000
)

// Options configures a Server. The zero value serves everybody who can reach it, which is
// sound on the loopback only.
type Options struct {
	// Users returns the user of that name, and whether there is one. Who has not said who
	// it is, is the user "default"; if that one has a password, nothing but AUTH, HELLO,
	// QUIT and RESET is run before it is given. It is called by many goroutines, for each
	// AUTH, and should be quick. Nil means that there is the user "default", without a
	// password, and nobody else.
	Users func(name string) (User, bool)

	// Store is where keys are: each is a row, whose Lifetime is the key's. A SQL store is
	// to be opened with the codec raw. It has to keep versions and check them, as all of
	// ours do. The server does not close it. Nil makes a server without keys, which
	// answers all commands about them with an error.
	Store lockstep.Store[string, Value]

	// Cache configures the cache over Store, which the server opens, and Shutdown closes.
	// StaleIfError and Clone must not be set, and its Mode is neither WriteBehind nor
	// CacheAside: what the server answers is committed.
	Cache lockstep.Options[string, Value]

	// Tables are tables that exist, whose rows are hashes. They need a Store beside them. A
	// key that begins with the name of one and a colon is a row of it, and no key in Store.
	Tables []Table

	// MaxClients is the number of connections that may be open. One more is told so, and
	// closed. Zero means DefaultMaxClients.
	MaxClients int

	// IdleTimeout closes a connection of which no whole request has come for so long.
	// Zero means never.
	IdleTimeout time.Duration

	// AuthTimeout closes a connection whose peer had to say who it is and has not. Zero
	// means DefaultAuthTimeout.
	AuthTimeout time.Duration

	// RequestTimeout is how long one request may be under way, from its first bytes to
	// its last. It bounds those who send a byte at a time, and those with a large value
	// and a slow line. Zero means DefaultRequestTimeout.
	RequestTimeout time.Duration

	// WriteTimeout is how long a peer may leave a mebibyte of replies unread before its
	// connection is closed; it may be half as long. Zero means DefaultWriteTimeout.
	WriteTimeout time.Duration

	// OutputLimit is how many bytes of messages that nobody has asked for just now may wait
	// for a connection whose peer does not read them: of channels, and invalidations. One
	// more, and the connection is closed, which is logged. Zero means DefaultOutputLimit,
	// which is Redis's hard limit for subscribers. Replies are not part of it.
	OutputLimit int

	// InvalidationTimeout is how long the replies to a write may be kept back by a
	// connection that tracks keys (CLIENT TRACKING) and whose peer does not take what it is
	// sent: until then the invalidation is with the kernel, or the connection is closed.
	// It is that much only where the kernel's buffers are full. Who has kept writers waiting
	// for ten times as long together is closed, too; a hundredth of the time that goes by is
	// forgiven. Zero means DefaultInvalidationTimeout.
	InvalidationTimeout time.Duration

	// TrackedKeys is of how many keys it is known who may have a copy. Beyond it some key is
	// invalidated for one more. Redis calls it tracking-table-max-keys. Zero means
	// DefaultTrackedKeys.
	TrackedKeys int

	// KeyspaceEvents are the classes of keyspace notifications that are published, as Redis
	// writes them in notify-keyspace-events, which CONFIG SET changes: "KEA" for all that
	// there are, "" for none. Of keys whose time is over (x) those are told that memory
	// has, when it removes them, some two seconds later.
	KeyspaceEvents string

	// Limits bounds requests.
	Limits resp.Limits

	// Logger is told of panics, of connections that are no Redis client's and of accepting
	// that fails. Nil means slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.MaxClients < 0 {
		return o, fmt.Errorf("server: Options.MaxClients is %d; it must not be negative", o.MaxClients)
	}
	if o.MaxClients == 0 {
		o.MaxClients = DefaultMaxClients
	}
	for _, field := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"IdleTimeout", &o.IdleTimeout, 0},
		{"AuthTimeout", &o.AuthTimeout, DefaultAuthTimeout},
		{"RequestTimeout", &o.RequestTimeout, DefaultRequestTimeout},
		{"WriteTimeout", &o.WriteTimeout, DefaultWriteTimeout},
		{"InvalidationTimeout", &o.InvalidationTimeout, DefaultInvalidationTimeout},
	} {
		if *field.value < 0 {
			return o, fmt.Errorf("server: Options.%s is %v; it must not be negative", field.name, *field.value)
		}
		if *field.value == 0 {
			*field.value = field.zero
		}
	}
	for _, field := range []struct {
		name  string
		value int
	}{
		{"MaxArgs", o.Limits.MaxArgs},
		{"MaxBulk", o.Limits.MaxBulk},
		{"MaxRequest", o.Limits.MaxRequest},
		{"UnauthenticatedArgs", o.Limits.UnauthenticatedArgs},
		{"UnauthenticatedBulk", o.Limits.UnauthenticatedBulk},
	} {
		if field.value < 0 {
			return o, fmt.Errorf("server: Options.Limits.%s is %d; it must not be negative", field.name, field.value)
		}
	}
	for _, field := range []struct {
		name  string
		value *int
		zero  int
	}{{"OutputLimit", &o.OutputLimit, DefaultOutputLimit}, {"TrackedKeys", &o.TrackedKeys, DefaultTrackedKeys}} {
		if *field.value < 0 {
			return o, fmt.Errorf("server: Options.%s is %d; it must not be negative", field.name, *field.value)
		}
		if *field.value == 0 {
			*field.value = field.zero
		}
	}
	if _, wrong := parseClasses(o.KeyspaceEvents); wrong != "" {
		return o, fmt.Errorf("server: Options.KeyspaceEvents is %q: %s", o.KeyspaceEvents, wrong)
	}
	if o.Users == nil {
		o.Users = func(name string) (User, bool) { return User{NoPassword: true}, name == defaultUser }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, nil
}

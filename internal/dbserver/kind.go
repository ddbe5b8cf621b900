package dbserver

import (
	"context"
	"os"
)

// Kind is a kind of server: [PostgreSQL], [MariaDB], [MySQL], [PgBouncer] or [Redis].
type Kind interface {
	// Name is what people call it.
	Name() string

	// data is the data directory.
	data(s *Server) string
	// create makes the data directory of a server that has not run yet.
	create(ctx context.Context, s *Server) error
	// command is what runs the server, in the foreground.
	command(s *Server) ([]string, error)
	// ready returns nil when this server, and not another on the same port, accepts
	// connections. pid is that of its first process.
	ready(ctx context.Context, s *Server, pid int) error
	// access is how clients reach the database that the server has from the beginning.
	access(s *Server) Access
	// url is what drivers take for it.
	url(a Access) string
	// createDatabase makes an empty database on the server of that URL, and returns its
	// URL and what removes it, with the connections to it.
	createDatabase(ctx context.Context, server, name string) (url string, drop func(context.Context) error, err error)
	// orderly is the signal that asks for an orderly stop which does not wait for
	// clients, abrupt the one for a stop that need not leave the files in order but
	// leaves no process behind.
	orderly() os.Signal
	abrupt() string
}

// Access is how clients reach a database of a server.
type Access struct {
	User, Password string
	Addr           string // host:port
	Database       string
}

// CreateDatabase makes an empty database on a server that runs, which need not have been
// started here. server is what clients are told, as [Server.URL] has it, of a user who may
// make databases. url is that of the new database; drop removes it, and closes the
// connections to it. A database of PostgreSQL costs a copy of hundreds of files, up to
// half a second on a busy machine. A Redis does not know the name: its databases have
// numbers, and the first one that is empty is taken.
func CreateDatabase(ctx context.Context, k Kind, server, name string) (url string, drop func(context.Context) error, err error) {
	return k.createDatabase(ctx, server, name)
}

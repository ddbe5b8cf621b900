package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lockstep-cache/lockstep/internal/dbserver"
)

// startable are the servers that a command can start for itself, by the scheme of their
// URLs, with their settings.
//
// MariaDB has a binary log, as one with a replica has. Without it InnoDB shows a commit to
// others before it is on disk (MySQL's bug 74303), and when the server is killed in that
// moment, what a reader was shown is gone: no client can do anything about it.
var startable = map[string]struct {
	dbserver.Kind
	settings []string
}{
	"postgres": {dbserver.PostgreSQL(), nil},
	"mariadb":  {dbserver.MariaDB(), []string{"--log-bin=log", "--server-id=1", "--sync-binlog=1", "--binlog-format=ROW"}},
}

// startServer starts a server of that kind, and returns the URL of its database.
func startServer(ctx context.Context, kind string) (*dbserver.Server, string, error) {
	k, ok := startable[kind]
	if !ok {
		return nil, "", usagef("--start %s: it must be one of %s", kind, strings.Join(slices.Sorted(maps.Keys(startable)), ", "))
	}
	server, err := dbserver.Start(ctx, k.Kind, k.settings...)
	if err != nil {
		return nil, "", fmt.Errorf("--start %s: %w", kind, err)
	}
	a := server.Access()
	u := serverURL{scheme: kind, user: a.User, password: &a.Password, database: a.Database}
	return server, u.through(a.Addr), nil
}

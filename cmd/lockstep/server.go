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
// URLs.
var startable = map[string]dbserver.Kind{
	"postgres": dbserver.PostgreSQL(),
	"mariadb":  dbserver.MariaDB(),
}

// startServer starts a server of that kind, and returns the URL of its database.
func startServer(ctx context.Context, kind string) (*dbserver.Server, string, error) {
	k, ok := startable[kind]
	if !ok {
		return nil, "", usagef("--start %s: it must be one of %s", kind, strings.Join(slices.Sorted(maps.Keys(startable)), ", "))
	}
	server, err := dbserver.Start(ctx, k)
	if err != nil {
		return nil, "", fmt.Errorf("--start %s: %w", kind, err)
	}
	a := server.Access()
	u := serverURL{scheme: kind, user: a.User, password: &a.Password, database: a.Database}
	return server, u.through(a.Addr), nil
}

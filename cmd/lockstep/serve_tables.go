package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/server"
	"github.com/lockstep-cache/lockstep/store/rows"
)

// tableFlag is a table that exists, and as what it is served: users=public.users,read-only.
type tableFlag struct {
	name, table string
	readOnly    bool
	version     string
}

// UnmarshalText reads it. The table's name is as its database takes it in SQL, without a
// comma.
func (f *tableFlag) UnmarshalText(text []byte) error {
	name, rest, found := strings.Cut(string(text), "=")
	if !found || name == "" || rest == "" || strings.ContainsAny(name, ": ") {
		return fmt.Errorf("%q is not NAME=TABLE, such as users=public.users; keys begin with NAME and a colon, so that it has none itself", text)
	}
	*f = tableFlag{name: name}
	for {
		at := strings.LastIndexByte(rest, ',')
		option := rest[at+1:]
		column, version := strings.CutPrefix(option, "version=")
		switch {
		case at < 0:
			f.table = rest
			return nil
		case option == "read-only" && !f.readOnly:
			f.readOnly = true
		case version && column != "" && column != rows.NoVersion && f.version == "":
			f.version = column
		case option == "no-version" && f.version == "":
			f.version = rows.NoVersion
		default:
			return fmt.Errorf("%q: behind the table there may be read-only, and version=COLUMN or no-version, and not %q", text, option)
		}
		if rest = rest[:at]; rest == "" {
			return fmt.Errorf("%q names no table", text)
		}
	}
}

// claimedTable is a table that is claimed.
type claimedTable struct {
	lockstep.Store[rows.Key, rows.Row]
	table server.TableStore
}

func (t claimedTable) Columns() []rows.Column { return t.table.Columns() }

// tables opens those that exist, and are served. One that is written here, and of whose
// changes nobody tells, is claimed as the keys' table is; with a TTL others may write to it.
// release is for claims that no cache has come to hold; holds tells whether all are held.
func (v *serveVerb) tables(ctx context.Context, g guest, logger *slog.Logger) (all []server.Table, holds func() bool, release func(), err error) {
	var releases []func()
	var held []func() bool
	release = func() {
		for _, r := range releases {
			r()
		}
	}
	holds = func() bool {
		return !slices.ContainsFunc(held, func(h func() bool) bool { return !h() })
	}
	names := map[string]string{}
	for _, f := range v.Table {
		store, err := g.rows(ctx, f)
		if err != nil {
			return nil, holds, release, fmt.Errorf("--table %s=%s: %w", f.name, f.table, err)
		}
		identity, err := g.identity(ctx, f.table)
		if err != nil {
			return nil, holds, release, fmt.Errorf("--table %s=%s: %w", f.name, f.table, err)
		}
		if name, twice := names[identity]; twice {
			return nil, holds, release, usagef("--table %s=%s: that table is served as %s already; each name would have a memory of its own, which does not hear of the other's writes", f.name, f.table, name)
		}
		names[identity] = f.name
		if !f.readOnly && v.TTL == 0 {
			claimed, r, err := claimTable(ctx, lockstep.Store[rows.Key, rows.Row](store), func(ctx context.Context) (claim, error) { return g.claim(ctx, identity) }, logger)
			if err != nil {
				return nil, holds, release, fmt.Errorf("--table %s=%s: %w", f.name, f.table, err)
			}
			releases = append(releases, r)
			if c, ok := claimed.(interface{ holds() bool }); ok {
				held = append(held, c.holds)
				store = claimedTable{claimed, store}
			}
		}
		o := lockstep.Options[rows.Key, rows.Row]{
			MaxEntries: int(v.MaxEntries), MaxBytes: int64(v.MaxBytes), TTL: v.TTL, RefreshAhead: v.RefreshAhead, AuditInterval: v.AuditInterval,
			CommitTimeout: v.CommitTimeout, QueueLimit: int(v.QueueLimit), Logger: logger,
		}
		if v.MaxBytes > 0 {
			o.Weigher = func(key rows.Key, row rows.Row) uint32 { return uint32(len(key) + len(row) + entryBytes) }
		}
		if v.MaxValue > 0 {
			o.MaxValueBytes = int(v.MaxValue) + 1
		}
		all = append(all, server.Table{Name: f.name, Store: store, ReadOnly: f.readOnly, Cache: o})
	}
	return all, holds, release, nil
}

// tableNames are the tables, for people.
func (v *serveVerb) tableNames() string {
	names := "table " + v.KeysTable
	for _, f := range v.Table {
		names += fmt.Sprintf(", and %s as %s:…", f.table, f.name)
		if f.readOnly {
			names += " (read-only)"
		}
	}
	return names
}

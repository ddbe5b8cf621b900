package main

import (
	"context"
	"fmt"
	"log/slog"
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

// tables opens those that exist, and are served.
func (v *serveVerb) tables(ctx context.Context, g guest, logger *slog.Logger) (all []server.Table, err error) {
	names := map[string]string{}
	for _, f := range v.Table {
		// That users and public.users are one table only the database knows.
		if name, twice := names[strings.ToLower(f.table)]; twice {
			return nil, usagef("--table %s=%s: that table is served as %s already; each name would have a memory of its own, which does not hear of the other's writes", f.name, f.table, name)
		}
		names[strings.ToLower(f.table)] = f.name
		store, err := g.rows(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("--table %s=%s: %w", f.name, f.table, err)
		}
		o := lockstep.Options[rows.Key, rows.Row]{
			MaxEntries: int(v.MaxEntries), MaxBytes: int64(v.MaxBytes), TTL: v.TTL, AuditInterval: v.AuditInterval,
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
	return all, nil
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

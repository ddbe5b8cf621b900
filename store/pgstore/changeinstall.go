package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep"
)

// WatchOptions are the options of InstallWatch. The zero value is sound.
type WatchOptions struct {
	// VersionColumn names the version's column of a table that exists, a bigint. A cache
	// then keeps what is as new as a change that it is told of. A key-value table of
	// lockstep has its own.
	VersionColumn string
	// Role is who the caches connect as, where that is not the role that installs the
	// watch. It is granted what a watcher needs, which shows it the keys of every watched
	// table of the schema. Those who write the table need nothing.
	Role string
}

// WatchSQL returns the statements that InstallWatch executes, and changes nothing.
// Its errors are those of InstallWatch.
func (db *Database) WatchSQL(ctx context.Context, table string, opts WatchOptions) ([]string, error) {
	return db.planWatch(ctx, table, func(ctx context.Context, c *pgx.Conn, s *shape) ([]string, error) {
		l, err := watchable(ctx, c, s, opts.VersionColumn)
		if err != nil {
			return nil, err
		}
		f, err := l.find(ctx, c, s.oid)
		if err != nil {
			return nil, err
		}
		return l.install(len(f.triggers) > 0, opts.Role), nil
	})
}

// InstallWatch puts triggers on a table that write down what is changed in it, by
// whomever, so that stores that open the table from then on have Capabilities.Watch.
// Those that have it open already go on as they were. The table is a key-value table
// of lockstep or one that exists, and is named as NewTable's is. Installing again
// replaces what there is.
//
// It makes two tables in the table's schema, lockstep_changes and lockstep_horizon,
// and needs the privileges for that and to own the table. It waits, at most ten
// seconds, until nobody writes the table, and holds it locked for a moment. A table
// that is partitioned, or a part of one, or inherits, is refused with ErrUnsupported;
// one without a primary key that a store could map, with ErrInvalid.
//
// A writer of the table pays for it with a row a key in an unlogged table. Rows stay
// there for an hour or two, and are removed by any process that has the table open.
func (db *Database) InstallWatch(ctx context.Context, table string, opts WatchOptions) error {
	if db.opts.Pooled {
		return unsupported("table %s cannot be watched by way of a pooler, and DatabaseOptions.Pooled is set: whoever watches needs a session "+
			"of its own to the server itself; install the watch past the pooler, for caches that are past it, too", table)
	}
	statements, err := db.WatchSQL(ctx, table, opts)
	if err != nil {
		return err
	}
	return db.executeAll(ctx, statements)
}

// UnwatchSQL returns the statements that RemoveWatch executes, and changes nothing.
func (db *Database) UnwatchSQL(ctx context.Context, table string) ([]string, error) {
	return db.planWatch(ctx, table, func(ctx context.Context, c *pgx.Conn, s *shape) ([]string, error) {
		l := &changeLog{schema: s.schema, table: s.name}
		f, err := l.find(ctx, c, s.oid)
		if err != nil {
			return nil, err
		}
		if len(f.triggers) == 0 {
			return nil, invalid("table %s is not watched", s)
		}
		return l.remove(s.oid, f.alone), nil
	})
}

// RemoveWatch undoes InstallWatch. A cache that watches the table notices, and
// remembers nothing any more until its store is opened again.
func (db *Database) RemoveWatch(ctx context.Context, table string) error {
	statements, err := db.UnwatchSQL(ctx, table)
	if err != nil {
		return err
	}
	return db.executeAll(ctx, statements)
}

func (db *Database) planWatch(ctx context.Context, table string, plan func(ctx context.Context, c *pgx.Conn, s *shape) ([]string, error)) ([]string, error) {
	session, err := db.session(ctx)
	if err != nil {
		return nil, openError(err)
	}
	var statements []string
	err = session.lease.use(func(c *pgx.Conn) error {
		s, err := inspectTable(ctx, c, table)
		if err == nil && s.kind == "" {
			err = s.mappable()
			return invalid("table %s: %w", s, err)
		}
		if err == nil {
			statements, err = plan(ctx, c, s)
		}
		return err
	})
	if err != nil && !named(err) {
		db.drop(session)
		return nil, openError(err)
	}
	db.release(session)
	return statements, err
}

// watchable is the change log of a table, or what keeps it from having one.
func watchable(ctx context.Context, c *pgx.Conn, s *shape, versionColumn string) (*changeLog, error) {
	own, err := isOurs(ctx, c, s)
	if err != nil {
		return nil, err
	}
	l := &changeLog{schema: s.schema, table: s.name, versionColumn: versionColumn, own: own}
	if err := s.mappable(); err != nil {
		return nil, invalid("table %s: %w", s, err)
	}
	switch column := s.column(versionColumn); {
	case s.kind == "p" || s.part:
		return nil, unsupported("table %s is partitioned, or a part of a table; that cannot be watched", s)
	case len(s.heirs) > 0:
		return nil, unsupported("table %s is inherited from; that cannot be watched", s)
	case own && versionColumn != "":
		return nil, invalid("WatchOptions.VersionColumn is %q, and table %s is a key-value table of lockstep, which has its own", versionColumn, s)
	case own:
		l.versionColumn = "version"
	case versionColumn != "" && column == nil:
		return nil, invalid("WatchOptions.VersionColumn: table %s has no column %q", s, versionColumn)
	case versionColumn != "" && column.Version() != nil:
		return nil, invalid("WatchOptions.VersionColumn: column %q of table %s: %w", versionColumn, s, column.Version())
	}
	if l.keys, err = s.watchedKey(); err != nil {
		return nil, err
	}
	return l, nil
}

// watchedKey are the primary key's columns, whose texts decode to what they were.
func (s *shape) watchedKey() (names []string, err error) {
	var faults []error
	columns := slices.Clone(s.columns)
	slices.SortFunc(columns, func(a, b tableColumn) int { return a.keyPlace - b.keyPlace })
	for _, c := range columns {
		if c.keyPlace == 0 {
			continue
		}
		names = append(names, c.name)
		switch c.family {
		case integers, floats, texts, binary, uuids, enums:
			if !c.deterministic {
				faults = append(faults, fmt.Errorf("column %s: its collation %s is not deterministic", c.name, c.collation))
			}
		default:
			faults = append(faults, fmt.Errorf("column %s: its type %s is not for a key", c.name, c.declared))
		}
	}
	if len(names) == 0 {
		faults = append(faults, errors.New("it has no primary key"))
	}
	if len(faults) > 0 {
		return nil, invalid("table %s cannot be watched: %w", s, errors.Join(faults...))
	}
	return names, nil
}

// executeAll executes statements in one transaction.
func (db *Database) executeAll(ctx context.Context, statements []string) error {
	s, err := db.session(ctx)
	if err != nil {
		return openError(err)
	}
	for _, statement := range slices.Concat([]string{beginSQL}, statements) {
		if err := s.run(ctx, command{sql: statement}); err != nil {
			db.rollback(ctx, s)
			return openError(fmt.Errorf("%s: %w", statement, err))
		}
	}
	if err := s.run(ctx, commitCommand); err != nil {
		db.drop(s)
		if fateOf(err) != fateUnknown {
			return openError(err)
		}
		return fmt.Errorf("%w: postgres: whether the watch was changed is not known, and doing it again does no harm: %w", lockstep.ErrUnknownOutcome, err)
	}
	db.release(s)
	return nil
}

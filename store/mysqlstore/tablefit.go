package mysqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// dialect: both servers fold the names of columns.
var dialect = &mapping.Dialect{Name: "mysql", Fold: dbtag.Fold, MaxKeyBytes: keyBytes, MaxColumnBytes: defaultValue}

// dialect is that of db's server, which lets through no longer statement than its
// max_allowed_packet.
func (db *Database) dialect() *mapping.Dialect {
	d := *dialect
	most := max(1, db.server.maxPacket-packetRoom)
	d.MaxColumnBytes, d.MaxRowBytes = int(min(defaultValue, most)), int(most)
	return &d
}

var errNoName = errors.New("it is no table's name (a name with spaces, dots or other signs is put in backquotes)")

// mapTo fits K and V to the table, and names everything that does not fit.
func mapTo[K comparable, V any](d *mapping.Dialect, s *shape, opts mapping.Options) (*mapping.Mapping[K, V], []error) {
	if err := s.mappable(); err != nil {
		return nil, []error{err}
	}
	return mapping.New[K, V](d, s.table(), opts)
}

// mappable refuses what is no table of rows that can be locked.
func (s *shape) mappable() error {
	switch s.kind {
	case "BASE TABLE":
		if s.engine != "InnoDB" {
			return fmt.Errorf("its engine is %s, and must be InnoDB: without transactions a write is neither all nor nothing", s.engine)
		}
		return nil
	case "":
		return fmt.Errorf("there is no such table, or the user has no privilege on it")
	case "VIEW", "SYSTEM VIEW":
		return fmt.Errorf("it is a view: it has no primary key; map the table behind it")
	case "SYSTEM VERSIONED":
		return fmt.Errorf("it is system-versioned: its primary key does not name one row")
	}
	return fmt.Errorf("it is no table (%s)", s.kind)
}

// forbidden are the privileges that the user lacks, column by column: the server says
// so when a statement is prepared, whatever roles and wildcards grant it by.
func (s *shape) forbidden(ctx context.Context, conn *session, key, value []mapping.Field, version int, readOnly bool) (mistakes []error, err error) {
	try := func(query string) (denied bool, err error) {
		err = conn.tryPrepare(ctx, query)
		var me *mysql.MySQLError
		switch {
		case !errors.As(err, &me):
			return false, err
		case me.Number == 1142, me.Number == 1143:
			return true, nil
		case me.Number == errGenerated: // the mapping has said so
			return false, nil
		}
		return false, err
	}
	lacks := func(what string, queries ...string) error {
		for _, query := range queries {
			denied, err := try(query)
			if err != nil {
				return err
			}
			if denied {
				mistakes = append(mistakes, fmt.Errorf("the user has no %s", what))
				break
			}
		}
		return nil
	}
	column := func(name string, inserted, updated bool) error {
		c := quote(name)
		if err := lacks("SELECT on column "+name, "SELECT "+c+" FROM "+s.sql()); err != nil {
			return err
		}
		if inserted {
			if err := lacks("INSERT on column "+name, "INSERT INTO "+s.sql()+" ("+c+") VALUES (?)"); err != nil {
				return err
			}
		}
		if updated {
			return lacks("UPDATE on column "+name, "UPDATE "+s.sql()+" SET "+c+" = ?")
		}
		return nil
	}
	for _, f := range key {
		if err := column(f.Column, !readOnly, false); err != nil {
			return nil, err
		}
	}
	for i, f := range value {
		written := (f.Written || i == version) && !readOnly
		if s.column(f.Column).keyPlace == 0 {
			if err := column(f.Column, written, written); err != nil {
				return nil, err
			}
		}
	}
	if readOnly {
		return mistakes, nil
	}
	if err := lacks("DELETE", "DELETE FROM "+s.sql()); err != nil {
		return nil, err
	}
	err = lacks("privilege that locking a row takes (UPDATE, DELETE or LOCK TABLES)", "SELECT 1 FROM "+s.sql()+" LIMIT 0 FOR UPDATE")
	return mistakes, err
}

// tryPrepare prepares a statement and forgets it.
func (s *session) tryPrepare(ctx context.Context, query string) error {
	return s.raw(ctx, func(ctx context.Context, c driver.Conn) error {
		stmt, err := c.(driver.ConnPrepareContext).PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		return stmt.Close()
	})
}

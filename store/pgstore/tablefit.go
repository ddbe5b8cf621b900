package pgstore

import (
	"fmt"
	"strings"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// dialect: names are compared as they are, for PostgreSQL has folded those that were
// not quoted when the table was made. A btree holds keys of up to 2,704 bytes after
// compression, so that longer ones may fit; the server refuses those that do not.
var dialect = &mapping.Dialect{Name: "postgres", MaxKeyBytes: 8 << 10, MaxColumnBytes: 256 << 20}

// mapTo fits K and V to the table, and names everything that does not fit.
func mapTo[K comparable, V any](s *shape, opts mapping.Options) (*mapping.Mapping[K, V], error) {
	if err := s.mappable(); err != nil {
		return nil, dialect.Misfit(s.String(), []error{err})
	}
	m, mistakes := mapping.New[K, V](dialect, s.table(), opts)
	mistakes = append(mistakes, s.surprises(opts.ReadOnly)...)
	mistakes = append(mistakes, s.forbidden(m.Key, m.Value, m.Version, opts.ReadOnly)...)
	return m, dialect.Misfit(s.String(), mistakes)
}

// mappable refuses what is no table of rows.
func (s *shape) mappable() error {
	switch s.kind {
	case "r", "p":
		if s.persistence == "t" {
			return fmt.Errorf("it is temporary, and only one session sees it")
		}
		return nil
	case "":
		return fmt.Errorf("there is no such table on the session's search_path (names are folded to lower case unless they are in double quotes)")
	case "v", "m":
		return fmt.Errorf("it is a view: it has no primary key; map the table behind it")
	case "f":
		return fmt.Errorf("it is a foreign table: its rows are locked and committed on another server")
	}
	return fmt.Errorf("it is no table (relkind %q)", s.kind)
}

// surprises are what would make a row another one than its key says, or a write
// another one than it was asked for.
func (s *shape) surprises(readOnly bool) (mistakes []error) {
	if s.hidden {
		mistakes = append(mistakes, fmt.Errorf("row-level security hides rows from role %s, and a hidden row is not absent", s.role))
	}
	if len(s.heirs) > 0 {
		mistakes = append(mistakes, fmt.Errorf("%s inherits from it: its rows are seen here, and no primary key keeps them apart", strings.Join(s.heirs, ", ")))
	}
	if len(s.strangers) > 0 {
		mistakes = append(mistakes, fmt.Errorf("its partition %s is a foreign table, of another server", strings.Join(s.strangers, ", ")))
	}
	if readOnly {
		return mistakes
	}
	if len(s.rules) > 0 {
		mistakes = append(mistakes, fmt.Errorf("its rule %s rewrites what is written", strings.Join(s.rules, ", ")))
	}
	if s.acts && !s.counts {
		mistakes = append(mistakes, fmt.Errorf("it has triggers or foreign keys' actions, and track_counts is off: what rows they change beside those written could not be noticed"))
	}
	if s.deferredKey {
		mistakes = append(mistakes, fmt.Errorf("its primary key is DEFERRABLE: inside a transaction two rows may have one key"))
	}
	return mistakes
}

// forbidden are the privileges that the role lacks.
func (s *shape) forbidden(key, value []mapping.Field, version int, readOnly bool) (mistakes []error) {
	lacks := func(what string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("role %s has no "+what, append([]any{s.role}, args...)...))
	}
	if !s.privileges.usage {
		lacks("USAGE on schema %s", s.schema)
	}
	column := func(name string, inserted, updated bool) {
		c := s.column(name)
		if !c.mayRead {
			lacks("SELECT on column %s", name)
		}
		if inserted && !c.mayInsert {
			lacks("INSERT on column %s", name)
		}
		if updated && !c.mayUpdate {
			lacks("UPDATE on column %s", name)
		}
	}
	for _, f := range key {
		column(f.Column, !readOnly, false)
	}
	for i, f := range value {
		written := (f.Written || i == version) && !readOnly
		if s.column(f.Column).keyPlace == 0 {
			column(f.Column, written, written)
		}
	}
	if readOnly {
		return mistakes
	}
	if !s.privileges.remove {
		lacks("DELETE")
	}
	if !s.privileges.lock {
		lacks("UPDATE on any column, which locking a row takes")
	}
	return mistakes
}

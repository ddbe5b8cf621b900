package mysqlstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// WatchOptions are the options of InstallWatch. The zero value is sound.
type WatchOptions struct {
	// VersionColumn names the version's column of a table that exists, a signed bigint. A
	// cache then keeps what is as new as a change that it is told of. A key-value table of
	// lockstep has its own.
	VersionColumn string
	// Role is who the caches connect as, where that is not who installs the watch: a
	// user, as app or app@host, or a role. It is granted what a watcher needs, which
	// shows it the keys of every watched table of the schema. Those who write the table
	// need nothing.
	Role string
}

// WatchSQL returns the statements that InstallWatch executes, and changes nothing.
// Its errors are those of InstallWatch.
func (db *Database) WatchSQL(ctx context.Context, table string, opts WatchOptions) ([]string, error) {
	return db.planWatch(ctx, table, func(s *session, shape *shape) ([]string, error) { return db.planInstall(ctx, s, shape, opts) })
}

// InstallWatch puts triggers on a table that write down what is changed in it, by
// whomever, so that stores that open the table from then on have Capabilities.Watch.
// Those that have it open already go on as they were. The table is a key-value table of
// lockstep or one that exists, and is named as NewTable's is. Installing again replaces
// what there is.
//
// It makes three tables and a procedure in the table's schema, lockstep_changes,
// lockstep_horizon, lockstep_watched and lockstep_changed, and needs the privileges for
// that and TRIGGER on the table; on MySQL with a binary log, SUPER too, or the server's
// log_bin_trust_function_creators. The triggers run with the privileges of the user that
// installs them, who must stay, and be the same for all tables of a schema. It
// waits, at most ten seconds, until nobody writes the table. What it does is not one
// transaction: an error may leave a watch that is not whole, by which no store is
// opened, and which installing again mends.
//
// A table from which a foreign key's action deletes rows, or changes their keys, is
// refused with ErrUnsupported: the server runs no trigger for that. It runs none for TRUNCATE either, nor for ALTER TABLE … DROP
// PARTITION and its like: invalidate the caches after those. A table without a primary
// key that a store could map is ErrInvalid.
//
// A writer of the table pays for it with a row a key. Rows stay there for an hour or
// two, and are removed by any process that has the table open.
//
// On MySQL, a transaction at REPEATABLE READ, its default, in which a change of a watched
// table was rolled back and which goes on, keeps all other writers of the schema's watched
// tables waiting until it ends: after ROLLBACK TO SAVEPOINT, or a statement of several rows
// that has failed. At READ COMMITTED it does not.
func (db *Database) InstallWatch(ctx context.Context, table string, opts WatchOptions) error {
	return db.changeWatch(ctx, table, func(s *session, shape *shape) ([]string, error) { return db.planInstall(ctx, s, shape, opts) })
}

// UnwatchSQL returns the statements that RemoveWatch executes, and changes nothing.
func (db *Database) UnwatchSQL(ctx context.Context, table string) ([]string, error) {
	return db.planWatch(ctx, table, func(s *session, shape *shape) ([]string, error) { return db.planRemove(ctx, s, shape) })
}

// RemoveWatch undoes InstallWatch. A cache that watches the table notices within a
// second, and remembers nothing any more until its store is opened again.
func (db *Database) RemoveWatch(ctx context.Context, table string) error {
	return db.changeWatch(ctx, table, func(s *session, shape *shape) ([]string, error) { return db.planRemove(ctx, s, shape) })
}

func (db *Database) planInstall(ctx context.Context, s *session, shape *shape, opts WatchOptions) ([]string, error) {
	if err := shape.mappable(); err != nil {
		return nil, invalid("table %s: %w", shape, err)
	}
	l, err := db.watchable(ctx, s, shape, opts.VersionColumn)
	if err != nil {
		return nil, err
	}
	account, err := accountName(opts.Role)
	if err != nil {
		return nil, err
	}
	f, err := l.find(ctx, s, db)
	if err != nil {
		return nil, err
	}
	user, err := s.row(ctx, "SELECT CURRENT_USER()")
	if err != nil {
		return nil, err
	}
	if f.definer != "" && f.definer != text(user[0]) {
		return nil, invalid("other tables of %s are watched by triggers of the user %s, and this is %s: one user has to install them all", shape.schema, f.definer, text(user[0]))
	}
	return l.install(f, account), nil
}

func (db *Database) planRemove(ctx context.Context, s *session, shape *shape) ([]string, error) {
	l := &changeLog{schema: shape.schema, table: shape.name}
	f, err := l.find(ctx, s, db)
	if err != nil {
		return nil, err
	}
	if err := shape.mappable(); !f.there() && err != nil {
		return nil, invalid("table %s: %w", shape, err)
	}
	if !f.there() {
		return nil, invalid("table %s is not watched", shape)
	}
	return l.remove(f.names(), f.alone), nil
}

// planWatch looks at the table in a session that is lent.
func (db *Database) planWatch(ctx context.Context, table string, plan func(s *session, shape *shape) ([]string, error)) (statements []string, err error) {
	s, err := db.acquire(ctx)
	if err != nil {
		return nil, openError(err)
	}
	defer db.release(s)
	if statements, err = db.planIn(ctx, s, table, plan); err != nil {
		return nil, openError(err)
	}
	return statements, nil
}

func (db *Database) planIn(ctx context.Context, s *session, table string, plan func(s *session, shape *shape) ([]string, error)) ([]string, error) {
	shape, err := db.inspectTable(ctx, s, table)
	if err != nil {
		return nil, err
	}
	return plan(s, shape)
}

// changeWatch executes a plan, in a session of its own, under the lock of all that
// make tables.
func (db *Database) changeWatch(ctx context.Context, table string, plan func(s *session, shape *shape) ([]string, error)) error {
	s, err := db.acquire(ctx)
	if err != nil {
		return openError(err)
	}
	defer func() {
		s.broken = true // it has settings of its own
		db.release(s)
	}()
	unlock, err := db.lockDDL(ctx, s)
	if err != nil {
		return openError(err)
	}
	defer unlock()
	statements, err := db.planIn(ctx, s, table, plan)
	if err != nil {
		return openError(err)
	}
	for _, statement := range statements {
		if err := s.run(ctx, statement); err != nil {
			first, _, _ := strings.Cut(statement, "\n")
			if fateOf(err) == fateUnknown {
				return unavailable("whether the watch was changed is not known, and doing it again does no harm: %s: %w", first, err)
			}
			return openError(fmt.Errorf("%s: %w", first, err))
		}
	}
	return nil
}

// watchable is the change log of a table, or what keeps it from having one.
func (db *Database) watchable(ctx context.Context, s *session, shape *shape, versionColumn string) (*changeLog, error) {
	own, err := isOurs(ctx, s, db, shape)
	if err != nil {
		return nil, err
	}
	l := &changeLog{schema: shape.schema, table: shape.name, versionColumn: versionColumn}
	switch column := shape.column(versionColumn); {
	case own && versionColumn != "":
		return nil, invalid("WatchOptions.VersionColumn is %q, and table %s is a key-value table of lockstep, which has its own", versionColumn, shape)
	case own:
		l.own, l.versionColumn = true, "version"
	case versionColumn != "" && column == nil:
		return nil, invalid("WatchOptions.VersionColumn: table %s has no column %q", shape, versionColumn)
	case versionColumn != "" && column.Version() != nil:
		return nil, invalid("WatchOptions.VersionColumn: column %q of table %s: %w", versionColumn, shape, column.Version())
	}
	if l.keys, err = shape.watchedKey(); err != nil {
		return nil, err
	}
	if err := checkIncrement(ctx, s); err != nil {
		return nil, err
	}
	actions, err := actionsOn(ctx, s, shape.schema, shape.name)
	if err != nil {
		return nil, err
	}
	if a, ok := unseen(actions, shape, nil); ok {
		return nil, unsupported("table %s cannot be watched: %v", shape, a)
	}
	return l, nil
}

// checkIncrement refuses a server that leaves numbers out: watchers would look for
// each of them, and take it away.
func checkIncrement(ctx context.Context, s *session) error {
	row, err := s.row(ctx, "SELECT @@global.auto_increment_increment")
	if err != nil {
		return err
	}
	if n, _ := integer(row[0]); n != 1 {
		return unsupported("auto_increment_increment is %d, and must be 1 for a watch: most numbers of changes would be left out, and each is looked for", n)
	}
	return nil
}

// watchedKey are the primary key's columns, whose texts decode to what they were.
func (s *shape) watchedKey() (keys []tableColumn, err error) {
	for _, c := range s.columns {
		if c.keyPlace > 0 {
			keys = append(keys, c)
		}
	}
	slices.SortFunc(keys, func(a, b tableColumn) int { return cmp.Compare(a.keyPlace, b.keyPlace) })
	if len(keys) == 0 {
		return nil, invalid("table %s has no primary key", s)
	}
	for _, c := range keys {
		reason := ""
		switch {
		case c.prefix:
			reason = "the primary key has only its beginning"
		case c.family == texts && (!c.nopad() || c.charset != "utf8mb4"):
			reason = fmt.Sprintf("its collation is %s, and must be %s", c.collation, c.server.nopadName())
		case c.family == floats && c.bits != 64, !slices.Contains([]family{integers, floats, texts, binary, zeroed, uuids}, c.family):
			reason = fmt.Sprintf("its type is %s, which no key of a store has", c.declared)
		}
		if reason != "" {
			return nil, invalid("table %s cannot be watched: key column %s: %s", s, c.name, reason)
		}
	}
	return keys, nil
}

// accountName is a user or a role as GRANT takes it.
func accountName(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	user, host := name, ""
	if i := strings.LastIndexByte(name, '@'); i >= 0 {
		user, host = name[:i], name[i+1:]
	}
	unquoted := strings.NewReplacer("'", "", "`", "")
	if user = unquoted.Replace(user); user == "" || strings.Contains(name, `\`) {
		return "", invalid("WatchOptions.Role is %q, which is no user and no role", name)
	}
	if host = unquoted.Replace(host); host == "" {
		return quote(user), nil
	}
	return quote(user) + "@" + quote(host), nil
}

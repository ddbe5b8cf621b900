package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver that plain connections use

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/demo"
	"github.com/lockstep-cache/lockstep/server"
	"github.com/lockstep-cache/lockstep/store/rows"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

var sqliteKind = kind{
	scheme:       "sqlite",
	form:         "sqlite:PATH",
	example:      "sqlite:app.db",
	tableOptions: sqliteTableOptions,
	options:      sqliteOptions,
	parse: func(text string) (place, error) {
		u, err := sqlitestore.ParseURL(text)
		if err != nil {
			return nil, explainSQLite(text, err)
		}
		return sqlitePlace{u}, nil
	},
	file: func(path string) string { return sqlitestore.URL{Path: path}.String() },
}

var (
	sqliteTableOptions = []string{"table", "codec"}
	sqliteOptions      = []string{"readers", "checkpoint-bytes", "page-size", "allow-unsafe-durability"}
)

// explainSQLite is what ParseURL has against a URL, for somebody who has just
// typed it and is shown it once already. ParseURL decides what is wrong; only what
// can be told better from the URL is told from it.
func explainSQLite(text string, err error) error {
	const start = "sqlite:"
	path, query, _ := strings.Cut(strings.TrimPrefix(text, start), "?")
	if path == "" {
		return fmt.Errorf("%w: no file after %s", lockstep.ErrInvalid, start)
	}
	known := slices.Concat(sqliteTableOptions, sqliteOptions)
	// What cannot be read at all, ParseURL has said.
	given, _ := url.ParseQuery(query)
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%w: unknown option %s; there are %s", lockstep.ErrInvalid, name, strings.Join(known, ", "))
		}
	}
	quoted := strconv.Quote(text)
	once := strings.NewReplacer(" of "+quoted, "", quoted+": ", "", quoted+" ", "").Replace(err.Error())
	return fmt.Errorf("%w: %s", lockstep.ErrInvalid, strings.TrimPrefix(once, lockstep.ErrInvalid.Error()+": "))
}

// smallPage is for files that the command makes: what clients of a cache keep is small for
// the most part.
const smallPage = 1024

type sqlitePlace struct{ url sqlitestore.URL }

func (p sqlitePlace) address() string { return "" }

func (p sqlitePlace) through(string) string { return p.url.String() }

func (p sqlitePlace) again() string { return p.url.String() }

// sqliteGuest is a guest in a database file. It leaves the file as it found it,
// but for its size: the tables, the journal mode, and whether there was a file at
// all.
type sqliteGuest struct {
	db     *sqlitestore.Database
	url    sqlitestore.URL
	prefix string // of the command's tables

	fresh   bool   // there was no file
	journal string // its journal mode; sqlitestore makes it wal
	listed  bool   // it had tables of Lockstep's, and their list
}

func (p sqlitePlace) visit(ctx context.Context, prefix string) (guest, error) {
	if p.url.Table != "" || p.url.Codec != "" {
		return nil, fmt.Errorf("%w: the command makes tables of its own, so that table and codec have no place here", lockstep.ErrInvalid)
	}
	g := &sqliteGuest{url: p.url, prefix: prefix}
	_, err := os.Stat(g.url.Path)
	g.fresh = errors.Is(err, fs.ErrNotExist)
	if g.url.Database.PageSize == 0 {
		g.url.Database.PageSize = smallPage
	}
	if err == nil {
		// Whatever is wrong with the file is better said by open.
		_ = g.look(ctx)
	}
	if g.db, err = sqlitestore.OpenDatabase(ctx, g.url.Path, g.url.Database); err != nil {
		return nil, err
	}
	return g, nil
}

// look notes what the file is like.
func (g *sqliteGuest) look(ctx context.Context) error {
	db, err := g.plain(1)
	if err != nil {
		return err
	}
	defer db.Close()
	return errors.Join(
		db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&g.journal),
		db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'lockstep_tables')").Scan(&g.listed),
	)
}

// plain opens the file as another program would, with the durability that the
// cache has too.
func (g *sqliteGuest) plain(connections int) (*sql.DB, error) {
	path, err := filepath.Abs(g.url.Path)
	if err != nil {
		return nil, err
	}
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive's letter
	}
	synchronous := "full"
	if g.url.Database.AllowUnsafeDurability {
		synchronous = "normal"
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "mode=rw&_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=synchronous(" + synchronous + ")"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

func (g *sqliteGuest) database(temporary bool) demo.Database {
	name := "SQLite, in " + g.url.Path
	if temporary {
		name = "SQLite, in a temporary file"
	}
	return demo.Database{
		Name:     name,
		Prefix:   g.prefix,
		Users:    sqliteTables[demo.User](g.db),
		Products: sqliteTables[demo.Product](g.db),
		Accounts: sqliteTables[demo.Account](g.db),
		Plain:    g.plain,
		SQL:      sqliteSQL,
	}
}

func sqliteTables[V any](db *sqlitestore.Database) demo.Opener[V] {
	return func(ctx context.Context, table string) (demo.Store[V], error) {
		return sqlitestore.OpenIn[string, V](ctx, db, sqlitestore.Options{Table: table})
	}
}

// sqliteSQL is about tables as sqlitestore makes them. The demo's names have no
// quotes in them.
var sqliteSQL = demo.SQL{
	Rows: func(table string, keys int) string {
		query := `SELECT key, value, version, expires_at FROM "` + table + `"`
		if keys > 0 {
			query += " WHERE key IN (?" + strings.Repeat(", ?", keys-1) + ")"
		}
		return query
	},
	Overwrite: func(table string, countUp bool) string {
		set := "value = ?"
		if countUp {
			set += ", version = version + 1"
		}
		return `UPDATE "` + table + `" SET ` + set + " WHERE key = ?"
	},
	Upsert: func(table string) string {
		return `INSERT INTO "` + table + `" (key, value, version) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = max(version + 1, excluded.version)`
	},
	Copy: func(table, other string) string {
		return `INSERT INTO "` + table + `" SELECT * FROM "` + other + `"`
	},
}

func (g *sqliteGuest) integers(ctx context.Context, table string) (lockstep.Store[int, int64], error) {
	return sqlitestore.OpenIn[int, int64](ctx, g.db, sqlitestore.Options{Table: table})
}

func (g *sqliteGuest) positions(ctx context.Context, table string) (lockstep.Store[string, int64], error) {
	return sqlitestore.OpenIn[string, int64](ctx, g.db, sqlitestore.Options{Table: table})
}

func (g *sqliteGuest) keys(ctx context.Context, table string) (lockstep.Store[string, server.Value], error) {
	return sqlitestore.OpenIn[string, server.Value](ctx, g.db, sqlitestore.Options{Table: table, Codec: rawValues()})
}

func (g *sqliteGuest) rows(ctx context.Context, table tableFlag) (server.TableStore, error) {
	return sqlitestore.NewTable[rows.Key, rows.Row](ctx, g.db, table.table, sqlitestore.TableOptions{ReadOnly: table.readOnly, VersionColumn: table.version})
}

func (g *sqliteGuest) close() error { return g.db.Close() }

func (g *sqliteGuest) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	err := g.db.Close()
	if err == nil {
		err = g.tidy(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: the tables %s… could not be removed: %w", g.url.Path, g.prefix, err)
	}
	return nil
}

func (g *sqliteGuest) tidy(ctx context.Context) error {
	db, err := g.plain(1)
	if err != nil {
		return err
	}
	defer db.Close()
	left, err := g.dropTables(ctx, db)
	if err != nil {
		return err
	}
	if g.fresh && left == 0 {
		if err := db.Close(); err != nil {
			return err
		}
		return os.Remove(g.url.Path)
	}
	if g.journal != "" && g.journal != "wal" {
		// It needs the file for itself. If another program has it open, the demo's
		// mode stays, in which every program can go on.
		_, _ = db.ExecContext(ctx, "PRAGMA journal_mode = "+g.journal)
	}
	return nil
}

// dropTables removes the demo's tables, and tells how much else is in the file.
func (g *sqliteGuest) dropTables(ctx context.Context, db *sql.DB) (left int, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	// The prefix has no character that GLOB knows.
	rows, err := tx.QueryContext(ctx, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB ?", g.prefix+"*")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return 0, err
		}
		tables = append(tables, name)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	for _, name := range tables {
		if _, err := tx.ExecContext(ctx, `DROP TABLE "`+name+`"`); err != nil {
			return 0, err
		}
	}
	if len(tables) > 0 {
		if err := g.unlist(ctx, tx); err != nil {
			return 0, err
		}
	}
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&left); err != nil {
		return 0, err
	}
	return left, tx.Commit()
}

// unlist takes the demo's tables off Lockstep's list, and the list away if the
// demo has brought it and nobody else uses it by now.
func (g *sqliteGuest) unlist(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, "DELETE FROM lockstep_tables WHERE name GLOB ?", g.prefix+"*"); err != nil || g.listed {
		return err
	}
	var others int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM lockstep_tables").Scan(&others); err != nil || others > 0 {
		return err
	}
	_, err := tx.ExecContext(ctx, "DROP TABLE lockstep_tables")
	return err
}

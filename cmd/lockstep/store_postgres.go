package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/demo"
	"github.com/lockstep-cache/lockstep/server"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	"github.com/lockstep-cache/lockstep/store/rows"
)

var postgresKind = kind{
	scheme: "postgres", alias: "postgresql",
	form:    "postgres://USER@HOST:PORT/DATABASE",
	example: "postgres://app@localhost:5432/app",
	secret:  "its password from PGPASSWORD, PGPASSFILE or the file that the option password-file names",
	options: postgresOptions,
	parse: func(text string) (place, error) {
		if rest, ok := strings.CutPrefix(text, "postgresql:"); ok {
			text = "postgres:" + rest
		}
		u, err := parseServerURL("postgres", text, postgresOptions)
		if err != nil {
			return nil, err
		}
		unsafe, err := u.truth("allow-unsafe-durability")
		if err != nil {
			return nil, err
		}
		pooled, err := u.truth(pooledOption)
		if err != nil {
			return nil, err
		}
		return postgresPlace{u, pgstore.DatabaseOptions{AllowUnsafeDurability: unsafe, Pooled: pooled}}, nil
	},
}

// pooledOption is for a server behind PgBouncer or its like.
const pooledOption = "pooled"

// postgresOptions: those with an underscore, and those that begin with ssl, are
// libpq's, and so is host, for the directory of a socket.
var postgresOptions = []string{passwordFile, "allow-unsafe-durability", pooledOption, "host", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "search_path"}

type postgresPlace struct {
	url  serverURL
	opts pgstore.DatabaseOptions
}

func (p postgresPlace) String() string { return p.url.String() }

// config is the driver's. What the URL leaves out is libpq's to say: its environment
// variables, its files, its defaults.
func (p postgresPlace) config() (*pgxpool.Config, error) {
	u := url.URL{Scheme: "postgres", Host: p.url.address(""), Path: "/" + p.url.database}
	if p.url.user != "" {
		u.User = url.User(p.url.user)
	}
	query := url.Values{}
	for name, value := range p.url.options {
		switch name {
		case passwordFile, "allow-unsafe-durability", pooledOption:
		default:
			query.Set(name, value)
		}
	}
	if os.Getenv("PGCONNECT_TIMEOUT") == "" && !query.Has("connect_timeout") {
		query.Set("connect_timeout", "10") // seconds; libpq would wait for ever
	}
	u.RawQuery = query.Encode()
	password, err := p.url.secret()
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		// The driver's own words begin with all that it was given.
		_, why, _ := strings.Cut(err.Error(), "`: ")
		return nil, fmt.Errorf("%w: an option, or a PG… variable of the environment: %s", lockstep.ErrInvalid, cmp.Or(why, err.Error()))
	}
	if password != nil {
		config.ConnConfig.Password = *password
	}
	if p.opts.Pooled {
		// What is prepared in one session is not there in the next.
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	return config, nil
}

func (p postgresPlace) address() string {
	config, err := p.config()
	if err != nil || strings.HasPrefix(config.ConnConfig.Host, "/") {
		return "" // what is wrong with it, visit says
	}
	return net.JoinHostPort(config.ConnConfig.Host, strconv.Itoa(int(config.ConnConfig.Port)))
}

func (p postgresPlace) through(address string) string {
	u := p.url
	if address != "" {
		// The option is stronger than what stands before the path.
		u.options = maps.Clone(u.options)
		delete(u.options, "host")
	}
	return u.through(address)
}

func (p postgresPlace) again() string { return p.url.again() }

// postgresGuest is a guest in a database of a server. It takes away the tables that it
// has brought.
type postgresGuest struct {
	pool   *pgxpool.Pool
	db     *pgstore.Database
	prefix string // of the command's tables
	listed bool   // there were tables of Lockstep's, and their list
	pooled bool   // behind a pooler
	laned  bool   // there was a table of lanes, as behind a pooler
}

func (p postgresPlace) visit(ctx context.Context, prefix string) (_ guest, err error) {
	config, err := p.config()
	if err != nil {
		return nil, err
	}
	g := &postgresGuest{prefix: prefix, pooled: p.opts.Pooled}
	if g.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.pool.Close()
			err = explainPostgres(err, config)
		}
	}()
	if g.db, err = pgstore.OpenDatabase(ctx, g.pool, p.opts); err != nil {
		return nil, err
	}
	if err := g.pool.QueryRow(ctx, `SELECT to_regclass(quote_ident(current_schema()) || '.lockstep_tables') IS NOT NULL,
to_regclass(quote_ident(current_schema()) || '.lockstep_lanes') IS NOT NULL`).Scan(&g.listed, &g.laned); err != nil {
		return nil, errors.Join(err, g.db.Close())
	}
	return g, nil
}

// pooledField is what the store's errors call the option.
const pooledField = "DatabaseOptions.Pooled"

// inOptions is an error of the store in the words of the command line.
func inOptions(text string) string {
	return strings.ReplaceAll(text, pooledField, "the option "+pooledOption+"=true")
}

// explainPostgres says which field of the URL a server has refused.
func explainPostgres(err error, config *pgxpool.Config) error {
	c := config.ConnConfig
	at := net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	var pg *pgconn.PgError
	var dial *net.OpError
	switch {
	case errors.As(err, &pg) && (pg.Code == "28P01" || pg.Code == "28000"):
		why := pg.Message
		if c.Password == "" {
			why += "; no password was given"
		}
		return fmt.Errorf("%w: the user or the password: the server at %s says: %s", lockstep.ErrInvalid, at, why)
	case errors.As(err, &pg) && pg.Code == "3D000":
		return fmt.Errorf("%w: the database: the server at %s has none called %q", lockstep.ErrInvalid, at, c.Database)
	case errors.As(err, &dial):
		return fmt.Errorf("%w: no server answers at %s: %v", lockstep.ErrUnavailable, at, dial.Err)
	case errors.Is(err, lockstep.ErrUnsupported) && strings.Contains(err.Error(), pooledField):
		why := strings.TrimPrefix(err.Error(), lockstep.ErrUnsupported.Error()+": ")
		return fmt.Errorf("%w: %s", lockstep.ErrUnsupported, inOptions(why))
	}
	return err
}

// plain opens the database as another program would.
func (g *postgresGuest) plain(connections int) (*sql.DB, error) {
	db := stdlib.OpenDB(*g.pool.Config().ConnConfig)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

func (g *postgresGuest) database(bool) demo.Database {
	c := g.pool.Config().ConnConfig
	return demo.Database{
		Name:     fmt.Sprintf("PostgreSQL, in database %s at %s", cmp.Or(c.Database, c.User), net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))),
		Prefix:   g.prefix,
		Users:    postgresTables[demo.User](g.db),
		Products: postgresTables[demo.Product](g.db),
		Accounts: postgresTables[demo.Account](g.db),
		Plain:    g.plain,
		SQL:      postgresSQL,

		Unprepared: g.pooled,
	}
}

func postgresTables[V any](db *pgstore.Database) demo.Opener[V] {
	return func(ctx context.Context, table string) (demo.Store[V], error) {
		return pgstore.OpenIn[string, V](ctx, db, pgstore.Options{Table: table})
	}
}

// postgresSQL is about tables as pgstore makes them. The demo's names need no quotes.
var postgresSQL = demo.SQL{
	Rows: func(table string, keys int) string {
		query := "SELECT key, value, version, expires_at FROM " + table
		for i := range keys {
			query += map[bool]string{true: " WHERE key IN (", false: ", "}[i == 0] + "$" + strconv.Itoa(i+1)
		}
		if keys > 0 {
			query += ")"
		}
		return query
	},
	Overwrite: func(table string, countUp bool) string {
		set := "value = $1"
		if countUp {
			set += ", version = version + 1"
		}
		return "UPDATE " + table + " SET " + set + " WHERE key = $2"
	},
	Upsert: func(table string) string {
		return "INSERT INTO " + table + ` AS r (key, value, version) VALUES ($1, $2, $3)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = greatest(r.version + 1, excluded.version)`
	},
	Copy: func(table, other string) string { return "INSERT INTO " + table + " SELECT * FROM " + other },
}

func (g *postgresGuest) integers(ctx context.Context, table string) (lockstep.Store[int, int64], error) {
	return pgstore.OpenIn[int, int64](ctx, g.db, pgstore.Options{Table: table})
}

func (g *postgresGuest) positions(ctx context.Context, table string) (lockstep.Store[string, int64], error) {
	return pgstore.OpenIn[string, int64](ctx, g.db, pgstore.Options{Table: table})
}

func (g *postgresGuest) keys(ctx context.Context, table string) (lockstep.Store[string, server.Value], error) {
	return pgstore.OpenIn[string, server.Value](ctx, g.db, pgstore.Options{Table: table, Codec: rawValues()})
}

func (g *postgresGuest) rows(ctx context.Context, table tableFlag) (server.TableStore, error) {
	return pgstore.NewTableIn[rows.Key, rows.Row](ctx, g.db, table.table, pgstore.TableOptions{ReadOnly: table.readOnly, VersionColumn: table.version})
}

func (g *postgresGuest) close() error {
	defer g.pool.Close()
	return g.db.Close()
}

func (g *postgresGuest) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	defer g.pool.Close()
	err := g.db.Close()
	if err == nil {
		err = afresh(ctx, g.tidy)
	}
	if err != nil {
		return fmt.Errorf("the tables %s… could not be removed: %w", g.prefix, err)
	}
	return nil
}

func (g *postgresGuest) tidy(ctx context.Context) error {
	tx, err := g.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	var tables []string
	if err := tx.QueryRow(ctx, `SELECT array(SELECT relname::text FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND starts_with(relname, $1))`, g.prefix).Scan(&tables); err != nil || len(tables) == 0 {
		return err
	}
	if _, err := tx.Exec(ctx, "DROP TABLE "+strings.Join(tables, ", ")); err != nil {
		return err
	}
	// Those who make tables take this lock, too (pgstore), and find the list or make it.
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(x'6c6f636b73746570'::bigint)"); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "DELETE FROM lockstep_tables WHERE starts_with(name, $1)", g.prefix); err != nil {
		return err
	}
	if !g.listed {
		var others int
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM lockstep_tables").Scan(&others); err != nil {
			return err
		}
		if others == 0 {
			if _, err := tx.Exec(ctx, "DROP TABLE lockstep_tables"); err != nil {
				return err
			}
		}
	}
	if err := g.tidyLanes(ctx, tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// tidyLanes removes the table of lanes that the demo has brought, unless somebody else has
// one by now. In a table that was there before, the demo's lanes are removed with those
// of everybody who has ended, after a day.
func (g *postgresGuest) tidyLanes(ctx context.Context, tx pgx.Tx) error {
	if g.laned || !g.pooled {
		return nil
	}
	if _, err := tx.Exec(ctx, "LOCK TABLE lockstep_lanes"); err != nil {
		return err
	}
	var users int
	if err := tx.QueryRow(ctx, "SELECT count(DISTINCT node) FROM lockstep_lanes").Scan(&users); err != nil || users > 1 {
		return err
	}
	_, err := tx.Exec(ctx, "DROP TABLE lockstep_lanes")
	return err
}

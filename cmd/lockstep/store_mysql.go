package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/demo"
	"github.com/lockstep-cache/lockstep/server"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
	"github.com/lockstep-cache/lockstep/store/rows"
)

var mysqlKind = kind{
	scheme: "mysql", alias: "mariadb",
	form:    "mysql://USER@HOST:PORT/DATABASE",
	example: mysqlExample,
	secret:  "its password from MYSQL_PWD or the file that the option password-file names",
	options: mysqlOptions,
	parse: func(text string) (place, error) {
		if rest, ok := strings.CutPrefix(text, "mariadb:"); ok {
			text = "mysql:" + rest
		}
		u, err := parseServerURL("mysql", text, mysqlOptions)
		if err != nil {
			return nil, err
		}
		unsafe, err := u.truth("allow-unsafe-durability")
		if err != nil {
			return nil, err
		}
		switch {
		case u.database == "":
			return nil, fmt.Errorf("%w: the database: there is none after the host, as in %s", lockstep.ErrInvalid, mysqlExample)
		case u.user == "":
			return nil, fmt.Errorf("%w: the user: there is none before the host, as in %s", lockstep.ErrInvalid, mysqlExample)
		}
		switch u.options["tls"] {
		case "", "true", "false", "preferred", "skip-verify":
		default:
			return nil, fmt.Errorf("%w: the option tls: %q is not true, false, preferred or skip-verify", lockstep.ErrInvalid, u.options["tls"])
		}
		return mysqlPlace{u, mysqlstore.DatabaseOptions{AllowUnsafeDurability: unsafe}}, nil
	},
}

const mysqlExample = "mysql://app@localhost:3306/app"

var mysqlOptions = []string{passwordFile, "allow-unsafe-durability", "socket", "tls"}

type mysqlPlace struct {
	url  serverURL
	opts mysqlstore.DatabaseOptions
}

func (p mysqlPlace) String() string { return p.url.String() }

// config is the driver's.
func (p mysqlPlace) config() (*mysql.Config, error) {
	password, err := p.url.secret()
	if err != nil {
		return nil, err
	}
	c := mysql.NewConfig()
	c.User, c.DBName = p.url.user, p.url.database
	c.Passwd = os.Getenv("MYSQL_PWD")
	if password != nil {
		c.Passwd = *password
	}
	c.Net, c.Addr = "tcp", p.url.address("3306")
	if p.url.host == "" {
		c.Addr = net.JoinHostPort("localhost", cmp.Or(p.url.port, "3306"))
	}
	if socket := p.url.options["socket"]; socket != "" {
		c.Net, c.Addr = "unix", socket
	}
	c.TLSConfig = p.url.options["tls"]
	c.Timeout = 10 * time.Second
	// Opening the database ends a session of its own, which the driver would report.
	c.Logger = &mysql.NopLogger{}
	return c, nil
}

func (p mysqlPlace) address() string {
	config, err := p.config()
	if err != nil || config.Net != "tcp" {
		return "" // what is wrong with it, visit says
	}
	return config.Addr
}

func (p mysqlPlace) through(address string) string { return p.url.through(address) }

func (p mysqlPlace) again() string { return p.url.again() }

// mysqlGuest is a guest in a database of a server. It takes away the tables that it
// has brought.
type mysqlGuest struct {
	config  *mysql.Config
	pool    *sql.DB
	db      *mysqlstore.Database
	prefix  string // of the command's tables
	version string // what the server calls its own
	listed  bool   // there were tables of Lockstep's, and their list
}

func (p mysqlPlace) visit(ctx context.Context, prefix string) (_ guest, err error) {
	g := &mysqlGuest{prefix: prefix}
	if g.config, err = p.config(); err != nil {
		return nil, err
	}
	if g.pool, err = g.open(); err != nil {
		return nil, fmt.Errorf("%w: the option tls: %w", lockstep.ErrInvalid, err)
	}
	defer func() {
		if err != nil {
			err = explainMySQL(errors.Join(err, g.pool.Close()), g.config)
		}
	}()
	if g.db, err = mysqlstore.OpenDatabase(ctx, g.pool, p.opts); err != nil {
		return nil, err
	}
	err = g.pool.QueryRowContext(ctx, `SELECT VERSION(),
EXISTS (SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'lockstep_tables')`).Scan(&g.version, &g.listed)
	if err != nil {
		return nil, errors.Join(err, g.db.Close())
	}
	return g, nil
}

func (g *mysqlGuest) open() (*sql.DB, error) {
	connector, err := mysqlstore.NewConnector(g.config)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// explainMySQL says which field of the URL a server has refused.
func explainMySQL(err error, c *mysql.Config) error {
	var refused *mysql.MySQLError
	var dial *net.OpError
	switch {
	case errors.As(err, &refused) && (refused.Number == 1045 || refused.Number == 1698):
		return fmt.Errorf("%w: the user or the password: the server at %s says: %s", lockstep.ErrInvalid, c.Addr, refused.Message)
	case errors.As(err, &refused) && refused.Number == 1044:
		return fmt.Errorf("%w: the database: the server at %s says: %s", lockstep.ErrInvalid, c.Addr, refused.Message)
	case errors.As(err, &refused) && refused.Number == 1049:
		return fmt.Errorf("%w: the database: the server at %s has none called %q", lockstep.ErrInvalid, c.Addr, c.DBName)
	case errors.As(err, &dial) && dial.Op == "dial":
		return fmt.Errorf("%w: no server answers at %s: %v", lockstep.ErrUnavailable, c.Addr, dial.Err)
	}
	return err
}

// plain opens the database as another program would.
func (g *mysqlGuest) plain(connections int) (*sql.DB, error) {
	db, err := g.open()
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

func (g *mysqlGuest) database(bool) demo.Database {
	product := "MySQL"
	if strings.Contains(g.version, "MariaDB") {
		product = "MariaDB"
	}
	return demo.Database{
		Name:     fmt.Sprintf("%s, in database %s at %s", product, g.config.DBName, g.config.Addr),
		Prefix:   g.prefix,
		Users:    mysqlTables[demo.User](g.db),
		Products: mysqlTables[demo.Product](g.db),
		Accounts: mysqlTables[demo.Account](g.db),
		Plain:    g.plain,
		SQL:      mysqlSQL,
	}
}

func mysqlTables[V any](db *mysqlstore.Database) demo.Opener[V] {
	return func(ctx context.Context, table string) (demo.Store[V], error) {
		return mysqlstore.OpenIn[string, V](ctx, db, mysqlstore.Options{Table: table})
	}
}

// mysqlSQL is about tables as mysqlstore makes them. The demo's names need no quotes.
var mysqlSQL = demo.SQL{
	Rows: func(table string, keys int) string {
		query := "SELECT `key`, `value`, `version`, `expires_at` FROM " + table
		if keys > 0 {
			query += " WHERE `key` IN (?" + strings.Repeat(", ?", keys-1) + ")"
		}
		return query
	},
	Overwrite: func(table string, countUp bool) string {
		set := "`value` = ?"
		if countUp {
			set += ", `version` = `version` + 1"
		}
		return "UPDATE " + table + " SET " + set + " WHERE `key` = ?"
	},
	Upsert: func(table string) string {
		return "INSERT INTO " + table + " (`key`, `value`, `version`, `deleted`, `stamp`) VALUES (?, ?, ?, 0, 0) " +
			"ON DUPLICATE KEY UPDATE `value` = VALUES(`value`), `version` = GREATEST(`version` + 1, VALUES(`version`))"
	},
	Copy: func(table, other string) string { return "INSERT INTO " + table + " SELECT * FROM " + other },
}

func (g *mysqlGuest) integers(ctx context.Context, table string) (lockstep.Store[int, int64], error) {
	return mysqlstore.OpenIn[int, int64](ctx, g.db, mysqlstore.Options{Table: table})
}

func (g *mysqlGuest) positions(ctx context.Context, table string) (lockstep.Store[string, int64], error) {
	return mysqlstore.OpenIn[string, int64](ctx, g.db, mysqlstore.Options{Table: table})
}

func (g *mysqlGuest) keys(ctx context.Context, table string) (lockstep.Store[string, server.Value], error) {
	return mysqlstore.OpenIn[string, server.Value](ctx, g.db, mysqlstore.Options{Table: table, Codec: rawValues()})
}

func (g *mysqlGuest) rows(ctx context.Context, table tableFlag) (server.TableStore, error) {
	return mysqlstore.NewTableIn[rows.Key, rows.Row](ctx, g.db, table.table, mysqlstore.TableOptions{ReadOnly: table.readOnly, VersionColumn: table.version})
}

func (g *mysqlGuest) close() error { return errors.Join(g.db.Close(), g.pool.Close()) }

func (g *mysqlGuest) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	err := g.db.Close()
	if err == nil {
		err = afresh(ctx, g.tidy)
	}
	if err = errors.Join(err, g.pool.Close()); err != nil {
		return fmt.Errorf("the tables %s… could not be removed: %w", g.prefix, err)
	}
	return nil
}

func (g *mysqlGuest) tidy(ctx context.Context) error {
	c, err := g.pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	tables, err := g.tables(ctx, c)
	if err != nil || len(tables) == 0 {
		return err
	}
	if _, err := c.ExecContext(ctx, "DROP TABLE "+strings.Join(tables, ", ")); err != nil {
		return err
	}
	// Those who make tables take this lock, too (mysqlstore), and find the list or make
	// it. It ends with the connection.
	sum := sha256.Sum256([]byte(g.config.DBName))
	if _, err := c.ExecContext(ctx, "DO GET_LOCK(?, 10)", "lockstep-ddl-"+hex.EncodeToString(sum[:12])); err != nil {
		return err
	}
	if _, err := c.ExecContext(ctx, "DELETE FROM lockstep_tables WHERE LEFT(name, ?) = ?", len(g.prefix), g.prefix); err != nil || g.listed {
		return err
	}
	var others int
	if err := c.QueryRowContext(ctx, "SELECT COUNT(*) FROM lockstep_tables").Scan(&others); err != nil || others > 0 {
		return err
	}
	_, err = c.ExecContext(ctx, "DROP TABLE lockstep_tables")
	return err
}

// tables are the demo's.
func (g *mysqlGuest) tables(ctx context.Context, c *sql.Conn) (names []string, err error) {
	rows, err := c.QueryContext(ctx, "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND LEFT(table_name, ?) = ?",
		len(g.prefix), g.prefix)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

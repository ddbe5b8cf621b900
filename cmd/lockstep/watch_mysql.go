package main

import (
	"context"
	"database/sql"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

var mysqlWatch = watchKind{
	form:    mysqlKind.form,
	secret:  "MYSQL_PWD",
	schemes: []string{mysqlKind.scheme, mysqlKind.alias},
	open:    openMySQLWatch,
}

type mysqlWatched struct {
	pool *sql.DB
	db   *mysqlstore.Database
}

func openMySQLWatch(ctx context.Context, url string) (watchedDatabase, error) {
	at, err := mysqlKind.parse(url)
	if err != nil {
		return nil, usagef("--store: %s", strings.TrimPrefix(err.Error(), lockstep.ErrInvalid.Error()+": "))
	}
	config, err := at.(mysqlPlace).config()
	if err != nil {
		return nil, watchFault(err)
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, usagef("--store: the option tls: %v", err)
	}
	pool := sql.OpenDB(connector)
	// Triggers are as durable as whatever else the server keeps.
	db, err := mysqlstore.OpenDatabase(ctx, pool, mysqlstore.DatabaseOptions{AllowUnsafeDurability: true})
	if err != nil {
		pool.Close()
		return nil, watchFault(explainMySQL(err, config))
	}
	return mysqlWatched{pool, db}, nil
}

// script separates the statements by what is in none of them, since triggers have
// semicolons. They are no transaction.
func (w mysqlWatched) script(statements []string) string {
	all := strings.Join(statements, "\n")
	end := "//"
	for strings.Contains(all, end) { // in the name of a column
		end += "/"
	}
	return "DELIMITER " + end + "\n" + strings.Join(statements, end+"\n") + end + "\nDELIMITER ;\n"
}

func (w mysqlWatched) close() error {
	err := w.db.Close()
	if perr := w.pool.Close(); err == nil {
		err = perr
	}
	return err
}

func (o watchOptions) mysql() mysqlstore.WatchOptions {
	return mysqlstore.WatchOptions{VersionColumn: o.VersionColumn, Role: o.Role}
}

func (w mysqlWatched) installSQL(ctx context.Context, table string, o watchOptions) ([]string, error) {
	statements, err := w.db.WatchSQL(ctx, table, o.mysql())
	return statements, watchFault(err)
}

func (w mysqlWatched) install(ctx context.Context, table string, o watchOptions) error {
	return watchFault(w.db.InstallWatch(ctx, table, o.mysql()))
}

func (w mysqlWatched) removeSQL(ctx context.Context, table string) ([]string, error) {
	statements, err := w.db.UnwatchSQL(ctx, table)
	return statements, watchFault(err)
}

func (w mysqlWatched) remove(ctx context.Context, table string) error {
	return watchFault(w.db.RemoveWatch(ctx, table))
}

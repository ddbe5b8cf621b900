// Package pgstore keeps a cache's rows in PostgreSQL, version 13 or newer, by pgx.
package pgstore

package server

import (
	"context"

	"github.com/lockstep-cache/lockstep"
)

// view is the rows of the keyspace as commands see them, who need not know which it is:
// over the cache, where each of these calls is committed by itself, or inside the
// transaction of an EXEC (rows). A command about the whole table has no place here, and is
// refused inside MULTI.
type view interface {
	// get returns what a key holds; ErrNotFound where that is nothing. many returns those
	// of several keys that hold something.
	get(ctx context.Context, key string) (Value, error)
	many(ctx context.Context, keys []string) (map[string]Value, error)

	// read returns the key's row, for those who decide by it. The version is 0 where there
	// is no row, and inside a transaction that has written it.
	read(ctx context.Context, key string) (row, lockstep.Version, error)

	// set writes a row whatever there is. One whose end is over by now is none.
	set(ctx context.Context, key string, value Value, end end) error
	// setMany writes rows without an end, all of them or none.
	setMany(ctx context.Context, values map[string]Value) error
	// remove deletes a row, and tells whether there was one.
	remove(ctx context.Context, key string) (existed bool, err error)

	// change has decide say what becomes of a row, and makes it so if the row is still
	// the one that decide has seen; otherwise it asks again. An error of decide's ends
	// it. What is decided without a write is an answer about the row as any other reader
	// gets it.
	change(ctx context.Context, key string, decide func(old row) (next, error)) error
	// transact is change for several keys: f runs again if they have changed.
	transact(ctx context.Context, f func(tx rows) error) error
}

// # Tables that exist
//
// A [Table], from [NewTable], maps a table that other programs made and go on using.
// `db` tags say which field is which column, by the exact name that the column has:
//
//	type User struct {
//		Name    string    `db:"name"`
//		Address Address   `db:"address,json"`
//		Made    time.Time `db:"created_at,readonly"`
//		Version int64     `db:"version,version"`
//	}
//
// The options are version (kept by the store), readonly (read and never written), json
// (any type, as JSON), and unix, unixmilli, unixmicro, unixnano (a time as an integer).
// A field fits a column that keeps all its values and has no others, or says so when
// the table is opened:
//
//	column                        field
//	smallint, integer, bigint     integers of any width; what the column cannot hold is
//	                              refused when it is written
//	real, double precision        float32, float64
//	numeric                       string; a type with Value and Scan; an integer for
//	                              numeric(18) or less, float64 for 15 digits or less
//	boolean                       bool
//	text, varchar, char, citext,  string, []byte (not enums); char(n) without its padding
//	enums
//	bytea                         []byte, [n]byte
//	timestamp with or without     time.Time, in µs and UTC: a timestamp without time zone
//	time zone                     holds the time in UTC, and not the local clock's
//	date                          time.Time: midnight UTC of the day in its own location
//	uuid                          [16]byte types, string
//	json, jsonb                   string, []byte, and any type with the option json
//	arrays of these but bytea,    slices, of one dimension; nil is NULL
//	char and json
//	domains                       as what is under them
//
// NULL is a nil pointer, a sql.Null, or a nil []byte, slice or JSON. Types with Value
// and Scan convert themselves. Whatever the database rounds or writes in a form of its
// own (numeric(10,2), jsonb) is what Load returns, and what the commit gives back.
//
// A key is a string (text, varchar, an enum, or a uuid in lower case), an integer, a
// float, a [n]byte (bytea), a [16]byte (uuid), or a struct of those. A key column that
// takes two keys of Go's for one is refused: citext, char(n), a nondeterministic
// collation. What PostgreSQL's text cannot hold, a NUL or bytes that are not UTF-8, is
// refused key by key.
//
// A program that knows the columns only when it runs maps a table to rows.Key and rows.Row
// ([github.com/lockstep-cache/lockstep/store/rows]): all of its columns, as text. Arrays have
// none, nor have types that are not in this list; a table with such a column is refused.
package pgstore

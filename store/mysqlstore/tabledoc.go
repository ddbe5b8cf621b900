// # Tables that exist
//
// A [Table], from [NewTable], maps a table that other programs made and go on using.
// `db` tags say which field is which column; names are compared as MySQL does, whatever
// their case:
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
// the table is opened; a value that the column cannot hold is refused, and never cut:
//
//	column                        field
//	tinyint … bigint, unsigned    integers of any width; bool for tinyint(1)
//	float, double                 float32, float64
//	decimal                       string; a type with Value and Scan; an integer for
//	                              decimal(18) or less, float64 for 15 digits or less
//	char, varchar, text           string, []byte; char(n) without its padding
//	binary, varbinary, blob       []byte, [n]byte; binary(n) filled up with zeros
//	date                          time.Time: midnight UTC of the day in its own location
//	datetime, timestamp           time.Time, in UTC, rounded down to what the column
//	                              keeps: a datetime holds the time in UTC, and not the
//	                              local clock's
//	enum, set                     string: a member, or some with commas between them
//	json                          string, []byte, and any type with the option json
//	uuid (MariaDB)                [16]byte types, string
//
// NULL is a nil pointer, a sql.Null, or a nil []byte or JSON. Types with Value and Scan
// convert themselves. Whatever the database rounds or writes in a form of its own is
// what Load returns, and what the commit gives back.
//
// A key is an integer, a float64 (double), a string (varbinary, a uuid in lower case, or
// varchar with the collation utf8mb4_nopad_bin; on MySQL utf8mb4_0900_bin), a [n]byte, a
// [16]byte (uuid), or a struct of those. A key column that takes two keys of Go's for
// one is refused: char(n), an enum, and every other collation, utf8mb4_bin included, to
// which "a" and "a " are the same. Most tables have another one: the error says how to
// change it. To the program's own SQL, case and spaces in that column matter from then on,
// and columns that refer to it by a foreign key have to be changed with it.
//
// [lockstep.Cache.Insert] makes a row with a key of AUTO_INCREMENT, or on MariaDB of a
// computed DEFAULT. Its key is known before COMMIT is sent: a lost reply is settled by
// the row, and then it is known which one it was.
//
// A commit on a mapped table fails as one on a table of our own does, but that there is
// no statement in autocommit mode: until COMMIT is sent nothing is unknown.
//
// A program that knows the columns only when it runs maps a table to rows.Key and rows.Row
// ([github.com/lockstep-cache/lockstep/store/rows]): all of its columns, as text. A BOOLEAN is
// a TINYINT(1), and so a whole number. A column ON UPDATE CURRENT_TIMESTAMP is only read, or
// writing the others would keep it as it is. Types that are not in this list have no text, and a
// table with such a column is refused. On MySQL a NOT NULL column whose default is an
// expression other than CURRENT_TIMESTAMP has to be given in a new row.
package mysqlstore

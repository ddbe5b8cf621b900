// Package journal keeps the acknowledged writes of a lockstep.Cache in Mode WriteBehind on
// a disk of this machine until the database has them, so that an acknowledged write
// survives the end of the program, and of the machine.
//
//	positions, err := sqlitestore.OpenIn[string, int64](ctx, db, sqlitestore.Options{Table: "journal_positions"})
//	kept, err := journal.Open(ctx, "/var/lib/app/journal", journal.Options[string, User]{Positions: positions})
//	cache, err := lockstep.New(users, lockstep.Options[string, User]{
//		Mode:   lockstep.WriteBehind,
//		Behind: lockstep.Behind[string, User]{Journal: kept},
//	})
//
// # What is where
//
// A directory has the files of one journal, for one cache. A file is a header and records,
// each with its length, a CRC-32C and a number; numbers count up by one. A record is on the
// disk (fsync; of the directory, too, where the file is new) before its write is
// acknowledged; one fsync serves all who wait.
//
// The database has one row for the journal, in a table of positions, which many journals
// may share: up to which number all records are over. The cache moves it in the
// transaction that makes the records' rows. So each record is made once: a replay makes
// what is not there, and overwrites nothing that others have written after the flush. A
// file all of whose records are over is removed.
//
// # When a journal is opened
//
// The last record may be half written, when the machine has lost power or the disk was
// full. Whatever is whole before it is kept; what is cut off was not acknowledged. It is cut
// away, said in the log, and in Report. Damage with whole records after it is something
// else: an error that names the file and the byte (DamageError), and nothing is changed.
//
// A position that is behind the journal's first record, or that is not there, says that the
// database is not the one that the journal belongs to, or an older copy of it: records are
// missing that it has not. That is ErrForeign. A position that is ahead says that the
// journal is an older copy: nothing of it will be made again.
//
// Two programs cannot have a journal open at once: the directory is locked, as far as the
// file system can. The position is moved only from where this program has left it, so
// that copies of a directory which are used at once find out.
//
// # A disk that is full, or fails
//
// Where a record could not be written, and the file could be cut back to where it was and
// that was synced, the write is not applied (ErrUnavailable). Where that is not sure, or the sync
// itself has failed, its outcome is unknown: the cache then flushes what was acknowledged before, has
// the position moved beyond the doubtful records, which settles them as not applied, and begins
// a new file; meanwhile writes go through.
package journal

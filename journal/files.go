package journal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-cache/lockstep"
)

const suffix = ".journal"

// list returns the files, in the order of their first records, which they are named by.
func (j *Journal[K, V]) list() (files []segment, err error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(j.dir, e.Name())
		if strings.HasSuffix(e.Name(), suffix+temporary) {
			if err := j.disk.remove(path); err != nil { // never had its name
				return nil, fmt.Errorf("journal: %w", err)
			}
			continue
		}
		number, ours := strings.CutSuffix(e.Name(), suffix)
		if !ours {
			continue
		}
		first, err := strconv.ParseUint(number, 10, 64)
		if err != nil || first == 0 {
			return nil, &DamageError{File: path, What: "its name is no number"}
		}
		files = append(files, segment{path, first})
	}
	slices.SortFunc(files, func(a, b segment) int { return strings.Compare(a.path, b.path) })
	return files, nil
}

// beginFile makes the file that is appended to.
func (j *Journal[K, V]) beginFile(first uint64) error {
	head, err := json.Marshal(header{Journal: j.position.key, First: first, Keys: j.options.Keys.Name(), Values: j.options.Values.Name()})
	if err != nil {
		return err
	}
	content := appendFrame([]byte(magic), 0, head)
	path := filepath.Join(j.dir, fmt.Sprintf("%020d%s", first, suffix))
	if j.current, err = j.disk.create(path, content); err != nil {
		j.current = nil
		return err
	}
	j.size = int64(len(content))
	j.files = append(slices.DeleteFunc(j.files, func(s segment) bool { return s.first == first }), segment{path, first})
	return nil
}

// removeOver removes the files all of whose records are over.
func (j *Journal[K, V]) removeOver(number uint64) {
	for len(j.files) > 1 && j.files[1].first <= number+1 {
		if err := j.disk.remove(j.files[0].path); err != nil {
			j.options.Logger.Warn("journal: a file that is over could not be removed", "error", err)
			return
		}
		j.files = j.files[1:]
	}
}

// recover reads what the journal holds, and the database's position.
func (j *Journal[K, V]) recover(ctx context.Context) error {
	files, err := j.list()
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return j.begin(ctx)
	}
	// The newest file alone says which journal it is, and so what is over.
	newest, _, err := j.read(files[len(files)-1])
	if err != nil {
		return err
	}
	j.position.key = newest.header.Journal
	over, err := j.position.take(ctx)
	if err != nil {
		return err
	}
	j.files = files
	for len(files) > 1 && files[1].first <= over+1 {
		files = files[1:] // perhaps one that could not be written to its end
	}
	if files[0].first > over+1 {
		return fmt.Errorf("%w: %s begins with record %d, and the database says that those up to %d are over", ErrForeign, j.dir, files[0].first, over)
	}
	j.last = files[0].first - 1
	for i, f := range files {
		if f.first != j.last+1 {
			return &DamageError{File: f.path, What: fmt.Sprintf("the file before it ends with record %d", j.last)}
		}
		c, content, err := j.read(f)
		if err != nil {
			return err
		}
		if c.header.Journal != j.position.key {
			return &DamageError{File: f.path, Byte: int64(len(magic)), What: "it is a file of another journal"}
		}
		cut := len(content) - c.good
		if cut > 0 && i < len(files)-1 {
			return &DamageError{File: f.path, Byte: int64(c.good), What: "a damaged record, with a file after it"}
		}
		for _, r := range c.records {
			j.last = r.number
			if r.number <= over {
				continue
			}
			list, err := j.changes.decode(r.data)
			if err != nil {
				return fmt.Errorf("journal: %s, record %d: %w", f.path, r.number, err)
			}
			j.found = append(j.found, lockstep.JournalRecord[K, V]{Number: r.number, Changes: list})
		}
		j.size = int64(c.good)
		j.report.CutOff, j.report.At, j.report.File = int64(cut), int64(c.good), f.path
	}
	j.report.Records = len(j.found)
	if err := j.continueFile(); err != nil {
		return err
	}
	if j.last < over {
		// An older copy. Numbers go on after those that the database has seen.
		j.options.Logger.Warn("journal: the database is ahead of the journal, which is an older copy, or was not synced", "directory", j.dir, "position", over, "last", j.last)
		j.last = over
		if err := j.current.Close(); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		j.current = nil
	}
	j.removeOver(over) // what a program has left that ended before it could
	if j.report.Records > 0 {
		j.options.Logger.Info("journal: writes that the database has not are made again", "directory", j.dir, "records", j.report.Records)
	}
	return nil
}

// read reads a file whose header has to be that of this journal's codecs.
func (j *Journal[K, V]) read(f segment) (c contents, content []byte, err error) {
	if content, err = j.disk.read(f.path); err != nil {
		return c, nil, fmt.Errorf("journal: %w", err)
	}
	c, err = parse(content)
	var damaged *errDamaged
	switch {
	case errors.As(err, &damaged):
		return c, nil, &DamageError{File: f.path, Byte: int64(damaged.at), What: damaged.what}
	case err != nil:
		return c, nil, err
	case c.header.First != f.first:
		return c, nil, &DamageError{File: f.path, Byte: int64(len(magic)), What: fmt.Sprintf("its first record is %d, and its name says another", c.header.First)}
	case c.header.Keys != j.options.Keys.Name() || c.header.Values != j.options.Values.Name():
		return c, nil, fmt.Errorf("journal: %w option: %s was made with the codecs %s and %s", lockstep.ErrInvalid, f.path, c.header.Keys, c.header.Values)
	}
	return c, content, nil
}

// continueFile opens the last file for appending, cut where its last whole record ends.
func (j *Journal[K, V]) continueFile() (err error) {
	path := j.files[len(j.files)-1].path
	if j.current, err = j.disk.open(path); err != nil {
		j.current = nil
		return fmt.Errorf("journal: %w", err)
	}
	if j.report.CutOff > 0 {
		err = j.current.Truncate(j.size)
	}
	if err == nil {
		// A program that was killed may have left records that only the kernel has, and
		// readers are about to see them.
		err = j.current.Sync()
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if j.report.CutOff == 0 {
		j.report.File, j.report.At = "", 0
		return nil
	}
	j.options.Logger.Warn("journal: what was not a whole record is cut away", "file", path, "byte", j.size, "bytes", j.report.CutOff)
	return nil
}

// begin makes a new journal: its position first, for a file without one would be taken for
// another database's.
func (j *Journal[K, V]) begin(ctx context.Context) error {
	identity := make([]byte, 16)
	_, _ = rand.Read(identity) // never fails
	if err := j.position.begin(ctx, hex.EncodeToString(identity)); err != nil {
		return err
	}
	if err := j.beginFile(1); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

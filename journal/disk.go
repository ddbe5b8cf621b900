package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// disk is what a journal does to files. The tests have one that fails.
type disk interface {
	// create makes a file with the content, durably, and leaves it open for appending.
	create(path string, content []byte) (file, error)
	open(path string) (file, error)
	remove(path string) error
	read(path string) ([]byte, error)
}

// file is one that is appended to.
type file interface {
	Write(b []byte) (int, error)
	Sync() error
	Truncate(size int64) error
	Close() error
}

type osDisk struct{}

// create writes under another name first: a file that has its name is whole.
func (d osDisk) create(path string, content []byte) (file, error) {
	f, err := os.OpenFile(path+temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(path+temporary, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), gone(os.Remove(path+temporary)))
	}
	return f, nil
}

// temporary ends the name of a file that is not whole.
const temporary = ".new"

func (osDisk) open(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
}

func (osDisk) remove(path string) error { return gone(os.Remove(path)) }

func (osDisk) read(path string) ([]byte, error) { return os.ReadFile(path) }

// gone is nil where there was no file.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// makeDir makes a directory durably, and those above it that are not there.
func makeDir(dir string, sync func(dir string) error) error {
	dir = filepath.Clean(dir)
	above := filepath.Dir(dir)
	if _, err := os.Stat(above); errors.Is(err, fs.ErrNotExist) && above != dir {
		if err := makeDir(above, sync); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return sync(above)
}

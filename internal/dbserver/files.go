package dbserver

import (
	"errors"
	"os"
	"path/filepath"
)

// Backup copies the data of a server that is down. The function that it returns puts the
// copy in the place of what there is then, and leaves the server down, too.
func (s *Server) Backup() (restore func() error, err error) {
	backup := filepath.Join(s.dir, "backup")
	replace := func(to, from string) error {
		return s.do("copying the data of", func() error { return s.replace(to, from) })
	}
	if err := replace(backup, s.kind.data(s)); err != nil {
		return nil, err
	}
	return func() error { return replace(s.kind.data(s), backup) }, nil
}

// Follow makes a server that is down a copy of another one that is down, with its users
// and their passwords.
func (s *Server) Follow(other *Server) error {
	return s.do("copying into", func() error {
		if err := s.replace(s.kind.data(s), other.kind.data(other)); err != nil {
			return err
		}
		s.password = other.password
		return nil
	})
}

// replace makes a directory a copy of another one.
func (s *Server) replace(to, from string) error {
	if s.process != nil {
		return errRunning
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() { // PostgreSQL wants it to be nobody else's
			err = os.Chmod(path, 0o700)
		}
		return errors.Join(err, giveAway(path))
	})
}

// Demote makes a PostgreSQL that is down a standby, of nobody, from when it is started
// again.
func (s *Server) Demote() error {
	return s.do("demoting", func() error {
		if _, ok := s.kind.(postgres); !ok {
			return errors.ErrUnsupported
		}
		if s.process != nil {
			return errRunning
		}
		file := filepath.Join(s.kind.data(s), "standby.signal")
		return errors.Join(os.WriteFile(file, nil, 0o600), giveAway(file))
	})
}

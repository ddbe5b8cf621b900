package mysqlstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Ending a session, so that nothing of it can take effect any more.
//
// Each session holds a user-level lock (GET_LOCK) of a name that only it has used.
// Both servers give it up when the session ends, after its transaction has been
// rolled back or has finished to commit. So whoever gets the lock knows that the
// session is gone, without polling; IS_USED_LOCK tells its number, so that KILL
// cannot hit another one that was given the same number after a restart; and a proxy
// that would share a connection among clients leaves one alone that has such a lock.
//
// Waiting for the number to leave the list of processes was rejected: after a
// restart it may be somebody else's.

// errElsewhere says that another server answers than the one that the session was of.
var errElsewhere = errors.New("another server answers than the one that was asked to commit")

// end kills a session and waits until it is gone. It returns errElsewhere if that
// cannot be told here, and every other error when it has to be asked again.
func (db *Database) end(ctx context.Context, f fence) error {
	s, err := db.open(ctx)
	if err != nil {
		return unasked(err)
	}
	defer s.close()
	if err := s.end(ctx, f); err != nil {
		if errors.Is(err, errElsewhere) {
			return err
		}
		return unasked(err)
	}
	return nil
}

// newFenceName returns a lock's name that nobody else has used.
func newFenceName() string {
	var nonce [12]byte
	rand.Read(nonce[:])
	return "lockstep-" + hex.EncodeToString(nonce[:])
}

// sees tells whether a session is still there. Where somebody else has its lock, he is
// ending it, too.
func (s *session) sees(ctx context.Context, f fence) (bool, error) {
	if s.fence.server != f.server {
		return false, fmt.Errorf("%w: %s, and not %s", errElsewhere, s.fence.server, f.server)
	}
	row, err := s.row(ctx, "SELECT IS_USED_LOCK('"+f.name+"')")
	if err != nil {
		return false, err
	}
	id, there := integer(row[0])
	return there && id == f.id, nil
}

func (s *session) end(ctx context.Context, f fence) error {
	for {
		there, err := s.sees(ctx, f)
		if err != nil || !there {
			return err
		}
		err = s.run(ctx, fmt.Sprintf("KILL CONNECTION %d", f.id))
		if err != nil && number(err) != errNoThread {
			return err
		}
		// The kill takes effect at certain points only, and a commit that has begun is
		// finished first.
		row, err := s.row(ctx, "SELECT GET_LOCK('"+f.name+"', 1)")
		if err != nil {
			return err
		}
		if locked, _ := integer(row[0]); locked == 1 {
			return s.run(ctx, "DO RELEASE_LOCK('"+f.name+"')")
		}
	}
}

// checkFence makes sure at open that a session can be ended from another one, by
// doing it.
func (db *Database) checkFence(ctx context.Context, s *session) error {
	victim, err := db.open(ctx)
	if err != nil {
		return err
	}
	defer victim.close()
	row, err := s.row(ctx, "SELECT IS_USED_LOCK('"+victim.fence.name+"')")
	if err != nil {
		return err
	}
	if id, _ := integer(row[0]); id != victim.fence.id || victim.fence.server != s.fence.server {
		return invalid("two connections do not see each other's user-level locks: "+
			"something between here and the server shares connections, or spreads them over several servers (%s, %s)", s.fence.server, victim.fence.server)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := s.end(ctx, victim.fence); err != nil {
		return invalid("a connection cannot be ended from another one (KILL CONNECTION), which settling an unknown outcome needs: %w", err)
	}
	if err := victim.run(ctx, "DO 1"); err == nil {
		return invalid("a connection that was killed goes on; settling an unknown outcome needs KILL CONNECTION")
	}
	return nil
}

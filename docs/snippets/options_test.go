package snippets

import (
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

var alone = lockstep.Options[string, User]{} // 100,000 entries, for as long as there is room

var besideOthers = lockstep.Options[string, User]{
	TTL:          30 * time.Second, // what others write is seen after that long
	StaleIfError: 10 * time.Minute, // GetEntry may tell what it was, while the database is away
}

var money = lockstep.Options[string, int64]{
	AuditInterval: 100 * time.Millisecond, // 2,560 copies a second are compared with their rows
	CommitTimeout: 3 * time.Second,        // a customer does not wait longer to be told that it is not known
	QueueLimit:    2_000,                  // beyond it a write fails at once
}

func TestOptions(t *testing.T) {
	open(t, memstore.New(memstore.Options[string, User]{}), alone)
	open(t, memstore.New(memstore.Options[string, User]{}), besideOthers)
	open(t, memstore.New(memstore.Options[string, int64]{}), money)
}

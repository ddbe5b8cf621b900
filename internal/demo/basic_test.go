package demo

import (
	"testing"

	"github.com/lockstep-cache/lockstep"
)

func TestMemoryIsWithinItsBoundWhenTheEntriesAreCounted(t *testing.T) {
	s, _ := rehearsal(t)
	ctx := t.Context()
	users, err := openTable(ctx, s, recipe[User]{
		name: "users", open: s.options.Database.Users,
		options: lockstep.Options[string, User]{MaxEntries: 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := users.fill(ctx, 2000, userKey, userRow); err != nil {
		t.Fatal(err)
	}
	stats, err := users.evicted(ctx, userKey(0))
	if err != nil {
		t.Fatal(err)
	}
	if stats.Maximum != 20 || stats.Entries == 0 || stats.Entries > stats.Maximum || stats.Evictions == 0 {
		t.Errorf("memory has %d entries of at most %d, and has evicted %d", stats.Entries, stats.Maximum, stats.Evictions)
	}
}

package sqlitestore

import (
	"context"
	"strings"
	"testing"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/lockstep-cache/lockstep/store/internal/errortable"
)

// The table in docs/design/unknown.md and the code say the same of every result code.
func TestTheTableOfFates(t *testing.T) {
	fates, rest := errortable.Fates(t, errortable.Read(t, "SQLite"))
	names := map[fate]string{fateGone: "gone", fateRefused: "refused", fateUnknown: "unknown"}
	named := map[int]string{
		lib.SQLITE_BUSY: "BUSY", lib.SQLITE_LOCKED: "LOCKED", lib.SQLITE_INTERRUPT: "INTERRUPT", lib.SQLITE_NOMEM: "NOMEM",
		lib.SQLITE_PROTOCOL: "PROTOCOL", lib.SQLITE_FULL: "FULL", lib.SQLITE_CANTOPEN: "CANTOPEN", lib.SQLITE_PERM: "PERM",
		lib.SQLITE_READONLY: "READONLY", lib.SQLITE_CONSTRAINT: "CONSTRAINT", lib.SQLITE_MISMATCH: "MISMATCH", lib.SQLITE_TOOBIG: "TOOBIG",
		lib.SQLITE_RANGE: "RANGE", lib.SQLITE_ERROR: "ERROR", lib.SQLITE_AUTH: "AUTH", lib.SQLITE_SCHEMA: "SCHEMA",
	}
	for code, name := range named {
		if said := sqlite.ErrorCodeString[code]; !strings.Contains(said, "SQLITE_"+name) {
			t.Errorf("code %d is %q, and not %s", code, said, name)
		}
		if fates[name] == "" {
			t.Errorf("the table does not name %s", name)
		}
	}
	for code := range 256 {
		want := rest
		if f := fates[named[code]]; f != "" {
			want = f
		}
		for _, extended := range []int{code, code | 1<<8, code | 20<<8} {
			if got := names[fateOfCode(extended)]; got != want {
				t.Errorf("code %d is %s, and the table says %s", extended, got, want)
			}
		}
	}
	if got := names[fateOf(context.Canceled)]; got != rest {
		t.Errorf("an error that is not SQLite's is %s, and the table says %s", got, rest)
	}
}

package mysqlstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// A server with a small max_allowed_packet closes the connection when a statement is
// longer: writes that were committed together, or a SetMany, failed however often they were
// made again, and a row that is too long made those fail beside it.
func TestStatementsFitIntoTheServersPacket(t *testing.T) {
	server := dbtest.StartMariaDB(t, "--max-allowed-packet=1M")
	plain := connect(t, server.URL())
	execute(t, plain, "CREATE TABLE pairs (id VARBINARY(20) PRIMARY KEY, a LONGBLOB NOT NULL, b LONGBLOB NOT NULL)")
	db := openDatabase(t, server.URL())
	own, err := mysqlstore.OpenIn[string, string](t.Context(), db, mysqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := mysqlstore.NewTableIn[string, pair](t.Context(), db, "pairs", mysqlstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	half := strings.Repeat("x", 450<<10)

	cache := cachetest.Open(t, own, lockstep.Options[string, string]{})
	pairs := cachetest.Open(t, mapped, lockstep.Options[string, pair]{})
	texts, rows := map[string]string{}, map[string]pair{}
	for i := range 7 {
		texts[fmt.Sprint("k", i)] = half
		rows[fmt.Sprint("k", i)] = pair{[]byte(half), []byte("b")}
	}
	for range 2 { // insertions, and then updates
		if err := cache.SetMany(t.Context(), texts); err != nil {
			t.Errorf("SetMany: %v", err)
		}
		if err := pairs.SetMany(t.Context(), rows); err != nil {
			t.Errorf("SetMany, mapped: %v", err)
		}
	}
	out, err := own.Commit(t.Context(), []changeSet{set(put("l0", half)), set(put("l1", half)), set(put("l2", half))})
	if err != nil || out[0].Err != nil {
		t.Errorf("a batch: %+v, %v", out, err)
	}

	large := bytes.Repeat([]byte("x"), 600<<10)
	var sets []lockstep.ChangeSet[string, pair]
	for key, v := range map[string]pair{"short": {[]byte("a"), []byte("b")}, "long": {large, large}} {
		sets = append(sets, lockstep.ChangeSet[string, pair]{Changes: []lockstep.Change[string, pair]{{Key: key, Value: v}}})
	}
	outcomes, err := mapped.Commit(t.Context(), sets)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		if large := sets[i].Changes[0].Key == "long"; large != errors.Is(o.Err, lockstep.ErrTooLarge) || !large && o.Err != nil {
			t.Errorf("%s beside a row that is too long: %v", sets[i].Changes[0].Key, o.Err)
		}
	}
}

type pair struct {
	A []byte `db:"a"`
	B []byte `db:"b"`
}

// A server has a limit of prepared statements for all its clients together, and each session
// kept all that it had ever used.
func TestASessionKeepsSoManyStatements(t *testing.T) {
	db := openDatabase(t, dbtest.MariaDB(t))
	var queries []string
	for range 2 {
		for i := range 300 {
			queries = append(queries, fmt.Sprintf("SELECT ? + %d", i))
		}
	}
	kept, err := mysqlstore.Prepare(t.Context(), db, queries)
	if err != nil {
		t.Fatal(err)
	}
	if kept != 256 {
		t.Errorf("%d are kept", kept)
	}
}

package pgstore_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

var databases atomic.Int64

// newDatabase returns the URL of a new, empty database.
func newDatabase(t testing.TB) string {
	t.Helper()
	server := os.Getenv("LOCKSTEP_TEST_POSTGRES")
	if server == "" {
		t.Fatal("LOCKSTEP_TEST_POSTGRES is not set")
	}
	name := fmt.Sprintf("t%d_%d", os.Getpid(), databases.Add(1))
	admin := func(query string) {
		c, err := pgx.Connect(context.Background(), server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		if _, err := c.Exec(context.Background(), query); err != nil {
			t.Fatal(err)
		}
	}
	admin("CREATE DATABASE " + name)
	t.Cleanup(func() { admin("DROP DATABASE " + name + " WITH (FORCE)") })
	return server[:strings.LastIndex(server, "/")+1] + name
}

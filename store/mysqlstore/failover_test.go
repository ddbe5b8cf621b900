package mysqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// TestSeveralServersBehindOneAddress: connections that are spread over servers are
// refused at open, and after a failover a commit that was under way cannot be told.
func TestSeveralServersBehindOneAddress(t *testing.T) {
	a, b := dbtest.StartMariaDB(t, "--server-id=1"), dbtest.StartMariaDB(t, "--server-id=2")
	for _, server := range []*dbtest.Server{a, b} {
		pool := connect(t, server.URL())
		execute(t, pool, "CREATE USER anywhere IDENTIFIED BY 'here'")
		execute(t, pool, "GRANT ALL PRIVILEGES ON *.* TO anywhere")
	}
	proxy := dbtest.NewProxy(t, a.Addr())
	var dial atomic.Value
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName, cfg.Net, cfg.Addr = "anywhere", "here", "lockstep", "tcp", "balanced"
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", dial.Load().(func() string)())
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pool := sql.OpenDB(connector)
	defer pool.Close()

	var dialed atomic.Int64
	dial.Store(func() string { return []string{a.Addr(), b.Addr()}[dialed.Add(1)%2] })
	refuses(t, openErr(t, pool, mysqlstore.DatabaseOptions{}), lockstep.ErrInvalid, "several servers")

	dial.Store(proxy.Addr)
	s, err := mysqlstore.Open[string, string](t.Context(), pool, mysqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	other := openStore(t, b.URL()) // what replication would have made there
	write(t, s, put("k", "before"))
	cut := proxy.CutReply("marker")
	_, unknown := s.Commit(t.Context(), []changeSet{set(put("k", "marker"))})
	<-cut
	if !errors.Is(unknown, lockstep.ErrUnknownOutcome) {
		t.Fatalf("Commit: %v, want ErrUnknownOutcome", unknown)
	}
	cache, err := lockstep.New(s, lockstep.Options[string, string]{})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close(t.Context())
	old := connect(t, a.URL())
	joined, err := mysqlstore.Join(t.Context(), s.Database(), begin(t, old))
	if err != nil {
		t.Fatal(err)
	}
	u, err := cache.InJoined(joined)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Set(t.Context(), "joined", "v"); err != nil {
		t.Fatal(err)
	}
	dial.Store(b.Addr)
	proxy.CutAll()
	settled, err := s.Capabilities().Settle(t.Context(), unknown)
	if err != nil || settled.Err == nil || settled.Applied {
		t.Errorf("settled by another server: %+v, %v, want it untold", settled, err)
	}
	write(t, s, put("k", "after"))
	if got := load(t, other, "k").Value; got != "after" {
		t.Errorf("the server that has taken over holds %q", got)
	}

	// What would be committed at the server that was, the one that there is will not have.
	err = joined.Commit(t.Context())
	if errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("Commit at the server that was: %v, want that it was not applied", err)
	}
	refuses(t, err, lockstep.ErrUnavailable, "another server")
	waitFor(t, old, 0, "SELECT COUNT(*) FROM lockstep WHERE `key` = 'joined'")
	_, err = mysqlstore.Join(t.Context(), s.Database(), begin(t, old))
	refuses(t, err, lockstep.ErrInvalid, "another server")
	j, err := mysqlstore.Join(t.Context(), s.Database(), begin(t, connect(t, b.URL())))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}

package mysqlstore

import (
	"context"
	"database/sql/driver"
	"net"
	"time"

	"github.com/go-sql-driver/mysql"
)

// NewConnector is [mysql.NewConnector] for a *sql.DB that stores take connections out of:
//
//	config, err := mysql.ParseDSN(dsn)
//	…
//	connector, err := mysqlstore.NewConnector(config)
//	…
//	pool := sql.OpenDB(connector)
//
// With it a statement of a store's is quicker by what waking a goroutine takes, twice:
// the driver has one watch the context of each statement, whereas a store cuts its own
// connections off, if it knows them, when a context ends. Nothing else is different, for
// the store or for the program's own statements; any *sql.DB of the driver's will do.
//
// Networks that are registered with the driver (RegisterDialContext), other than tcp and
// unix, are left to it. Who has registered one of those two sets Config.DialFunc.
func NewConnector(config *mysql.Config) (driver.Connector, error) {
	if config == nil {
		return nil, invalid("the mysql.Config is nil")
	}
	config = config.Clone()
	dial := config.DialFunc
	if dial == nil {
		switch config.Net {
		case "", "tcp", "unix":
			dial = new(net.Dialer).DialContext
		default:
			return mysql.NewConnector(config)
		}
	}
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if to, ok := ctx.Value(dialedKey{}).(*net.Conn); ok && err == nil {
			*to = conn
		}
		return conn, err
	}
	inner, err := mysql.NewConnector(config)
	if err != nil {
		return nil, err
	}
	return connector{inner}, nil
}

// dialedKey has, in the context of Connect, where the network connection is to be put.
type dialedKey struct{}

type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	var dialed net.Conn
	conn, err := c.Connector.Connect(context.WithValue(ctx, dialedKey{}, &dialed))
	if err != nil {
		return nil, err
	}
	if whole, ok := conn.(driverConn); ok && dialed != nil {
		return severable{whole, dialed}, nil
	}
	return conn, nil
}

// severable is a connection of the driver's whose network connection is known.
type severable struct {
	driverConn
	network net.Conn
}

// driverConn is what the driver's connections can do, all of which database/sql has to
// see.
type driverConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

// sever has the network connection fail when ctx ends: what waits for it returns. Whole is to
// be called when the driver has returned: it tells whether that has not happened, and will not.
func sever(ctx context.Context, network net.Conn) (whole func() bool) {
	cut := func() { network.SetDeadline(longAgo) }
	// A context that can do it by itself, as a commit's, needs no child for that.
	if ctx, ok := ctx.(interface{ AfterFunc(func()) func() bool }); ok {
		return ctx.AfterFunc(cut)
	}
	return context.AfterFunc(ctx, cut)
}

var longAgo = time.Unix(1, 0)

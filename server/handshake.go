package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// handshaking is how long a TLS handshake may take.
const handshaking = 10 * time.Second

// shake makes the handshake of a connection over TLS, and tells whether it is to be served.
// One over anything else is.
func (c *conn) shake() bool {
	secure, ok := c.nc.(interface{ HandshakeContext(context.Context) error })
	if !ok {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), handshaking) // drain ends it, too
	defer cancel()
	err := secure.HandshakeContext(ctx)
	if err == nil {
		return true
	}
	select {
	case <-c.server.stop:
		return false
	default:
	}
	c.server.counts.shakes.Add(1)
	c.server.unwelcome.warn(c, "server: a TLS handshake failed; its connection is closed", err)
	if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && plain.Conn != nil {
		// Who speaks no TLS can be told so; redis-cli shows it.
		var w resp.Writer
		w.Error("ERR this address speaks TLS, and the connection does not")
		if plain.Conn.SetDeadline(time.Now().Add(lingering)) == nil {
			_, _ = plain.Conn.Write(w.Bytes())
		}
		linger(plain.Conn)
	}
	return false
}

// tlsRecord begins a TLS handshake: a record of that kind, of any version.
var tlsRecord = []byte{0x16, 3}

// misdirected logs that a connection which sent no request began with TLS.
func (c *conn) misdirected() {
	if c.current == nil && bytes.HasPrefix(c.r.Rest(), tlsRecord) {
		c.server.unwelcome.warn(c, "server: a TLS handshake on an address that does not speak TLS; its connection is closed", nil)
	}
}

// sparse logs about connections that are unwelcome: once a second at most, so that
// whoever makes them cannot fill the log.
type sparse struct {
	mu      sync.Mutex
	next    time.Time
	skipped int
}

func (l *sparse) warn(c *conn, message string, err error) {
	now := time.Now()
	l.mu.Lock()
	if now.Before(l.next) {
		l.skipped++
		l.mu.Unlock()
		return
	}
	skipped := l.skipped
	l.next, l.skipped = now.Add(time.Second), 0
	l.mu.Unlock()
	args := []any{"from", c.nc.RemoteAddr()}
	if err != nil {
		args = append(args, "error", err)
	}
	if skipped > 0 {
		args = append(args, "others_meanwhile", skipped)
	}
	c.server.options.Logger.Warn(message, args...)
}

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
)

// longestPEM bounds what is read of a file of certificates. A system's whole list of
// authorities has some 200 KiB.
const longestPEM = 4 << 20

// certificates is what the server shows, and whom it takes certificates from, as of now.
type certificates struct {
	paths []string // of the certificate and its key, and of the authorities, if there are any
	now   atomic.Pointer[tls.Config]
}

// certificates reads the files that the flags name; nil where there are none.
func (v *serveVerb) certificates() (*certificates, error) {
	if v.TLSCert == "" && v.TLSKey == "" && v.TLSCA == "" && len(v.RedisTLS) == 0 {
		return nil, nil
	}
	switch {
	case v.TLSCert == "" || v.TLSKey == "":
		return nil, usagef("--redis-tls needs --tls-cert and --tls-key")
	case len(v.RedisTLS) == 0:
		return nil, usagef("--tls-cert is for --redis-tls, which is not given: no address would speak TLS")
	}
	c := &certificates{paths: []string{v.TLSCert, v.TLSKey}}
	if v.TLSCA != "" {
		c.paths = append(c.paths, v.TLSCA)
	}
	texts, err := c.watched().read()
	if err == nil {
		err = c.load(texts)
	}
	if err != nil {
		return nil, usagef("TLS: %v", err)
	}
	return c, nil
}

func (c *certificates) load(texts [][]byte) error {
	pair, err := tls.X509KeyPair(texts[0], texts[1])
	if err != nil {
		return fmt.Errorf("--tls-cert %s and --tls-key %s: %w", c.paths[0], c.paths[1], err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if len(texts) > 2 {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(texts[2]) {
			return fmt.Errorf("--tls-ca %s: there is no certificate in it", c.paths[2])
		}
	}
	c.now.Store(config)
	return nil
}

func (c *certificates) watched() watched {
	return watched{what: "certificates", paths: c.paths, longest: longestPEM, load: c.load}
}

// config is for a listener. Each handshake is made with what the files held last. A session
// that began with other certificates is not resumed, for its ticket was another
// configuration's: who has lost its authority cannot come back by it.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.now.Load(), nil },
	}
}

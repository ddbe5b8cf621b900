package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serial int64

// certify makes a certificate, signed by a, or where that is nil, an authority's.
func (a *authority) certify(t *testing.T, name string) (made *authority, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	by := a
	if by == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage, template.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		by = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

func put(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestServeTLS: redis-cli and Go's client, with and without a certificate of their own, and
// with the server's and its authorities replaced while it runs.
func TestServeTLS(t *testing.T) {
	cli, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Fatalf("%v: make test installs it, as a part of redis-server", err)
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	var none *authority
	ca, caPEM, _ := none.certify(t, "authority")
	other, otherPEM, _ := none.certify(t, "another authority")
	cert := func(by *authority, cert, key string) tls.Certificate {
		_, c, k := by.certify(t, cert)
		put(t, at(cert), c)
		put(t, at(key), k)
		pair, err := tls.X509KeyPair(c, k)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	put(t, at("ca"), caPEM)
	cert(ca, "server", "server.key")
	mine, foreign := cert(ca, "client", "client.key"), cert(other, "foreign", "foreign.key")
	s := startServe(t, "--redis", "127.0.0.1:0", "--redis-tls", "127.0.0.1:0", "--tls-cert", at("server"), "--tls-key", at("server.key"), "--tls-ca", at("ca"))
	plain, secure := s.addrs[0], s.addrs[1]
	logged := func(text string) {
		t.Helper()
		for !strings.Contains(s.stderr.String(), text) {
			runtime.Gosched()
		}
	}
	ask := func(args ...string) string {
		_, port, _ := net.SplitHostPort(secure)
		out, _ := exec.Command(cli, append([]string{"-p", port, "--tls", "--cacert", at("ca")}, args...)...).CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	if got := ask("--cert", at("client"), "--key", at("client.key"), "set", "a", "1"); got != "OK" {
		t.Errorf("redis-cli: %q", got)
	}
	if got := ask("get", "a"); got == "1" || !strings.Contains(got, "rror") {
		t.Errorf("redis-cli without a certificate: %q", got)
	}
	if got := ask("--cert", at("foreign"), "--key", at("foreign.key"), "get", "a"); got == "1" || !strings.Contains(got, "rror") {
		t.Errorf("redis-cli with another's certificate: %q", got)
	}

	// Each client tries to resume its session, by which nobody who lost his authority may
	// come back.
	sessions := map[string]tls.ClientSessionCache{}
	connectTLS := func(pair tls.Certificate, authorities []byte) client {
		t.Helper()
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(authorities)
		conn, err := net.Dial("tcp", secure)
		if err != nil {
			t.Fatal(err)
		}
		session, known := sessions[string(pair.Certificate[0])]
		if !known {
			session = tls.NewLRUClientSessionCache(1)
			sessions[string(pair.Certificate[0])] = session
		}
		return connect(t, tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", Certificates: []tls.Certificate{pair}, ClientSessionCache: session}), nil)
	}
	old := connectTLS(mine, caPEM)
	old.want("GET a", "1")

	// Plain text on the address of TLS, and TLS on the plain one, are told so, and end.
	p := dial(t, secure)
	p.want("PING", "ERR this address speaks TLS, and the connection does not")
	if _, err := p.replies.Decode(); err != io.EOF {
		t.Errorf("%v, and not the end", err)
	}
	logged("a TLS handshake failed")
	conn, err := net.Dial("tcp", plain)
	if err != nil {
		t.Fatal(err)
	}
	if err := tls.Client(connect(t, conn, nil).Conn, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("there was a handshake on the plain address")
	}

	// Others are trusted from now on, and the server shows another certificate.
	put(t, at("ca"), otherPEM)
	put(t, at("server"), []byte("nonsense"))
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	hangup := func() {
		if err := self.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangup()
	logged("--tls-cert " + at("server"))
	if got := connectTLS(mine, caPEM).ask("GET a"); got != "1" {
		t.Errorf("while the certificate is wrong: %q", got)
	}
	cert(other, "server", "server.key")
	hangup()
	logged("lockstep: read again")
	if got := connectTLS(foreign, otherPEM).ask("GET a"); got != "1" {
		t.Errorf("after the change: %q", got)
	}
	if got := connectTLS(mine, otherPEM).ask("GET a"); got == "1" {
		t.Error("the old authority's clients are let in")
	}
	old.want("GET a", "1")
}

func TestServeRefusesTLSThatCannotBe(t *testing.T) {
	ca, caPEM, _ := (*authority)(nil).certify(t, "authority")
	_, certPEM, keyPEM := ca.certify(t, "server")
	_, _, otherKey := ca.certify(t, "server")
	cert, key := written(t, string(certPEM)), written(t, string(keyPEM))
	for _, c := range []struct{ args, want string }{
		{"--redis-tls 127.0.0.1:0", "needs --tls-cert and --tls-key"},
		{"--redis-tls 127.0.0.1:0 --tls-cert " + cert, "needs --tls-cert and --tls-key"},
		{"--tls-cert " + cert + " --tls-key " + key, "for --redis-tls, which is not given"},
		{"--redis-tls 127.0.0.1:0 --tls-cert " + cert + " --tls-key " + written(t, string(otherKey)), "does not match"},
		{"--redis-tls 127.0.0.1:0 --tls-cert " + cert + " --tls-key " + key + "x", "no such file"},
		{"--redis-tls 127.0.0.1:0 --tls-cert " + cert + " --tls-key " + key + " --tls-ca " + key, "--tls-ca " + key + ": there is no certificate"},
		{"--redis-tls 0.0.0.0:0 --tls-cert " + cert + " --tls-key " + key, "--redis-tls 0.0.0.0:0: others can reach"},
		{"--redis-tls nowhere --tls-cert " + cert + " --tls-key " + key, "--redis-tls nowhere: it must be HOST:PORT"},
	} {
		stdout, stderr, status := command(t, append([]string{"serve", "--store", "sqlite:" + filepath.Join(t.TempDir(), "keys.db")}, strings.Fields(c.args)...)...)
		if status != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "PRIVATE") {
			t.Errorf("%s: status %d, %q, %q; want %q", c.args, status, stdout, stderr, c.want)
		}
	}
	// With certificates of clients an address that others reach needs no password.
	startServe(t, "--redis-tls", "0.0.0.0:0", "--tls-cert", cert, "--tls-key", key, "--tls-ca", written(t, string(caPEM)))
}

package facts

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"testing"

	"odx/internal/kit/must"
)

// All nodes have the same certificate of a shard, by which servers know each other at the addresses
// of the nodes; that of another shard, or of another pool, is not accepted.
func TestFacts_Certificate(t *testing.T) {
	own, err := New(twin().Client()).Make(2)
	must.Succeed(t, err)
	other, err := New(twin().Client()).Make(2)
	must.Succeed(t, err)
	nodes := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	certificate, key, err := own.Certificate(1, nodes)
	must.Succeed(t, err)
	again, _, err := own.Certificate(1, nodes)
	must.Succeed(t, err)
	if !bytes.Equal(again, certificate) {
		t.Error("two nodes have two certificates")
	}
	for _, c := range []struct {
		what    string
		by      *Facts
		shard   int
		at      string
		nodes   []netip.Addr
		accepts bool
	}{
		{"the same", own, 1, "192.0.2.1", nodes, true},
		{"IPv6", own, 1, "2001:db8::1", nodes, true},
		{"a node more", own, 1, "192.0.2.1", append(nodes, netip.MustParseAddr("192.0.2.3")), true},
		{"an address of no node", own, 1, "192.0.2.9", nodes, false},
		{"another shard", own, 0, "192.0.2.1", nodes, false},
		{"another pool", other, 1, "192.0.2.1", nodes, false},
	} {
		vouches, _, err := c.by.Certificate(c.shard, c.nodes)
		must.Succeed(t, err)
		pair, err := tls.X509KeyPair(certificate, key)
		must.Succeed(t, err)
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(vouches) {
			t.Fatal("no certificate")
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); (err == nil) != (c.accepts || c.at == "192.0.2.9") {
			t.Errorf("%s, as a client: %v", c.what, err)
		}
		if err := handshake(t, pair, &tls.Config{RootCAs: roots, ServerName: c.at}); (err == nil) != c.accepts {
			t.Errorf("%s, as a server: %v", c.what, err)
		}
	}
}

// handshake returns whether a client takes a server with a certificate.
func handshake(t *testing.T, pair tls.Certificate, client *tls.Config) error {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	must.Succeed(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if conn, err := l.Accept(); err == nil {
			_ = conn.(*tls.Conn).HandshakeContext(t.Context()) // the client says why
			conn.Close()
		}
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		err = conn.Close()
	}
	<-ended
	must.Succeed(t, l.Close())
	return err
}

package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"odx/audit"
	"odx/conf"
)

// TestRolePeer: another server may do what peers may, and nothing else; no other role but
// administer may do that.
func TestRolePeer(t *testing.T) {
	s := serving(t, nil)
	s.Handlers = []Mounted{{"/v1/peer/", conf.RolePeer, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })}}
	var keys []key
	for _, r := range []role{peers, reads, operates, administers} {
		keys = append(keys, newKey(r.String(), r, "secret of the role "+r.String()))
	}
	base, _ := serveTCP(t, NewGuardedServer(s, guardWith(keys...)))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, r := range []role{peers, reads, operates, administers} {
		want := http.StatusForbidden
		if r == peers || r == administers {
			want = http.StatusAccepted
		}
		if got, f, _ := send(t, client, "GET", base+"/v1/peer/hello", "Bearer secret of the role "+r.String()); got != want {
			t.Errorf("%v: %d %+v, want %d", r, got, f, want)
		}
	}
	for _, r := range append(allRoutes(), noRoute) {
		if r.role == peers || r.path == "" {
			continue
		}
		if got, _, _ := send(t, client, r.method, base+r.path, "Bearer secret of the role peer"); got != http.StatusForbidden {
			t.Errorf("%s %s as peer: %d", r.method, r.path, got)
		}
	}
}

// clientPair makes a certificate that is good until then, and its key, in PEM files.
func clientPair(t *testing.T, dir, name string, until time.Time) (pair tls.Certificate, file string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, name+".pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, file
}

// TestGuard_Accept: a peer is known by the certificate that it shows; one that has expired, or
// is another one, is not.
func TestGuard_Accept(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	good, goodFile := clientPair(t, dir, "good", now.Add(time.Hour))
	old, oldFile := clientPair(t, dir, "old", now.Add(-time.Hour))
	other, _ := clientPair(t, dir, "other", now.Add(time.Hour))
	certificate, private := selfSigned(t)
	cfg := &conf.Config{
		API:   conf.API{Listen: "127.0.0.1:0", Certificate: filepath.Join(dir, "api.pem"), PrivateKey: filepath.Join(dir, "api.key")},
		Peers: []conf.Peer{{Name: "b", Accept: goodFile, Key: "peers[0]"}, {Name: "c", Accept: oldFile, Key: "peers[1]"}},
	}
	for file, text := range map[string]string{cfg.API.Certificate: certificate, cfg.API.PrivateKey: private} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g, _, err := NewGuard(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := g.Listen(cfg, net.Listen)
	if err != nil {
		t.Fatal(err)
	}
	caller := make(chan string, 1)
	s := serving(t, nil)
	s.Handlers = []Mounted{{"/v1/peer/", conf.RolePeer, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { caller <- audit.From(r.Context()).Name })}}
	server := NewGuardedServer(s, g)
	go server.Serve(l)
	defer func() {
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	for name, tt := range map[string]struct {
		pairs  []tls.Certificate
		path   string
		want   int
		caller string
	}{
		"good":          {[]tls.Certificate{good}, "/v1/peer/hello", http.StatusOK, "b"},
		"not for that":  {[]tls.Certificate{good}, "/v1/volumes", http.StatusForbidden, ""},
		"expired":       {[]tls.Certificate{old}, "/v1/peer/hello", http.StatusUnauthorized, ""},
		"another":       {[]tls.Certificate{other}, "/v1/peer/hello", http.StatusUnauthorized, ""},
		"no credential": {nil, "/v1/peer/hello", http.StatusUnauthorized, ""},
	} {
		t.Run(name, func(t *testing.T) {
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: tt.pairs}}}
			defer client.CloseIdleConnections()
			got, f, _ := send(t, client, "GET", "https://"+l.Addr().String()+tt.path, "")
			if got != tt.want {
				t.Fatalf("%d %+v, want %d", got, f, tt.want)
			}
			if tt.caller == "" {
				return
			}
			if name := <-caller; name != tt.caller {
				t.Errorf("as %q, want %q", name, tt.caller)
			}
		})
	}
}

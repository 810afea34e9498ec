package api

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"odx/conf"
)

// apiConfig returns a configuration in dir with these keys of api.
func apiConfig(t *testing.T, dir, api string) *conf.Config {
	t.Helper()
	cfg, err := conf.Parse(filepath.Join(dir, "odx.yaml"), fmt.Appendf(nil, `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns: [{lun: 0, volume: src, size: 64MiB}]
%s
`, api))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestGuard_Listen has what a configuration can name, and what is wrong with it.
func TestGuard_Listen(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("good", testSecret+"\n", 0o600)
	write("other", testSecret+"0", 0o600)
	write("short", "short", 0o600)
	write("open", testSecret, 0o644)
	certificate, key := selfSigned(t)
	write("certificate", certificate, 0o644)
	write("key", key, 0o600)
	write("open.key", key, 0o644)
	write("huge", strings.Repeat("a", maxPEM+1), 0o600)
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ api, err, warning string }{
		"good":              {"listen: 127.0.0.1:0\n  secret_file: good", "", ""},
		"short secret":      {"listen: 127.0.0.1:0\n  secret_file: short", "api.secret_file: the secret has 5 bytes; give at least 16", ""},
		"readable":          {"listen: 127.0.0.1:0\n  secret_file: open", "", "world-readable"},
		"no TLS":            {"listen: 0.0.0.0:0\n  secret_file: good", "", "without TLS"},
		"no certificate":    {"listen: 0.0.0.0:0\n  secret_file: good\n  certificate: none\n  private_key: none", "api.certificate: open ", ""},
		"TLS":               {"listen: 0.0.0.0:0\n  secret_file: good\n  certificate: certificate\n  private_key: key", "", ""},
		"readable key":      {"listen: 0.0.0.0:0\n  secret_file: good\n  certificate: certificate\n  private_key: open.key", "", "open.key is world-readable"},
		"no key":            {"listen: 0.0.0.0:0\n  secret_file: good\n  certificate: certificate\n  private_key: good", "api.certificate: tls: ", ""},
		"huge":              {"listen: 0.0.0.0:0\n  secret_file: good\n  certificate: huge\n  private_key: key", "exceeds 1048576 bytes", ""},
		"secret, pipe":      {"listen: 0.0.0.0:0\n  secret_file: pipe", "pipe is not a regular file", ""},
		"certificate, pipe": {"listen: 0.0.0.0:0\n  secret_file: good\n  certificate: pipe\n  private_key: key", "pipe is not a regular file", ""},
		"key, pipe":         {"listen: 0.0.0.0:0\n  secret_file: good\n  certificate: certificate\n  private_key: pipe", "pipe is not a regular file", ""},
		"roles":             {"listen: 127.0.0.1:0\n  secrets:\n    - {name: a, role: read, secret_file: good}\n    - {name: b, role: operate, secret_file: other}", "", ""},
		"a secret twice":    {"listen: 127.0.0.1:0\n  secret_file: good\n  secrets: [{name: b, role: read, secret_file: good}]", "api.secrets[0].secret_file: the secret is that of default, too", ""},
		"one short secret":  {"listen: 127.0.0.1:0\n  secret_file: good\n  secrets: [{name: b, role: read, secret_file: short}]", "api.secrets[0].secret_file: the secret has 5 bytes", ""},
		"two problems":      {"listen: 127.0.0.1:0\n  secrets: [{name: b, role: read, secret_file: short}, {name: c, role: read, secret_file: none}]", "api.secrets[1].secret_file: open ", ""},
		"no address":        {"listen: 192.0.2.1:0\n  secret_file: good", "api.listen: listen tcp 192.0.2.1:0", ""},
	} {
		cfg := apiConfig(t, dir, "api:\n  "+tt.api)
		warnings, err := listenOnce(cfg)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", name, err, tt.err)
		}
		if got := strings.Join(warnings, "; "); (got == "") != (tt.warning == "") || !strings.Contains(got, tt.warning) {
			t.Errorf("%s: warnings %q, want %q", name, got, tt.warning)
		}
	}
}

// listenOnce makes a guard, listens, and stops.
func listenOnce(cfg *conf.Config) (warnings []string, err error) {
	if err := CheckTCP(cfg); err != nil {
		return nil, err
	}
	g, warnings, err := NewGuard(cfg)
	if err != nil {
		return nil, err
	}
	l, more, err := g.Listen(cfg, net.Listen)
	if err != nil {
		return nil, err
	}
	return append(warnings, more...), l.Close()
}

// selfSigned returns a certificate and its private key, as PEM.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// TestGuard_Roles: each secret of the configuration has its role.
func TestGuard_Roles(t *testing.T) {
	g, _, err := NewGuard(apiConfig(t, t.TempDir(), `api:
  listen: 127.0.0.1:0
  secret: default-secret-16
  secrets:
    - {name: monitor, role: read, secret: monitor-secret-16}
    - {name: backup, role: operate, secret: backup-secret-16b}
    - {name: alice, role: administer, secret: alice-secret-16bb}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range g.current.Load().keys {
		got = append(got, fmt.Sprintf("%s: %v", k.name, k.role))
	}
	if text := strings.Join(got, ", "); text != "default: administer, monitor: read, backup: operate, alice: administer" {
		t.Error(text)
	}
}

// TestGuard_Prepare: what a reload prepares is in force with its commit, all of it: the
// secret and the certificate, on the same listener; what it cannot read changes nothing.
func TestGuard_Prepare(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pems := map[string]string{}
	for _, name := range []string{"one", "two"} {
		certificate, private := selfSigned(t)
		write(name+".pem", certificate)
		write(name+".key", private)
		pems[name] = certificate
	}
	write("secret", testSecret)
	with := func(certificate string) *conf.Config {
		text := "api:\n  listen: 127.0.0.1:0\n  secret_file: secret"
		if certificate != "" {
			text += fmt.Sprintf("\n  certificate: %s.pem\n  private_key: %[1]s.key", certificate)
		}
		return apiConfig(t, dir, text)
	}
	g, _, err := NewGuard(with(""))
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := g.Listen(with(""), net.Listen)
	if err != nil {
		t.Fatal(err)
	}
	server := NewGuardedServer(serving(t, open(t, t.TempDir()).Admin()), g)
	go server.Serve(l)
	defer func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	try := func(what, certificate, secret string, want int) {
		t.Helper()
		got, status := get(t, l.Addr().String(), secret)
		if got != pems[certificate] || status != want {
			t.Errorf("%s: status %d, certificate\n%swant %d and that of %q", what, status, got, want, certificate)
		}
	}
	var changes []string
	prepare := func(cfg *conf.Config) func() {
		t.Helper()
		p, err := g.Prepare(cfg)
		if err != nil {
			t.Fatal(err)
		}
		changes = nil
		for _, c := range p.Changes {
			changes = append(changes, c.Key)
		}
		return p.Commit
	}
	try("at first", "", testSecret, http.StatusOK)
	commit := prepare(with("one"))
	try("prepared", "", testSecret, http.StatusOK)
	commit()
	try("TLS", "one", testSecret, http.StatusOK)
	// The files are read again, under the same names.
	const next = "fedcba9876543210"
	write("secret", next)
	write("one.pem", pems["two"])
	if _, err := g.Prepare(with("one")); err == nil || !strings.Contains(err.Error(), "api.certificate: ") {
		t.Errorf("a certificate without its key: %v", err)
	}
	try("refused", "one", testSecret, http.StatusOK)
	try("refused", "one", next, http.StatusUnauthorized)
	prepare(with("two"))()
	if got := strings.Join(changes, " "); got != "api.secret_file api.certificate" {
		t.Errorf("changes of %s", got)
	}
	try("another certificate", "two", next, http.StatusOK)
	try("another certificate", "two", testSecret, http.StatusUnauthorized)
	prepare(with(""))()
	try("no TLS", "", next, http.StatusOK)
	if prepare(with("")); changes != nil {
		t.Errorf("a reload without a change has changes of %v", changes)
	}
	prepare(apiConfig(t, dir, ""))()
	try("no API", "", next, http.StatusUnauthorized)
}

// get asks with a secret over a connection of its own, with TLS if the server has it. It
// returns the certificate, as PEM, and the status.
func get(t *testing.T, address, secret string) (certificate string, status int) {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // any of the test's
	var conn net.Conn = c
	if err != nil {
		if conn, err = net.Dial("tcp", address); err != nil {
			t.Fatal(err)
		}
	} else {
		certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ConnectionState().PeerCertificates[0].Raw}))
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/volumes HTTP/1.1\r\nHost: odx\r\nAuthorization: Bearer %s\r\n\r\n", secret)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return certificate, resp.StatusCode
}

package api

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"odx/backstore"
	"odx/conf"
	"odx/internal/kit/logs"
)

const testSecret = "0123456789abcdef"

// Over TCP, requests without the secret are refused.
func TestGuardedServer(t *testing.T) {
	s := open(t, t.TempDir())
	base, _ := serveTCP(t, NewGuardedServer(s.Admin(), logs.Discard(), []byte(testSecret)))
	client, err := NewRemoteClient(base, []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if all, err := client.Volumes(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("with the secret: %v, %v", all, err)
	}
	if err := client.DeleteVolume(t.Context(), "none"); !errors.Is(err, backstore.ErrNotFound) {
		t.Errorf("no volume: %v", err)
	}
	for name, header := range map[string]string{
		"none": "", "another": "Bearer 0123456789abcdeF", "a part": "Bearer " + testSecret[:15],
		"longer": "Bearer " + testSecret + "0", "another scheme": "Basic " + testSecret,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/volumes", nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			req.Header.Set("Authorization", header)
		}
		resp, err := client.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: %s, %v", name, resp.Status, resp.Header)
		}
	}
}

func TestRemoteURL(t *testing.T) {
	for _, text := range []string{"", "host:1", "ftp://host", "http://host/path", "https://"} {
		if _, err := NewRemoteClient(text, nil); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestListenTCP(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("good", testSecret+"\n", 0o600)
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
		"no address":        {"listen: 192.0.2.1:0\n  secret_file: good", "api.listen: listen tcp 192.0.2.1:0", ""},
	} {
		cfg, err := conf.Parse(filepath.Join(dir, "odx.yaml"), fmt.Appendf(nil, `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns: [{lun: 0, volume: src, size: 64MiB}]
api:
  %s
`, tt.api))
		if err != nil {
			t.Fatal(err)
		}
		l, _, warnings, err := ListenTCP(cfg, net.Listen)
		if l != nil {
			l.Close()
		}
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", name, err, tt.err)
		}
		if got := strings.Join(warnings, "; "); (got == "") != (tt.warning == "") || !strings.Contains(got, tt.warning) {
			t.Errorf("%s: warnings %q, want %q", name, got, tt.warning)
		}
	}
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

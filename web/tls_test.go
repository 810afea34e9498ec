package web

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"odx/api"
	"odx/conf"
	"odx/internal/kit/logs"
)

// certify gives a configuration a certificate for odx.example.
func certify(t *testing.T, cfg *conf.Config) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"odx.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg.API.Certificate, cfg.API.PrivateKey = filepath.Join(dir, "certificate"), filepath.Join(dir, "key")
	for file, block := range map[string]*pem.Block{cfg.API.Certificate: {Type: "CERTIFICATE", Bytes: der}, cfg.API.PrivateKey: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPage_Mounted: the API serves the page in addition to its requests, which keep needing a secret
// of their own; over TLS the cookie is for TLS only, and the names of the certificate count.
func TestPage_Mounted(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			f := serve(t, nil)
			cfg := *f.cfg
			if scheme == "https" {
				certify(t, &cfg)
			}
			guard, _, err := api.NewGuard(&cfg)
			if err != nil {
				t.Fatal(err)
			}
			l, _, err := guard.Listen(&cfg, net.Listen)
			if err != nil {
				t.Fatal(err)
			}
			o := f.Options
			o.Guard = guard
			server := api.NewGuardedServer(api.Serving{
				Administrator: o.Administrator, Live: o.Live, Audit: o.Audit, Log: logs.Discard(),
				Page: func(g *api.Guard) http.Handler { o.Guard = g; return New(o) },
			}, guard)
			go server.Serve(l)
			t.Cleanup(func() {
				if err := server.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
			})
			f.url = scheme + "://" + l.Addr().String()
			b := f.browser(t)
			b.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			a := b.post("/ui/login", url.Values{"secret": {secretOf(conf.RoleRead)}})
			cookie := a.header.Get("Set-Cookie")
			if strings.HasPrefix(cookie, "__Host-odx=") != (scheme == "https") || strings.Contains(cookie, "; Secure") != (scheme == "https") || !strings.Contains(cookie, "Path=/;") {
				t.Errorf("cookie %q", cookie)
			}
			for path, want := range map[string]int{
				"/": 303, "/ui": 307, "/ui/": 200, "/ui/volumes": 200, "/ui/none": 404, "/v1/volumes": 401, "/metrics": 401, "/uix": 401, "/ui/../v1/volumes": 401, "/ui//": 401,
			} {
				if got := b.get(path); got.status != want {
					t.Errorf("%s: %d, want %d: %s", path, got.status, want, got.body)
				}
			}
			named := b.send(http.MethodGet, "/ui/login", nil, http.Header{"Host": {"odx.example"}}).status
			if (named == http.StatusOK) != (scheme == "https") {
				t.Errorf("by the name of the certificate: %d", named)
			}
			if other := b.send(http.MethodGet, "/ui/login", nil, http.Header{"Host": {"other.example"}}).status; other != http.StatusForbidden {
				t.Errorf("by another name: %d", other)
			}
			bearer(t, b, f.url)
		})
	}
}

// bearer checks that requests of the API work as without a page.
func bearer(t *testing.T, b *browser, base string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/volumes", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", fmt.Sprintf("Bearer %s", secretOf(conf.RoleRead)))
	resp, err := b.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("with the secret: %d, %v", resp.StatusCode, err)
	}
}

package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"odx/conf"
)

// MinSecret is the minimum length in bytes of the secret that guards the API over TCP:
// 128 bits if it is random.
const MinSecret = 16

var errUnauthorized = errors.New("missing or wrong secret; send Authorization: Bearer SECRET")

// bearer passes only requests with the secret to next (RFC 6750).
func bearer(secret []byte, next http.Handler) http.Handler {
	want := sha256.Sum256(secret) // equal lengths, for the comparison
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(given))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="odx"`)
			w.Header().Set("Connection", "close") // it takes one of the places of others
			f, status := failureOf(errUnauthorized)
			respond(w, status, f)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// maxPEM bounds the files of a certificate and of its private key, in bytes.
const maxPEM = 1 << 20

// loadKeyPair reads the certificate and its private key.
func loadKeyPair(a *conf.API) (pair tls.Certificate, warning string, err error) {
	certificate, err := conf.ReadFile(a.Certificate, maxPEM)
	if err != nil {
		return pair, "", err
	}
	key, warning, err := conf.ReadPrivateFile(a.PrivateKey, maxPEM)
	if err != nil {
		return pair, "", err
	}
	pair, err = tls.X509KeyPair(certificate, key)
	return pair, warning, err
}

// guard is what protects the API over TCP.
type guard struct {
	secret   []byte
	pair     tls.Certificate // if the configuration names one
	warnings []string
}

// readGuard reads the files that the configuration names. Errors are conf.Problems.
func readGuard(cfg *conf.Config) (*guard, error) {
	a := &cfg.API
	secret, warning, err := a.Secret.Read()
	if err != nil {
		return nil, cfg.Problem(a.Secret.Key, "%v", err)
	}
	if len(secret) < MinSecret {
		return nil, cfg.Problem(a.Secret.Key, "the secret has %d bytes; give at least %d, for example what openssl rand -base64 24 prints", len(secret), MinSecret)
	}
	g := &guard{secret: secret}
	g.warn(warning)
	if a.Certificate == "" {
		return g, nil
	}
	if g.pair, warning, err = loadKeyPair(a); err != nil {
		return nil, cfg.Problem("api.certificate", "%v", err)
	}
	g.warn(warning)
	return g, nil
}

// warn adds a warning unless it is empty.
func (g *guard) warn(warning string) {
	if warning != "" {
		g.warnings = append(g.warnings, warning)
	}
}

// CheckTCP returns why the API cannot be served over TCP, as far as that is known without
// listening; nil if the configuration does not ask for it.
func CheckTCP(cfg *conf.Config) error {
	if cfg.API.Listen == "" {
		return nil
	}
	_, err := readGuard(cfg)
	return err
}

// ListenTCP listens as the configuration says, with listen for the socket. It also returns
// the secret that requests need, and warnings for the log. Errors are conf.Problems.
func ListenTCP(cfg *conf.Config, listen func(network, address string) (net.Listener, error)) (l net.Listener, secret []byte, warnings []string, err error) {
	g, err := readGuard(cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	if l, err = listen("tcp", cfg.API.Listen); err != nil {
		return nil, nil, nil, cfg.Problem("api.listen", "%v", err)
	}
	if cfg.API.Certificate != "" {
		return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{g.pair}}), g.secret, g.warnings, nil
	}
	if !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		g.warn(fmt.Sprintf("the API listens on %v without TLS: a listener on the way learns its secret", l.Addr()))
	}
	return l, g.secret, g.warnings, nil
}

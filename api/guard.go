package api

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"odx/conf"
)

// maxPEM bounds the files of a certificate and of its private key, in bytes.
const maxPEM = 1 << 20

// Guard protects the API over TCP: the secrets that it takes, with their roles, and its
// certificate. They can be replaced while it is used: the next request needs a secret of
// the new ones, also on a connection that is open already; the next connection gets the
// new certificate.
type Guard struct {
	current  atomic.Pointer[credentials]
	failures failures
}

// credentials are what a configuration names.
type credentials struct {
	keys []key
	tls  *tls.Config // nil without a certificate
	// accepted are the peers that show a certificate instead of a secret.
	accepted []accepted
}

// NewGuard reads the secrets and the certificate that a configuration names, and returns
// warnings for the log. Errors are conf.Problems.
func NewGuard(cfg *conf.Config) (g *Guard, warnings []string, err error) {
	g = &Guard{}
	g.current.Store(&credentials{})
	p, err := g.Prepare(cfg)
	if err != nil {
		return nil, nil, err
	}
	p.Commit()
	return g, p.Warnings, nil
}

// Prepared is another configuration of a guard.
type Prepared struct {
	// Commit puts it in force.
	Commit func()
	// Changes are the secrets and the certificate that are others than now, under the same
	// names: a file has another content. Keys are those of conf.Diff.
	Changes []conf.Change
	// Warnings are for the log.
	Warnings []string
}

// Prepare reads what another configuration names. A configuration without the API over TCP
// is one without secrets: every request is refused. Errors are conf.Problems; nothing has
// changed then.
func (g *Guard) Prepare(cfg *conf.Config) (p Prepared, err error) {
	next := &credentials{}
	if cfg.API.Listen != "" {
		if next, p.Warnings, err = readCredentials(cfg); err != nil {
			return Prepared{}, err
		}
	}
	p.Changes = rotated(g.current.Load(), next)
	p.Commit = func() { g.current.Store(next) }
	return p, nil
}

// rotated returns what is another secret or certificate under the same name.
func rotated(now, next *credentials) (changes []conf.Change) {
	for _, k := range next.keys {
		i := slices.IndexFunc(now.keys, func(o key) bool { return o.name == k.name })
		if i >= 0 && now.keys[i].sum != k.sum {
			changes = append(changes, conf.Change{Key: k.at, Before: "(another secret)", After: "(secret)", Class: conf.AtOnce})
		}
	}
	if before, after := describe(now.tls), describe(next.tls); before != "" && after != "" && before != after {
		changes = append(changes, conf.Change{Key: "api.certificate", Before: before, After: after, Class: conf.AtOnce})
	}
	return changes
}

// describe identifies a certificate; empty for none.
func describe(c *tls.Config) string {
	if c == nil {
		return ""
	}
	leaf := c.Certificates[0].Leaf // of tls.X509KeyPair
	return fmt.Sprintf("serial %x until %s (SHA-256 %x)", leaf.SerialNumber, leaf.NotAfter.UTC().Format(time.RFC3339), sha256.Sum256(leaf.Raw))
}

// CheckTCP returns why the API cannot be served over TCP, as far as that can be detected
// without listening; nil if the configuration has no API over TCP.
func CheckTCP(cfg *conf.Config) error {
	if cfg.API.Listen == "" {
		return nil
	}
	_, _, err := readCredentials(cfg)
	return err
}

// Listen listens at the address of the configuration, with listen for the socket, and returns
// warnings for the log. Connections have TLS while the guard has a certificate. Errors are
// conf.Problems.
func (g *Guard) Listen(cfg *conf.Config, listen func(network, address string) (net.Listener, error)) (l net.Listener, warnings []string, err error) {
	if l, err = listen("tcp", cfg.API.Listen); err != nil {
		return nil, nil, cfg.Problem("api.listen", "%v", err)
	}
	if g.current.Load().tls == nil && !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		warnings = append(warnings, fmt.Sprintf("the API listens on %v without TLS: a listener on the way learns its secret", l.Addr()))
	}
	return guardedListener{l, g}, warnings, nil
}

// guardedListener gives each connection the TLS that the guard has at that time.
type guardedListener struct {
	net.Listener
	guard *Guard
}

// Accept implements net.Listener.
func (l guardedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if config := l.guard.current.Load().tls; config != nil {
		return encrypt(c, config), nil
	}
	return c, nil
}

// readCredentials reads the files that a configuration names. It reports all problems.
func readCredentials(cfg *conf.Config) (c *credentials, warnings []string, err error) {
	c = &credentials{}
	var problems conf.Problems
	warn := func(warning string) {
		if warning != "" {
			warnings = append(warnings, warning)
		}
	}
	for _, s := range cfg.API.Secrets {
		k, warning, err := readKey(s, c.keys)
		if err != nil {
			problems = append(problems, cfg.Problem(s.Secret.Key, "%v", err))
			continue
		}
		warn(warning)
		c.keys = append(c.keys, k)
	}
	if cfg.API.Certificate != "" {
		pair, warning, err := loadKeyPair(&cfg.API)
		if err != nil {
			problems = append(problems, cfg.Problem("api.certificate", "%v", err))
		}
		warn(warning)
		c.tls = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
		var more conf.Problems
		if c.accepted, more = readAccepted(cfg); len(c.accepted) > 0 {
			c.tls.ClientAuth = tls.RequestClientCert // who it is decides the guard, by request
		}
		problems = append(problems, more...)
	}
	if problems != nil {
		return nil, nil, problems
	}
	return c, warnings, nil
}

// readKey reads a secret, which none of others may have.
func readKey(s conf.APISecret, others []key) (k key, warning string, err error) {
	secret, warning, err := s.Secret.Read()
	if err != nil {
		return k, "", err
	}
	if len(secret) < MinSecret {
		return k, "", fmt.Errorf("the secret has %d bytes; give at least %d, for example what openssl rand -base64 24 prints", len(secret), MinSecret)
	}
	sum := sha256.Sum256(secret)
	if i := slices.IndexFunc(others, func(o key) bool { return o.sum == sum }); i >= 0 {
		return k, "", fmt.Errorf("the secret is that of %s, too; give each its own, so that a request has one name", others[i].name)
	}
	return key{s.Name, roleOf(s.Role), sum, changeKey(s)}, warning, nil
}

// changeKey returns the key of a secret as conf.Diff has it, with its name.
func changeKey(s conf.APISecret) string {
	source := s.Secret.Key[strings.LastIndex(s.Secret.Key, ".")+1:]
	if strings.Contains(s.Key, "[") {
		return "api.secrets[" + s.Name + "]." + source
	}
	return "api." + source
}

// loadKeyPair reads the certificate and its private key.
func loadKeyPair(a *conf.API) (pair tls.Certificate, warning string, err error) {
	certificate, err := conf.ReadFile(a.Certificate, maxPEM)
	if err != nil {
		return pair, "", err
	}
	private, warning, err := conf.ReadPrivateFile(a.PrivateKey, maxPEM)
	if err != nil {
		return pair, "", err
	}
	pair, err = tls.X509KeyPair(certificate, private)
	return pair, warning, err
}

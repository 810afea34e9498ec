package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"

	"odx/audit"
	"odx/conf"
)

// errCertificate: no peer of the configuration may show the certificate of a client.
var errCertificate = errors.New("the certificate is not that of a peer of the configuration, or has expired")

// accepted is what vouches for a peer as a client.
type accepted struct {
	name string
	pool *x509.CertPool
}

// readAccepted reads the certificates that vouch for peers as clients.
func readAccepted(cfg *conf.Config) (list []accepted, problems conf.Problems) {
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		if p.Accept == "" {
			continue
		}
		text, err := conf.ReadFile(p.Accept, maxPEM)
		pool := x509.NewCertPool()
		if err == nil && !pool.AppendCertsFromPEM(text) {
			err = errors.New(p.Accept + " has no certificate in PEM")
		}
		if err != nil {
			problems = append(problems, cfg.Problem(p.Key+".accept", "%v", err))
			continue
		}
		list = append(list, accepted{p.Name, pool})
	}
	return list, problems
}

// certificates returns the certificates that the client of a request has shown, its own first.
func certificates(ctx context.Context) []*x509.Certificate {
	if c, ok := ctx.Value(encryptedKey{}).(*tls.Conn); ok {
		return c.ConnectionState().PeerCertificates
	}
	return nil
}

// identifyCertificate returns the peer that has shown a certificate; false if the client has
// shown none.
func (g *Guard) identifyCertificate(r *http.Request) (by caller, shown bool, err error) {
	chain := certificates(r.Context())
	if len(chain) == 0 {
		return caller{}, false, nil
	}
	others := x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	for _, a := range g.current.Load().accepted {
		o := x509.VerifyOptions{Roots: a.pool, Intermediates: others, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if _, err := chain[0].Verify(o); err == nil {
			return caller{audit.Secret(a.name, clientOf(r)), peers}, true, nil
		}
	}
	return caller{}, true, errCertificate
}

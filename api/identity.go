package api

import (
	"crypto/sha256"
	"net/http"
	"slices"

	"odx/audit"
	"odx/conf"
)

// Identity is who has a secret of a guard.
type Identity struct {
	// Name and Role are those of the secret.
	Name string
	Role conf.Role
	// sum is that of the secret.
	sum [sha256.Size]byte
}

// May reports whether the role is that one, or more.
func (i Identity) May(needs conf.Role) bool { return roleOf(i.Role).may(roleOf(needs)) }

// Actor returns who changes something with a request of the identity.
func (i Identity) Actor(r *http.Request) audit.Actor { return audit.Secret(i.Name, clientOf(r)) }

// Identify returns whose secret a request has given. Wrong ones count against its address,
// as those of the API do. StatusOf has the status of its errors.
func (g *Guard) Identify(r *http.Request, secret string) (Identity, error) {
	k, err := g.identify(r, secret)
	if err != nil {
		return Identity{}, err
	}
	return identityOf(k), nil
}

// identify is Identify.
func (g *Guard) identify(r *http.Request, secret string) (*key, error) {
	at := addressOf(r)
	if g.failures.blocked(at) {
		return nil, errFailures
	}
	k := find(g.current.Load().keys, secret)
	if k == nil {
		g.failures.add(at)
		return nil, errUnauthorized
	}
	return k, nil
}

// Confirm returns an identity as the guard has it now, which can be with another role;
// false if its secret is gone, or is another one.
func (g *Guard) Confirm(i Identity) (Identity, bool) {
	keys := g.current.Load().keys
	at := slices.IndexFunc(keys, func(k key) bool { return k.name == i.Name && k.sum == i.sum })
	if at < 0 {
		return Identity{}, false
	}
	return identityOf(&keys[at]), true
}

func identityOf(k *key) Identity { return Identity{k.name, conf.Role(k.role.String()), k.sum} }

// Certifies reports whether the certificate of the guard is for a host.
func (g *Guard) Certifies(host string) bool {
	c := g.current.Load().tls
	return c != nil && c.Certificates[0].Leaf.VerifyHostname(host) == nil
}

// StatusOf returns the status of HTTP for an error of the API.
func StatusOf(err error) int {
	_, status := failureOf(err)
	return status
}

package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"odx/audit"
)

// MinSecret is the minimum length in bytes of a secret that guards the API over TCP: 128
// bits if it is random.
const MinSecret = 16

var errUnauthorized = errors.New("missing or wrong secret; send Authorization: Bearer SECRET")

// key is a secret that the API takes.
type key struct {
	name string
	role role
	sum  [sha256.Size]byte // of the secret; equal lengths, for the comparison
	at   string            // in the configuration, as conf.Diff has it
}

// find returns the key whose secret is given; nil if there is none. Its duration does not
// depend on which one it is, or on how much of it is right.
func find(keys []key, given string) *key {
	sum := sha256.Sum256([]byte(given))
	found := -1
	for i := range keys {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], keys[i].sum[:]), i, found)
	}
	if found < 0 {
		return nil
	}
	return &keys[found]
}

// bearerGate admits the requests that have a secret of the guard (RFC 6750), as it is at
// that time.
type bearerGate struct {
	guard *Guard
	log   *logrus.Entry
	// lines bounds the lines about wrong secrets.
	lines *rate.Limiter
}

func newBearerGate(g *Guard, log *logrus.Entry) *bearerGate {
	return &bearerGate{g, log, rate.NewLimiter(1, failureBurst)}
}

func (g *bearerGate) admit(r *http.Request) (caller, error) {
	if r.Header.Get("Authorization") == "" {
		if by, shown, err := g.guard.identifyCertificate(r); shown {
			if err != nil && g.lines.Allow() {
				g.log.WithField("address", r.RemoteAddr).WithError(err).Warn("client certificate refused")
			}
			return by, err
		}
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return caller{}, errUnauthorized
	}
	k, err := g.guard.identify(r, given)
	if err != nil {
		if errors.Is(err, errUnauthorized) && g.lines.Allow() {
			g.log.WithField("address", r.RemoteAddr).Warn("API secret refused")
		}
		return caller{}, err
	}
	return caller{audit.Secret(k.name, clientOf(r)), k.role}, nil
}

package iscsi

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"

	"odx/chap"
	"odx/target/scsi"
)

// Authentication says what initiators have to prove before they may go on. The
// zero value asks for nothing.
type Authentication struct {
	// CHAP checks who an initiator is; nil: AuthMethod=None is the only method.
	CHAP *chap.Authenticator
	// Optional also lets in initiators that prefer AuthMethod=None, or that leave
	// the security stage out.
	Optional bool
}

const methodCHAP = "CHAP"

// offers reports whether a method of AuthMethod can be agreed upon.
func (a *Authentication) offers(method string) bool {
	switch method {
	case valueNone:
		return a.CHAP == nil || a.Optional
	case methodCHAP:
		return a.CHAP != nil
	}
	return false
}

// Admit decides whether an initiator that connects from an address may use a
// target, and what it sees of it. It does not block.
type Admit func(initiatorName string, from netip.Addr) (view scsi.View, ok bool)

// admits asks the target's Admit, without which everyone may see everything.
func (t *target) admits(initiatorName string, c *conn) (scsi.View, bool) {
	if t.Admit == nil {
		return nil, true
	}
	from, _ := addrPort(c.nc.RemoteAddr())
	return t.Admit(initiatorName, from.Addr())
}

// sameView reports whether two connections of a session see the same.
func sameView(a, b scsi.View) bool { return (a == nil) == (b == nil) && maps.Equal(a, b) }

// security is the authentication and authorization of a login.
type security struct {
	Authentication
	method   string         // as agreed upon, empty before that
	exchange *chap.Exchange // of method CHAP
	admitted bool
	view     scsi.View // once admitted
}

// authenticated reports whether the initiator has proved all that it has to.
func (s *security) authenticated() bool {
	if s.exchange != nil {
		return s.exchange.Proved()
	}
	return s.offers(valueNone)
}

// user is the CHAP name that the initiator has proved to be, empty for none.
func (s *security) user() string {
	if s.exchange == nil || !s.exchange.Proved() {
		return ""
	}
	return s.exchange.User()
}

// end takes back a challenge that can be answered no more.
func (s *security) end() {
	if s.exchange != nil {
		s.exchange.End()
	}
}

// proof is who the initiator has proved to be and how, for the log; nothing
// where it had to prove nothing.
func (s *security) proof() logrus.Fields {
	if s.exchange == nil {
		return nil
	}
	return logrus.Fields{"user": s.exchange.User(), "chap": s.exchange.Algorithm()}
}

// rights are what the login gives its nexus. What the target has asked for, a
// secret or an address, is the proof.
func (l *login) rights() scsi.Rights {
	r := scsi.Rights{View: l.security.view}
	if l.target.Admit == nil && l.security.offers(valueNone) && l.security.exchange == nil {
		return r
	}
	from, _ := addrPort(l.c.nc.RemoteAddr())
	r.Proof = from.Addr().String()
	if l.security.exchange != nil {
		r.Proof += " " + l.security.exchange.Identity()
	}
	return r
}

// requireSecurity refuses a login that leaves out the authentication it needs.
func (l *login) requireSecurity() error {
	if l.security.Authentication = l.c.srv.opts.DiscoveryAuthentication; l.target != nil {
		l.security.Authentication = l.target.Authentication
	}
	if l.stage != stageSecurity && !l.security.offers(valueNone) {
		return refuse(loginAuthenticationFailed, "initiator %s leaves out the authentication that %s asks for", l.initiator, l.goal())
	}
	return nil
}

// goal says what the initiator logs in to, for messages.
func (l *login) goal() string {
	if l.target == nil {
		return "discovery"
	}
	return "target " + l.target.Name
}

// negotiateSecurity agrees on the first method of the initiator's list that we
// offer (RFC 7143 12.1).
func (l *login) negotiateSecurity(offer string) error {
	if l.stage != stageSecurity {
		return l.lateSecurity(offer)
	}
	for method := range strings.SplitSeq(offer, ",") {
		if !l.security.offers(method) {
			continue
		}
		l.security.method = method
		if method == methodCHAP {
			l.security.exchange = l.security.CHAP.Begin(l.initiator)
		}
		l.response = appendPair(l.response, "AuthMethod", method)
		return nil
	}
	return refuse(loginAuthenticationFailed, "initiator %s offers only %.100q for authentication to %s", l.initiator, offer, l.goal())
}

// lateSecurity answers AuthMethod in the operational stage, where initiators put it
// that want no authentication (jSCSI): None where that is allowed and offered. It
// is refused otherwise.
func (l *login) lateSecurity(offer string) error {
	if !l.security.offers(valueNone) || !slices.Contains(strings.Split(offer, ","), valueNone) {
		return refuse(loginInitiatorError, "AuthMethod outside the security stage")
	}
	l.response = appendPair(l.response, "AuthMethod", valueNone)
	return nil
}

// authenticate goes one step on with CHAP by the keys of a request.
func (l *login) authenticate(pairs []pair) error {
	var keys []chap.Pair
	for _, k := range pairs {
		if chap.IsKey(k.key) {
			keys = append(keys, chap.Pair{Key: k.key, Value: k.value})
		}
	}
	// The request that AuthMethod comes with is before the exchange.
	exchange := l.security.exchange
	switch {
	case len(keys) > 0 && (exchange == nil || l.stage != stageSecurity):
		return refuse(loginInitiatorError, "initiator %s sends %s where CHAP is not agreed upon", l.initiator, keys[0].Key)
	case exchange == nil, len(keys) == 0 && exchange.Proved():
		return nil
	}
	answer, err := exchange.Step(keys)
	if err != nil {
		return refuse(loginAuthenticationFailed, "initiator %s fails to authenticate to %s: %w", l.initiator, l.goal(), err)
	}
	for _, p := range answer {
		l.response = appendPair(l.response, p.Key, p.Value)
	}
	return nil
}

// authorize refuses an initiator that may not use the target. Before it is
// authenticated it is told nothing of that.
func (l *login) authorize() error {
	s := &l.security
	if s.admitted || !s.authenticated() {
		return nil
	}
	s.admitted = true
	if l.target == nil {
		return nil
	}
	var ok bool
	if s.view, ok = l.target.admits(l.initiator, l.c); !ok {
		return refuse(loginAuthorizationFailed, "the access list of target %s refuses initiator %s", l.target.Name, l.initiator)
	}
	return nil
}

// staysInSecurity reports whether the initiator asks to leave the security stage
// before it may. A method that is agreed upon goes on; without one, there is
// nothing to go on with.
func (l *login) staysInSecurity() (bool, error) {
	if l.stage != stageSecurity || l.security.authenticated() {
		return false, nil
	}
	if l.security.method == "" {
		return false, refuse(loginAuthenticationFailed, "initiator %s offers no authentication to %s", l.initiator, l.goal())
	}
	return true, nil
}

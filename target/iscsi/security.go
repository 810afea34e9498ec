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

// Authentication is the required authentication of initiators. The zero value requires
// none.
type Authentication struct {
	// CHAP authenticates initiators. If nil, only AuthMethod=None is offered.
	CHAP *chap.Authenticator
	// Optional also admits initiators that prefer AuthMethod=None or skip the security
	// stage.
	Optional bool
}

const methodCHAP = "CHAP"

// offers reports whether a method of AuthMethod is offered.
func (a *Authentication) offers(method string) bool {
	switch method {
	case valueNone:
		return a.CHAP == nil || a.Optional
	case methodCHAP:
		return a.CHAP != nil
	}
	return false
}

// Admit reports whether an initiator that connects from an address may use a target, and
// returns its view. It must not block.
type Admit func(initiatorName string, from netip.Addr) (view scsi.View, ok bool)

// admits calls the target's Admit, without which all initiators see all LUNs.
func (t *target) admits(initiatorName string, c *conn) (scsi.View, bool) {
	if t.Admit == nil {
		return nil, true
	}
	from, _ := addrPort(c.nc.RemoteAddr())
	return t.Admit(initiatorName, from.Addr())
}

// sameView reports whether two connections of a session have the same view.
func sameView(a, b scsi.View) bool { return (a == nil) == (b == nil) && maps.Equal(a, b) }

// security is the authentication and authorization of a login.
type security struct {
	Authentication
	method   string         // negotiated, or ""
	exchange *chap.Exchange // of method CHAP
	// proven is the CHAP name that the initiator of a handed over connection has proven
	// to the process before this one, or "".
	proven   string
	admitted bool
	view     scsi.View // once admitted
}

// authenticated reports whether the initiator has met the requirements.
func (s *security) authenticated() bool {
	if s.exchange != nil {
		return s.exchange.Proved()
	}
	return s.offers(valueNone) || s.proven != ""
}

// user returns the authenticated CHAP name, or "".
func (s *security) user() string {
	if s.exchange == nil || !s.exchange.Proved() {
		return s.proven
	}
	return s.exchange.User()
}

// end discards an outstanding challenge.
func (s *security) end() {
	if s.exchange != nil {
		s.exchange.End()
	}
}

// proof returns the log fields of the authentication, if any.
func (s *security) proof() logrus.Fields {
	if s.exchange == nil {
		return nil
	}
	return logrus.Fields{"user": s.exchange.User(), "chap": s.exchange.Algorithm()}
}

// rights returns the rights of the login's nexus.
func (l *login) rights() scsi.Rights {
	from, _ := addrPort(l.c.nc.RemoteAddr())
	return l.target.rights(l.initiator, l.security.user(), from.Addr(), l.security.view)
}

// rights returns the rights of a nexus whose initiator has authenticated as user ("" if it
// has not). Its proof is the authenticated identity and the address, if the target requires
// either.
func (t *target) rights(initiatorName, user string, from netip.Addr, view scsi.View) scsi.Rights {
	a := &t.Authentication
	if a.CHAP == nil {
		user = ""
	}
	r := scsi.Rights{View: view}
	if t.Admit == nil && a.offers(valueNone) && user == "" {
		return r
	}
	r.Proof = from.String()
	if user != "" {
		r.Proof += " " + a.CHAP.Identity(user, initiatorName)
	}
	return r
}

// requireSecurity refuses a login that skips required authentication.
func (l *login) requireSecurity() error {
	if l.security.Authentication = l.conf.options.DiscoveryAuthentication; l.target != nil {
		l.security.Authentication = l.target.Authentication
	}
	if l.stage != stageSecurity && !l.security.offers(valueNone) {
		return refuse(loginAuthenticationFailed, "initiator %s skips the authentication that %s requires", l.initiator, l.service())
	}
	return nil
}

// service returns the target of the login, or discovery, for messages.
func (l *login) service() string {
	if l.target == nil {
		return "discovery"
	}
	return "target " + l.target.Name
}

// negotiateSecurity selects the first offered method of the initiator's list (RFC 7143
// 12.1).
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
	return refuse(loginAuthenticationFailed, "initiator %s offers only %.100q for authentication to %s", l.initiator, offer, l.service())
}

// lateSecurity answers AuthMethod in the operational stage, which initiators without
// authentication send (jSCSI): None if that is allowed and in the list, otherwise the
// login is refused.
func (l *login) lateSecurity(offer string) error {
	if !l.security.offers(valueNone) || !slices.Contains(strings.Split(offer, ","), valueNone) {
		return refuse(loginInitiatorError, "AuthMethod outside the security stage")
	}
	l.response = appendPair(l.response, "AuthMethod", valueNone)
	return nil
}

// authenticate processes the CHAP keys of a request.
func (l *login) authenticate(pairs []pair) error {
	var keys []chap.Pair
	for _, k := range pairs {
		if chap.IsKey(k.key) {
			keys = append(keys, chap.Pair{Key: k.key, Value: k.value})
		}
	}
	// The request with AuthMethod precedes the exchange.
	exchange := l.security.exchange
	switch {
	case len(keys) > 0 && (exchange == nil || l.stage != stageSecurity):
		return refuse(loginInitiatorError, "initiator %s sends %s, but CHAP was not negotiated", l.initiator, keys[0].Key)
	case exchange == nil, len(keys) == 0 && exchange.Proved():
		return nil
	}
	answer, err := exchange.Step(keys)
	if err != nil {
		return refuse(loginAuthenticationFailed, "initiator %s failed to authenticate to %s: %w", l.initiator, l.service(), err)
	}
	for _, p := range answer {
		l.response = appendPair(l.response, p.Key, p.Value)
	}
	return nil
}

// authorize refuses an initiator that may not use the target. It does nothing before
// authentication, to reveal nothing to unauthenticated initiators.
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
		return refuse(loginAuthorizationFailed, "access list of target %s refuses initiator %s", l.target.Name, l.initiator)
	}
	return nil
}

// staysInSecurity reports whether the initiator requests to leave the security stage
// before it is authenticated. A negotiated method continues; without one, the login
// fails.
func (l *login) staysInSecurity() (bool, error) {
	if l.stage != stageSecurity || l.security.authenticated() {
		return false, nil
	}
	if l.security.method == "" {
		return false, refuse(loginAuthenticationFailed, "initiator %s offers no authentication to %s", l.initiator, l.service())
	}
	return true, nil
}

package chap

import (
	"crypto/subtle"
	"slices"
)

// Confirms reports whether an initiator that has proven its identity to another
// authenticator, of an earlier configuration, would have done so to a: the user may use the
// initiator name, and the secrets of both directions are the same.
func (a *Authenticator) Confirms(e *Exchange) bool {
	u, known := a.user(e.user, e.initiator)
	before, _ := e.a.user(e.user, e.initiator)
	return e.Proved() && known && slices.Contains(a.config.Algorithms, e.algorithm) &&
		subtle.ConstantTimeCompare(u.Secret, before.Secret) == 1 &&
		a.config.Target.Name == e.a.config.Target.Name &&
		subtle.ConstantTimeCompare(a.config.Target.Secret, e.a.config.Target.Secret) == 1
}

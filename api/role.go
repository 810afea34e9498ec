package api

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/conf"
	"odx/vhd"
)

// errForbidden: the caller has not the role that the request needs.
var errForbidden = errors.New("forbidden")

// role is what a caller may do. A later one may do what the earlier ones may, but see peers.
type role int

const (
	// peers: what servers ask of each other. It is not part of the others, but for
	// administers, nor are they of it.
	peers role = iota - 1
	// reads: read everything but secrets and the contents of disks.
	reads
	// operates: create and copy, read and write data, end sessions.
	operates
	// administers: everything.
	administers
)

// roleOf returns the role of a secret; the least for an unknown one.
func roleOf(r conf.Role) role {
	switch r {
	case conf.RoleAdminister:
		return administers
	case conf.RoleOperate:
		return operates
	case conf.RolePeer:
		return peers
	default:
		return reads
	}
}

// String returns the role as the configuration has it.
func (r role) String() string {
	return [...]string{"peer", "read", "operate", "administer"}[r-peers]
}

// may reports whether a caller with the role may do what needs another one.
func (r role) may(needs role) bool {
	if needs == peers {
		return r == peers || r == administers
	}
	return r >= needs
}

// forbiddenError is the error of a request that needs another role than its caller has.
type forbiddenError struct {
	caller caller
	needs  role
}

func (e *forbiddenError) Error() string {
	return fmt.Sprintf("%v has the role %v; this request needs %v", e.caller.actor, e.caller.role, e.needs)
}

func (e *forbiddenError) Unwrap() error { return errForbidden }

// needs returns the role that a request needs. Who may begin a volume or a file may give it
// up.
func (r *route) needs(req *http.Request) role {
	name := req.PathValue("name")
	if r.method == http.MethodDelete && r.role == administers && (admin.IsScratchVolume(name) || vhd.IsScratch(name)) {
		return operates
	}
	return r.role
}

// allow returns an error for a request whose caller does not have the role, and logs it.
func (s *Server) allow(req *http.Request, needs role) error {
	by := callerOf(req.Context())
	if by.role.may(needs) {
		return nil
	}
	if s.refused.Allow() {
		s.log.WithFields(logrus.Fields{"request": req.Method + " " + req.URL.Path, "by": by.actor.String(), "role": by.role.String(), "needs": needs.String()}).Warn("API request refused")
	}
	return &forbiddenError{by, needs}
}

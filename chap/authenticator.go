package chap

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of the length of a secret in bytes. RFC 7143 9.2.1 requires 96 bits over a
// connection that is not encrypted by IPsec.
const (
	MinSecret = 12
	MaxSecret = 255
)

// maxName bounds CHAP_N in bytes (RFC 7143 6.1).
const maxName = 255

// ErrSharedSecret reports that an initiator and the target have the same secret,
// which RFC 7143 9.2.1 forbids.
var ErrSharedSecret = errors.New("same secret in both directions")

// CheckSecret returns an error if the secret is invalid. The error does not contain
// the secret.
func CheckSecret(secret []byte) error {
	if len(secret) < MinSecret || len(secret) > MaxSecret {
		return fmt.Errorf("secret of %d bytes; use %d to %d", len(secret), MinSecret, MaxSecret)
	}
	return nil
}

// CheckName returns an error if CHAP_N cannot represent the name.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("invalid CHAP name %.40q; use 1 to %d bytes of printable text", name, maxName)
	}
	return nil
}

// Credential is a name with its secret.
type Credential struct {
	Name   string
	Secret []byte
}

func (c *Credential) check() error {
	return errors.Join(CheckName(c.Name), CheckSecret(c.Secret))
}

// User is an identity that initiators can authenticate as.
type User struct {
	Credential
	// Allows reports whether an initiator may use the name. If nil, all may.
	Allows func(initiatorName string) bool
	// Binds reports whether the user is bound to an initiator name, by a list that
	// does not match every name. If nil, it is bound to none.
	Binds func(initiatorName string) bool
}

// Config configures an Authenticator.
type Config struct {
	Users []User
	// Target is the target's credential for mutual authentication. If the name is
	// empty, initiators that request it are refused.
	Target Credential
	// Algorithms lists the allowed algorithms. If empty, all are.
	Algorithms []Algorithm
	// Challenges are shared by all authenticators of a server.
	Challenges *Challenges
}

// Authenticator authenticates initiators. Its methods may be called
// concurrently.
type Authenticator struct {
	config Config
	// unknown replaces a user that does not exist, so that its response takes the
	// same time to verify.
	unknown User
}

// New returns an Authenticator, or an error if c is invalid.
func New(c Config) (*Authenticator, error) {
	if len(c.Users) == 0 {
		return nil, errors.New("CHAP: no users")
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = Algorithms()
	}
	for _, a := range c.Algorithms {
		if a.new() == nil {
			return nil, fmt.Errorf("unknown CHAP algorithm %v", a)
		}
	}
	if c.Challenges == nil {
		c.Challenges = &Challenges{}
	}
	for i, u := range c.Users {
		if err := u.check(); err != nil {
			return nil, fmt.Errorf("CHAP user %.40q: %w", u.Name, err)
		}
		if slices.ContainsFunc(c.Users[:i], func(other User) bool { return other.Name == u.Name }) {
			return nil, fmt.Errorf("duplicate CHAP user %.40q", u.Name)
		}
		if subtle.ConstantTimeCompare(u.Secret, c.Target.Secret) == 1 {
			return nil, fmt.Errorf("CHAP user %.40q: %w", u.Name, ErrSharedSecret)
		}
	}
	if c.Target.Name != "" || len(c.Target.Secret) > 0 {
		if err := c.Target.check(); err != nil {
			return nil, fmt.Errorf("CHAP credential of the target: %w", err)
		}
	}
	unknown := User{Credential: Credential{Secret: make([]byte, 16)}}
	rand.Read(unknown.Secret) // never fails (crypto/rand)
	return &Authenticator{config: c, unknown: unknown}, nil
}

// Allows reports whether an initiator may use the name of a user. It returns false
// if the user does not exist.
func (a *Authenticator) Allows(user, initiatorName string) bool {
	_, ok := a.user(user, initiatorName)
	return ok
}

// Bound reports whether a user may use an initiator name and is bound to it.
func (a *Authenticator) Bound(user, initiatorName string) bool {
	u, ok := a.user(user, initiatorName)
	return ok && u.Binds != nil && u.Binds(initiatorName)
}

// user returns the user with the given name. If the initiator may not use it, ok is
// false and u has a random secret.
func (a *Authenticator) user(name, initiator string) (u *User, ok bool) {
	for i := range a.config.Users {
		u := &a.config.Users[i]
		if u.Name == name && (u.Allows == nil || u.Allows(initiator)) {
			return u, true
		}
	}
	return &a.unknown, false
}

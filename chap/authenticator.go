package chap

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Lengths of a secret in bytes. RFC 7143 9.2.1 forbids shorter ones, 96 bits,
// over a connection that is not known to be encrypted by IPsec.
const (
	MinSecret = 12
	MaxSecret = 255
)

// maxName bounds CHAP_N in bytes (RFC 7143 6.1).
const maxName = 255

// ErrSharedSecret: one secret would prove both an initiator and the target,
// which RFC 7143 9.2.1 forbids.
var ErrSharedSecret = errors.New("the same secret is used in both directions")

// CheckSecret returns an error for a secret that cannot be used. The error does
// not show the secret.
func CheckSecret(secret []byte) error {
	if len(secret) < MinSecret || len(secret) > MaxSecret {
		return fmt.Errorf("the secret has %d bytes; %d to %d are possible", len(secret), MinSecret, MaxSecret)
	}
	return nil
}

// CheckName returns an error for a name that CHAP_N cannot carry.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%.40q is no CHAP name; use 1 to %d bytes of printable text", name, maxName)
	}
	return nil
}

// Credential is a name and what proves it.
type Credential struct {
	Name   string
	Secret []byte
}

func (c *Credential) check() error {
	return errors.Join(CheckName(c.Name), CheckSecret(c.Secret))
}

// User is someone whom initiators can prove to be.
type User struct {
	Credential
	// Allows reports whether an initiator may use the name; nil: all may.
	Allows func(initiatorName string) bool
	// Binds reports whether the user is bound to an initiator name: it was given
	// that name, and not just all of them; nil: it is bound to none.
	Binds func(initiatorName string) bool
}

// Config says who may come and how that is proved.
type Config struct {
	Users []User
	// Target is what the target proves itself by to initiators that ask for it;
	// without a name, those are refused.
	Target Credential
	// Algorithms are those allowed; none: all.
	Algorithms []Algorithm
	// Challenges are shared by all authenticators of a server.
	Challenges *Challenges
}

// Authenticator authenticates initiators. Its methods may be called
// concurrently.
type Authenticator struct {
	config Config
	// nobody stands for users that do not exist, so that their response takes
	// as long to check as any.
	nobody User
}

// New returns an authenticator; an error says what in c cannot be used.
func New(c Config) (*Authenticator, error) {
	if len(c.Users) == 0 {
		return nil, errors.New("CHAP without users")
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = Algorithms()
	}
	for _, a := range c.Algorithms {
		if a.new() == nil {
			return nil, fmt.Errorf("CHAP algorithm %v is not known", a)
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
			return nil, fmt.Errorf("CHAP user %.40q is there twice", u.Name)
		}
		if subtle.ConstantTimeCompare(u.Secret, c.Target.Secret) == 1 {
			return nil, fmt.Errorf("CHAP user %.40q: %w", u.Name, ErrSharedSecret)
		}
	}
	if c.Target.Name != "" || len(c.Target.Secret) > 0 {
		if err := c.Target.check(); err != nil {
			return nil, fmt.Errorf("CHAP name of the target: %w", err)
		}
	}
	nobody := User{Credential: Credential{Secret: make([]byte, 16)}}
	rand.Read(nobody.Secret) // never fails (crypto/rand)
	return &Authenticator{config: c, nobody: nobody}, nil
}

// Allows reports whether an initiator may use the name of a user. It is false
// for a user that does not exist.
func (a *Authenticator) Allows(user, initiatorName string) bool {
	_, ok := a.user(user, initiatorName)
	return ok
}

// Bound reports whether a user may use an initiator name and is bound to it.
func (a *Authenticator) Bound(user, initiatorName string) bool {
	u, ok := a.user(user, initiatorName)
	return ok && u.Binds != nil && u.Binds(initiatorName)
}

// user returns the user of a name; ok is false, and the user one whom nobody
// can prove to be, when an initiator may not use it.
func (a *Authenticator) user(name, initiator string) (u *User, ok bool) {
	for i := range a.config.Users {
		u := &a.config.Users[i]
		if u.Name == name && (u.Allows == nil || u.Allows(initiator)) {
			return u, true
		}
	}
	return &a.nobody, false
}

package chap

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Text keys of the exchange (RFC 7143 12.1.3).
const (
	keyAlgorithm  = "CHAP_A"
	keyIdentifier = "CHAP_I"
	keyChallenge  = "CHAP_C"
	keyName       = "CHAP_N"
	keyResponse   = "CHAP_R"
)

// IsKey reports whether a text key belongs to CHAP.
func IsKey(key string) bool {
	switch key {
	case keyAlgorithm, keyIdentifier, keyChallenge, keyName, keyResponse:
		return true
	}
	return false
}

// Pair is a text key with its value.
type Pair struct{ Key, Value string }

// minChallenge is the minimum length of the target's challenges in bytes. A challenge
// has at least the length of the response.
const minChallenge = 16

type state int

const (
	awaitAlgorithm state = iota
	awaitResponse
	proved
	failed
)

// Exchange is the target's side of one authentication. It ends by success, an error,
// or End.
type Exchange struct {
	a         *Authenticator
	initiator string
	state     state

	algorithm  Algorithm
	identifier byte
	challenge  []byte
	user       string
}

// Begin starts an exchange with the initiator of the given iSCSI name. The caller
// must call End.
func (a *Authenticator) Begin(initiatorName string) *Exchange {
	return &Exchange{a: a, initiator: initiatorName}
}

// Proved reports whether the initiator is authenticated.
func (e *Exchange) Proved() bool { return e.state == proved }

// User returns the user name of the initiator, or "" if it has sent none yet.
func (e *Exchange) User() string { return e.user }

// Algorithm returns the selected algorithm, or 0 if none is selected yet.
func (e *Exchange) Algorithm() Algorithm { return e.algorithm }

// Identity returns a digest of a user's name and secret, the same at every target. The
// initiator must have proven to be the user. It must not be logged.
func (a *Authenticator) Identity(user, initiatorName string) string {
	u, _ := a.user(user, initiatorName)
	sum := sha256.Sum256(slices.Concat([]byte(user), []byte{0}, u.Secret))
	return hex.EncodeToString(sum[:])
}

// End discards an outstanding challenge.
func (e *Exchange) End() {
	if e.challenge != nil {
		e.a.config.Challenges.remove(e.challenge)
		e.challenge = nil
	}
}

// Step consumes the CHAP keys of one request and returns those of the response. An
// error ends the exchange, and the login fails.
func (e *Exchange) Step(request []Pair) (answer []Pair, err error) {
	keys := make(map[string]string, len(request))
	for _, p := range request {
		if _, twice := keys[p.Key]; twice || !IsKey(p.Key) {
			e.state = failed
			return nil, fmt.Errorf("CHAP: unexpected or duplicate key %.40s", p.Key)
		}
		keys[p.Key] = p.Value
	}
	switch e.state {
	case awaitAlgorithm:
		answer, err = e.challengeInitiator(keys)
	case awaitResponse:
		answer, err = e.checkResponse(keys)
	default:
		err = errors.New("CHAP: keys after the end of the exchange")
	}
	if err != nil {
		e.state = failed
	}
	return answer, err
}

// challengeInitiator selects an algorithm and returns the challenge.
func (e *Exchange) challengeInitiator(keys map[string]string) ([]Pair, error) {
	offer, ok := keys[keyAlgorithm]
	if !ok || len(keys) != 1 {
		return nil, errors.New("CHAP: first request must have CHAP_A only")
	}
	var err error
	if e.algorithm, err = choose(offer, e.a.config.Algorithms); err != nil {
		return nil, err
	}
	random := make([]byte, 1+max(minChallenge, e.algorithm.new().Size()))
	rand.Read(random) // never fails (crypto/rand)
	e.identifier, e.challenge = random[0], random[1:]
	e.a.config.Challenges.add(e.challenge)
	e.state = awaitResponse
	return []Pair{
		{keyAlgorithm, strconv.Itoa(int(e.algorithm))},
		{keyIdentifier, strconv.Itoa(int(e.identifier))},
		{keyChallenge, encodeBinary(e.challenge)},
	}, nil
}

// checkResponse verifies the initiator's response, and responds to its challenge if
// it requests mutual authentication.
func (e *Exchange) checkResponse(keys map[string]string) ([]Pair, error) {
	name, named := keys[keyName]
	response, responded := keys[keyResponse]
	identifier, identified := keys[keyIdentifier]
	challenge, challenged := keys[keyChallenge]
	if _, again := keys[keyAlgorithm]; again || !named || !responded || identified != challenged {
		return nil, errors.New("CHAP: second request must have CHAP_N and CHAP_R, and CHAP_I and CHAP_C both or neither")
	}
	if err := CheckName(name); err != nil {
		return nil, err
	}
	e.user = name
	if err := e.verify(name, response); err != nil {
		return nil, err
	}
	var answer []Pair
	if challenged {
		var err error
		if answer, err = e.proveTarget(identifier, challenge); err != nil {
			return nil, err
		}
	}
	e.state = proved
	e.End()
	return answer, nil
}

// verify compares the initiator's response with the expected one.
func (e *Exchange) verify(name, text string) error {
	response, err := decodeBinary(text)
	if err != nil {
		return fmt.Errorf("CHAP_R: %w", err)
	}
	user, known := e.a.user(name, e.initiator)
	want := e.algorithm.Response(e.identifier, user.Secret, e.challenge)
	if subtle.ConstantTimeCompare(response, want) != 1 || !known {
		if e.matchesTarget(response) {
			return ErrSharedSecret
		}
		if !known {
			return fmt.Errorf("CHAP user %.40q: unknown, or not allowed for this initiator", name)
		}
		return fmt.Errorf("CHAP user %.40q: wrong secret", name)
	}
	return nil
}

// matchesTarget reports whether a response matches the target's own secret: the
// initiator uses the secret of the wrong direction (RFC 7143 9.2.1 requires this to
// fail even if both secrets are the same).
func (e *Exchange) matchesTarget(response []byte) bool {
	secret := e.a.config.Target.Secret
	return len(secret) > 0 &&
		subtle.ConstantTimeCompare(response, e.algorithm.Response(e.identifier, secret, e.challenge)) == 1
}

// proveTarget responds to the initiator's challenge.
func (e *Exchange) proveTarget(identifierText, challengeText string) ([]Pair, error) {
	target := &e.a.config.Target
	if target.Name == "" {
		return nil, errors.New("initiator requests mutual CHAP, but the target has no secret")
	}
	identifier, err := decodeIdentifier(identifierText)
	if err != nil {
		return nil, fmt.Errorf("CHAP_I: %w", err)
	}
	challenge, err := decodeBinary(challengeText)
	if err != nil {
		return nil, fmt.Errorf("CHAP_C: %w", err)
	}
	if len(challenge) > maxChallenge {
		return nil, fmt.Errorf("CHAP_C: challenge of %d bytes; maximum is %d", len(challenge), maxChallenge)
	}
	if e.a.config.Challenges.contains(challenge) {
		return nil, errors.New("CHAP_C: initiator sends a challenge of the target (reflection attack)")
	}
	return []Pair{
		{keyName, target.Name},
		{keyResponse, encodeBinary(e.algorithm.Response(identifier, target.Secret, challenge))},
	}, nil
}

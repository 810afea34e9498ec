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

// Keys of the exchange (RFC 7143 12.1.3).
const (
	keyAlgorithm  = "CHAP_A"
	keyIdentifier = "CHAP_I"
	keyChallenge  = "CHAP_C"
	keyName       = "CHAP_N"
	keyResponse   = "CHAP_R"
)

// IsKey reports whether a text key belongs to an exchange.
func IsKey(key string) bool {
	switch key {
	case keyAlgorithm, keyIdentifier, keyChallenge, keyName, keyResponse:
		return true
	}
	return false
}

// Pair is a key with its value, as they stand in login text.
type Pair struct{ Key, Value string }

// minChallenge is the least length of our challenges in bytes; they are as long
// as the response, where that is longer.
const minChallenge = 16

type state int

const (
	awaitAlgorithm state = iota
	awaitResponse
	proved
	failed
)

// Exchange is one authentication. It ends by success, an error, or End.
type Exchange struct {
	a         *Authenticator
	initiator string
	state     state

	algorithm  Algorithm
	identifier byte
	challenge  []byte
	user       string
}

// Begin starts an exchange with the initiator of that iSCSI name. The caller
// calls End when it is over.
func (a *Authenticator) Begin(initiatorName string) *Exchange {
	return &Exchange{a: a, initiator: initiatorName}
}

// Proved reports whether the initiator has proved who it is.
func (e *Exchange) Proved() bool { return e.state == proved }

// User is the name that the initiator goes by, once it has told it.
func (e *Exchange) User() string { return e.user }

// Algorithm is the one that was chosen, 0 before that.
func (e *Exchange) Algorithm() Algorithm { return e.algorithm }

// Identity is the same for exchanges that one name and secret have proved, at
// whatever target. It is empty before that, and not to be shown.
func (e *Exchange) Identity() string {
	if e.state != proved {
		return ""
	}
	user, _ := e.a.user(e.user, e.initiator)
	sum := sha256.Sum256(slices.Concat([]byte(e.user), []byte{0}, user.Secret))
	return hex.EncodeToString(sum[:])
}

// End takes back a challenge that was not answered.
func (e *Exchange) End() {
	if e.challenge != nil {
		e.a.config.Challenges.remove(e.challenge)
		e.challenge = nil
	}
}

// Step takes the CHAP keys of one request and returns those of the answer. An
// error ends the exchange: the login has failed.
func (e *Exchange) Step(request []Pair) (answer []Pair, err error) {
	keys := make(map[string]string, len(request))
	for _, p := range request {
		if _, twice := keys[p.Key]; twice || !IsKey(p.Key) {
			e.state = failed
			return nil, fmt.Errorf("CHAP: unexpected key %.40s", p.Key)
		}
		keys[p.Key] = p.Value
	}
	switch e.state {
	case awaitAlgorithm:
		answer, err = e.challengeInitiator(keys)
	case awaitResponse:
		answer, err = e.checkResponse(keys)
	default:
		err = errors.New("CHAP goes on after its end")
	}
	if err != nil {
		e.state = failed
	}
	return answer, err
}

// challengeInitiator answers the list of algorithms.
func (e *Exchange) challengeInitiator(keys map[string]string) ([]Pair, error) {
	offer, ok := keys[keyAlgorithm]
	if !ok || len(keys) != 1 {
		return nil, errors.New("CHAP does not begin with CHAP_A alone")
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

// checkResponse checks who the initiator is, and proves who we are if it asks.
func (e *Exchange) checkResponse(keys map[string]string) ([]Pair, error) {
	name, named := keys[keyName]
	response, responded := keys[keyResponse]
	identifier, identified := keys[keyIdentifier]
	challenge, challenged := keys[keyChallenge]
	if _, again := keys[keyAlgorithm]; again || !named || !responded || identified != challenged {
		return nil, errors.New("CHAP goes on with other keys than CHAP_N and CHAP_R, and perhaps CHAP_I and CHAP_C")
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

// verify compares the initiator's response with the one that its secret gives.
func (e *Exchange) verify(name, text string) error {
	response, err := decodeBinary(text)
	if err != nil {
		return fmt.Errorf("CHAP_R: %w", err)
	}
	user, known := e.a.user(name, e.initiator)
	want := e.algorithm.Response(e.identifier, user.Secret, e.challenge)
	if subtle.ConstantTimeCompare(response, want) != 1 || !known {
		if e.fromTarget(response) {
			return ErrSharedSecret
		}
		if !known {
			return fmt.Errorf("CHAP user %.40q is not known, or not for this initiator", name)
		}
		return fmt.Errorf("CHAP user %.40q has another secret", name)
	}
	return nil
}

// fromTarget reports whether a response is the one that the target itself would
// have given: the initiator has the wrong one of the two secrets (RFC 7143
// 9.2.1 has this fail even where the two are the same).
func (e *Exchange) fromTarget(response []byte) bool {
	secret := e.a.config.Target.Secret
	return len(secret) > 0 &&
		subtle.ConstantTimeCompare(response, e.algorithm.Response(e.identifier, secret, e.challenge)) == 1
}

// proveTarget answers the initiator's challenge.
func (e *Exchange) proveTarget(identifierText, challengeText string) ([]Pair, error) {
	target := &e.a.config.Target
	if target.Name == "" {
		return nil, errors.New("the initiator wants mutual CHAP, for which the target has no secret")
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
		return nil, fmt.Errorf("CHAP_C has %d bytes, at most %d are possible", len(challenge), maxChallenge)
	}
	if e.a.config.Challenges.ours(challenge) {
		return nil, errors.New("the initiator sends a challenge of the target's own: a reflection attack")
	}
	return []Pair{
		{keyName, target.Name},
		{keyResponse, encodeBinary(e.algorithm.Response(identifier, target.Secret, challenge))},
	}, nil
}

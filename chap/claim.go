package chap

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Claim is the initiator's side of one authentication: it proves Initiator, and
// where Target has a name, demands that the target prove that. The calls are
// Offer, Respond with the target's first answer, Check with its second.
type Claim struct {
	Initiator, Target Credential

	algorithm  Algorithm
	identifier byte
	challenge  []byte
}

// Offer returns what the initiator begins with: every algorithm, the strongest
// first.
func (c *Claim) Offer() Pair {
	all := Algorithms()
	var names []string
	for i := range all {
		names = append(names, strconv.Itoa(int(all[len(all)-1-i])))
	}
	return Pair{keyAlgorithm, strings.Join(names, ",")}
}

// Respond answers the target's challenge.
func (c *Claim) Respond(keys map[string]string) ([]Pair, error) {
	var err error
	if c.algorithm, err = choose(keys[keyAlgorithm], Algorithms()); err != nil {
		return nil, fmt.Errorf("the target chose no CHAP algorithm that was offered: %q", keys[keyAlgorithm])
	}
	identifier, err := decodeIdentifier(keys[keyIdentifier])
	if err != nil {
		return nil, fmt.Errorf("CHAP_I: %w", err)
	}
	challenge, err := decodeBinary(keys[keyChallenge])
	if err != nil {
		return nil, fmt.Errorf("CHAP_C: %w", err)
	}
	answer := []Pair{
		{keyName, c.Initiator.Name},
		{keyResponse, encodeBinary(c.algorithm.Response(identifier, c.Initiator.Secret, challenge))},
	}
	if c.Target.Name == "" {
		return answer, nil
	}
	random := make([]byte, 1+max(minChallenge, c.algorithm.new().Size()))
	rand.Read(random) // never fails (crypto/rand)
	c.identifier, c.challenge = random[0], random[1:]
	if bytes.Equal(c.challenge, challenge) {
		return nil, errors.New("the target sent the challenge that it was to be asked")
	}
	return append(answer, Pair{keyIdentifier, strconv.Itoa(int(c.identifier))}, Pair{keyChallenge, encodeBinary(c.challenge)}), nil
}

// Check reports whether the target has proved who it is, if that was demanded.
func (c *Claim) Check(keys map[string]string) error {
	if c.Target.Name == "" {
		return nil
	}
	response, err := decodeBinary(keys[keyResponse])
	if err != nil {
		return fmt.Errorf("the target does not prove who it is; CHAP_R: %w", err)
	}
	want := c.algorithm.Response(c.identifier, c.Target.Secret, c.challenge)
	if keys[keyName] != c.Target.Name || subtle.ConstantTimeCompare(response, want) != 1 {
		return errors.New("the target is not who it should be: its CHAP name or secret is another one")
	}
	return nil
}

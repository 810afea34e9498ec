package chap

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Claim is the initiator's side of one authentication. It authenticates as Initiator
// and, if Target has a name, requires the target to authenticate as Target. Call
// Offer, then Respond with the target's first answer, then Check with its second.
type Claim struct {
	Initiator, Target Credential

	algorithm  Algorithm
	identifier byte
	challenge  []byte
}

// Offer returns CHAP_A with all algorithms, the strongest first, but SHA256 last: the iSCSI
// Enterprise Target and what comes from it (tgtd) take its number for SHA1, and the first number
// that they know. A target that knows SHA256 and not SHA3-256 selects it if it has no other.
func (c *Claim) Offer() Pair {
	all := Algorithms()
	slices.Reverse(all)
	i := slices.Index(all, SHA256)
	all = append(slices.Delete(all, i, i+1), SHA256)
	var names []string
	for _, a := range all {
		names = append(names, strconv.Itoa(int(a)))
	}
	return Pair{keyAlgorithm, strings.Join(names, ",")}
}

// Respond returns the response to the target's challenge.
func (c *Claim) Respond(keys map[string]string) ([]Pair, error) {
	var err error
	if c.algorithm, err = choose(keys[keyAlgorithm], Algorithms()); err != nil {
		return nil, fmt.Errorf("CHAP_A: target selected %q, which was not offered", keys[keyAlgorithm])
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
		return nil, errors.New("CHAP_C: target reflects the challenge")
	}
	return append(answer, Pair{keyIdentifier, strconv.Itoa(int(c.identifier))}, Pair{keyChallenge, encodeBinary(c.challenge)}), nil
}

// Check returns an error if mutual authentication is required and fails.
func (c *Claim) Check(keys map[string]string) error {
	if c.Target.Name == "" {
		return nil
	}
	response, err := decodeBinary(keys[keyResponse])
	if err != nil {
		return fmt.Errorf("mutual CHAP: target sent no valid CHAP_R: %w", err)
	}
	want := c.algorithm.Response(c.identifier, c.Target.Secret, c.challenge)
	if keys[keyName] != c.Target.Name || subtle.ConstantTimeCompare(response, want) != 1 {
		return errors.New("mutual CHAP: wrong name or secret of the target")
	}
	return nil
}

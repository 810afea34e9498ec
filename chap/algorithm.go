package chap

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// Algorithm is the number of a hash function in CHAP_A (RFC 7143 12.1.3; IANA
// registry of PPP authentication algorithms).
type Algorithm byte

// Algorithms assigned to iSCSI.
const (
	MD5      Algorithm = 5
	SHA1     Algorithm = 6
	SHA256   Algorithm = 7
	SHA3_256 Algorithm = 8
)

var algorithms = []struct {
	Algorithm
	name string
	hash func() hash.Hash
}{
	{MD5, "MD5", md5.New},
	{SHA1, "SHA1", sha1.New},
	{SHA256, "SHA256", sha256.New},
	{SHA3_256, "SHA3-256", func() hash.Hash { return sha3.New256() }},
}

// Algorithms returns all supported algorithms, the weakest first.
func Algorithms() []Algorithm {
	all := make([]Algorithm, len(algorithms))
	for i, a := range algorithms {
		all[i] = a.Algorithm
	}
	return all
}

// ParseAlgorithm returns the algorithm with the given name, in the spelling of
// open-iscsi: MD5, SHA1, SHA256 or SHA3-256.
func ParseAlgorithm(name string) (Algorithm, error) {
	for _, a := range algorithms {
		if a.name == name {
			return a.Algorithm, nil
		}
	}
	return 0, fmt.Errorf("unknown CHAP algorithm %q", name)
}

// String returns the name that ParseAlgorithm accepts.
func (a Algorithm) String() string {
	for _, known := range algorithms {
		if known.Algorithm == a {
			return known.name
		}
	}
	return strconv.Itoa(int(a))
}

// new returns the hash function, or nil for an unknown number.
func (a Algorithm) new() hash.Hash {
	for _, known := range algorithms {
		if known.Algorithm == a {
			return known.hash()
		}
	}
	return nil
}

// Response returns the response to a challenge (RFC 1994 4.1): the hash of
// identifier, secret and challenge.
func (a Algorithm) Response(identifier byte, secret, challenge []byte) []byte {
	h := a.new()
	h.Write([]byte{identifier})
	h.Write(secret)
	h.Write(challenge)
	return h.Sum(nil)
}

// choose returns the first offered algorithm that is allowed.
func choose(offer string, allowed []Algorithm) (Algorithm, error) {
	for item := range strings.SplitSeq(offer, ",") {
		for _, a := range allowed {
			if item == strconv.Itoa(int(a)) {
				return a, nil
			}
		}
	}
	return 0, fmt.Errorf("CHAP_A: offered %.40q, allowed %v", offer, allowed)
}

package chap

import (
	"strings"
	"testing"
)

// keysOf returns the pairs as a map.
func keysOf(pairs ...Pair) map[string]string {
	keys := map[string]string{}
	for _, p := range pairs {
		keys[p.Key] = p.Value
	}
	return keys
}

// A Claim authenticates with an Exchange, or one of the two fails.
func TestClaim(t *testing.T) {
	secret, back := []byte("initiator secret"), []byte("the target secret")
	user := User{Credential: Credential{"ada", secret}}
	for name, tt := range map[string]struct {
		config Config
		claim  Claim
		words  string // of the error of either side
	}{
		"one way":        {Config{Users: []User{user}}, Claim{Initiator: user.Credential}, ""},
		"mutual":         {Config{Users: []User{user}, Target: Credential{"disks", back}}, Claim{Initiator: user.Credential, Target: Credential{"disks", back}}, ""},
		"only MD5":       {Config{Users: []User{user}, Algorithms: []Algorithm{MD5}}, Claim{Initiator: user.Credential}, ""},
		"only SHA256":    {Config{Users: []User{user}, Algorithms: []Algorithm{SHA256}}, Claim{Initiator: user.Credential}, ""},
		"wrong secret":   {Config{Users: []User{user}}, Claim{Initiator: Credential{"ada", back}}, "wrong secret"},
		"target's name":  {Config{Users: []User{user}, Target: Credential{"disks", back}}, Claim{Initiator: user.Credential, Target: Credential{"other", back}}, "wrong name or secret"},
		"target's proof": {Config{Users: []User{user}, Target: Credential{"disks", back}}, Claim{Initiator: user.Credential, Target: Credential{"disks", []byte("another secret")}}, "wrong name or secret"},
	} {
		t.Run(name, func(t *testing.T) {
			err := authenticate(t, tt.config, &tt.claim)
			if (err == nil) != (tt.words == "") || err != nil && !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v, want %q", err, tt.words)
			}
		})
	}
}

// A target that takes the number of SHA256 for SHA1, and selects the first number that it knows,
// selects another one.
func TestClaim_Offer(t *testing.T) {
	offer := new(Claim).Offer()
	if want := (Pair{"CHAP_A", "8,6,5,7"}); offer != want {
		t.Errorf("%v, want %v", offer, want)
	}
	for known, want := range map[string]string{"5,7": "5", "7": "7", "5,6": "6", "8,7,6,5": "8"} {
		for number := range strings.SplitSeq(offer.Value, ",") {
			if strings.Contains(known, number) {
				if number != want {
					t.Errorf("a target that knows %s selects %s, want %s", known, number, want)
				}
				break
			}
		}
	}
}

func authenticate(t *testing.T, config Config, c *Claim) error {
	t.Helper()
	a, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	e := a.Begin("iqn.2026-11.example.odx:initiator")
	defer e.End()
	challenge, err := e.Step([]Pair{c.Offer()})
	if err != nil {
		return err
	}
	response, err := c.Respond(keysOf(challenge...))
	if err != nil {
		return err
	}
	proof, err := e.Step(response)
	if err != nil {
		return err
	}
	if !e.Proved() {
		t.Error("the initiator is not authenticated")
	}
	return c.Check(keysOf(proof...))
}

func TestClaim_Invalid(t *testing.T) {
	for name, keys := range map[string]map[string]string{
		"nothing":           {},
		"unknown algorithm": {"CHAP_A": "9", "CHAP_I": "1", "CHAP_C": "0x00"},
		"no identifier":     {"CHAP_A": "5", "CHAP_C": "0x00"},
		"odd challenge":     {"CHAP_A": "5", "CHAP_I": "1", "CHAP_C": "00"},
	} {
		t.Run(name, func(t *testing.T) {
			c := Claim{Initiator: Credential{"ada", []byte("initiator secret")}}
			if answer, err := c.Respond(keys); err == nil {
				t.Errorf("%s: Respond = %v, want an error", name, answer)
			}
		})
	}
	c := Claim{Target: Credential{"disks", []byte("the target secret")}, algorithm: MD5}
	if c.Check(nil) == nil {
		t.Error("Check accepts a target that sent no response")
	}
}

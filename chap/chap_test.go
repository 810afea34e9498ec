package chap

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const (
	host, otherHost = "iqn.2026-11.com.example:host", "iqn.2026-11.com.example:other"
	hostSecret      = "the secret of the host"
	targetSecret    = "the secret of the target"
)

func credential(name, secret string) Credential { return Credential{name, []byte(secret)} }

// newAuthenticator returns one with a user for any initiator, a user for host only,
// and a credential of the target.
func newAuthenticator(t testing.TB, algorithms ...Algorithm) *Authenticator {
	t.Helper()
	a, err := New(Config{
		Users: []User{
			{Credential: credential("anyone", hostSecret)},
			{Credential: credential("host", hostSecret), Allows: func(name string) bool { return name == host }},
		},
		Target:     credential("target", targetSecret),
		Algorithms: algorithms,
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The expected digests are those of Python's hashlib.
func TestAlgorithm_Response(t *testing.T) {
	challenge := make([]byte, 16)
	for i := range challenge {
		challenge[i] = byte(i)
	}
	for a, want := range map[Algorithm]string{
		MD5:      "ca6d101f2fd6623535803b3b3da05fea",
		SHA1:     "9bca7d376dce471f7b1c544e0b54ae14b8b1983d",
		SHA256:   "713cffc5bacbaa301f94a3e648ea879b84520934eaafdd520337fb2da30da325",
		SHA3_256: "c23cde50680c54d63608a63d1c4e7ba8add398629c1e7f137af33fafe932d81b",
	} {
		if got := hex.EncodeToString(a.Response(0x2a, []byte("a secret of 96 bits or more"), challenge)); got != want {
			t.Errorf("%v: %s, want %s", a, got, want)
		}
		if again, err := ParseAlgorithm(a.String()); err != nil || again != a {
			t.Errorf("ParseAlgorithm(%q) = %v, %v", a, again, err)
		}
	}
	if _, err := ParseAlgorithm("SHA-512"); err == nil || Algorithm(9).String() != "9" {
		t.Error("unknown algorithm accepted")
	}
}

// The initiator's order of preference decides among the allowed algorithms.
func TestExchange_Algorithm(t *testing.T) {
	for _, c := range []struct {
		offer   string
		allowed []Algorithm
		want    string // "": refused
	}{
		{"5", nil, "5"},
		{"8,7,6,5", nil, "8"},
		{"5,8", nil, "5"},
		{"5,8", []Algorithm{SHA3_256, SHA256}, "8"},
		{"9,250,7", nil, "7"},
		{"5,6", []Algorithm{SHA256}, ""},
		{"", nil, ""}, {"05", nil, ""}, {"5 ", nil, ""}, {"MD5", nil, ""}, {",", nil, ""},
		{strings.Repeat("9,", 8000) + "6", nil, "6"},
	} {
		e := newAuthenticator(t, c.allowed...).Begin(host)
		answer, err := e.Step([]Pair{{"CHAP_A", c.offer}})
		if c.want == "" {
			if err == nil {
				t.Errorf("offer %.20q of %v: accepted %v", c.offer, c.allowed, answer)
			}
		} else if err != nil || answer[0] != (Pair{"CHAP_A", c.want}) {
			t.Errorf("offer %.20q of %v: %v, %v; want %s", c.offer, c.allowed, answer, err, c.want)
		}
		e.End()
	}
}

// dialogue is an exchange with an outstanding challenge.
type dialogue struct {
	*Exchange
	offered Algorithm
	id      byte
	sent    []byte
}

func begin(t testing.TB, a *Authenticator, initiator string, offer Algorithm) *dialogue {
	t.Helper()
	e := a.Begin(initiator)
	t.Cleanup(e.End)
	answer, err := e.Step([]Pair{{"CHAP_A", fmt.Sprint(byte(offer))}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := decodeIdentifier(answer[1].Value)
	if err != nil || answer[1].Key != "CHAP_I" {
		t.Fatalf("answer %v: %v", answer, err)
	}
	sent, err := decodeBinary(answer[2].Value)
	if err != nil || answer[2].Key != "CHAP_C" || len(sent) < 16 {
		t.Fatalf("answer %v: %v", answer, err)
	}
	return &dialogue{e, offer, id, sent}
}

// reply returns the response with a secret, in hexadecimal.
func (d *dialogue) reply(secret string) string {
	return encodeBinary(d.offered.Response(d.id, []byte(secret), d.sent))
}

// The second request authenticates the initiator, or fails.
func TestExchange_Response(t *testing.T) {
	challenge := make([]byte, 24)
	own := func(id byte, a Algorithm) string {
		return encodeBinary(a.Response(id, []byte(targetSecret), challenge))
	}
	asHex := "0x" + strings.Repeat("00", 24)
	as64 := "0b" + base64.StdEncoding.EncodeToString(challenge)
	for _, c := range []struct {
		what      string
		initiator string
		keys      func(d *dialogue) []Pair
		answer    func(a Algorithm) string // nil: refused
		reason    string
	}{
		{"one way", otherHost, func(d *dialogue) []Pair { return []Pair{{"CHAP_N", "anyone"}, {"CHAP_R", d.reply(hostSecret)}} },
			func(Algorithm) string { return "" }, ""},
		{"capital digits", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_R", "0X" + strings.ToUpper(d.reply(hostSecret)[2:])}, {"CHAP_N", "host"}}
		}, func(Algorithm) string { return "" }, ""},
		{"base64", host, func(d *dialogue) []Pair {
			b, _ := decodeBinary(d.reply(hostSecret))
			return []Pair{{"CHAP_N", "host"}, {"CHAP_R", "0b" + base64.StdEncoding.EncodeToString(b)}}
		}, func(Algorithm) string { return "" }, ""},
		{"mutual", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}, {"CHAP_I", "200"}, {"CHAP_C", asHex}}
		}, func(a Algorithm) string { return "CHAP_N=target CHAP_R=" + own(200, a) }, ""},
		{"mutual, other forms", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}, {"CHAP_I", "0xC8"}, {"CHAP_C", as64}}
		}, func(a Algorithm) string { return "CHAP_N=target CHAP_R=" + own(200, a) }, ""},
		{"wrong secret", host, func(d *dialogue) []Pair { return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply("another secret")}} },
			nil, `user "host": wrong secret`},
		{"unknown user", host, func(d *dialogue) []Pair { return []Pair{{"CHAP_N", "nobody"}, {"CHAP_R", d.reply(hostSecret)}} },
			nil, `user "nobody": unknown`},
		{"other initiator's user", otherHost, func(d *dialogue) []Pair { return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}} },
			nil, `user "host": unknown, or not allowed for this initiator`},
		{"the target's secret", host, func(d *dialogue) []Pair { return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(targetSecret)}} },
			nil, ErrSharedSecret.Error()},
		{"response too short", host, func(d *dialogue) []Pair { return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)[:10]}} },
			nil, "wrong secret"},
		{"response and more", host, func(d *dialogue) []Pair { return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret) + "00"}} },
			nil, "wrong secret"},
		{"no digits", host, func(*dialogue) []Pair { return []Pair{{"CHAP_N", "host"}, {"CHAP_R", "0xzz"}} }, nil, "CHAP_R"},
		{"nothing", host, func(*dialogue) []Pair { return nil }, nil, "second request"},
		{"no name", host, func(d *dialogue) []Pair { return []Pair{{"CHAP_R", d.reply(hostSecret)}} }, nil, "second request"},
		{"empty name", host, func(d *dialogue) []Pair { return []Pair{{"CHAP_N", ""}, {"CHAP_R", d.reply(hostSecret)}} }, nil, "invalid CHAP name"},
		{"long name", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_N", strings.Repeat("a", 256)}, {"CHAP_R", d.reply(hostSecret)}}
		}, nil, "invalid CHAP name"},
		{"no response", host, func(*dialogue) []Pair { return []Pair{{"CHAP_N", "host"}} }, nil, "second request"},
		{"algorithm again", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_A", "5"}, {"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}}
		}, nil, "second request"},
		{"key twice", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_N", "host"}, {"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}}
		}, nil, "duplicate key CHAP_N"},
		{"challenge without identifier", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}, {"CHAP_C", asHex}}
		}, nil, "second request"},
		{"identifier too large", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}, {"CHAP_I", "256"}, {"CHAP_C", asHex}}
		}, nil, "CHAP_I"},
		{"challenge too long", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}, {"CHAP_I", "1"}, {"CHAP_C", "0b" + strings.Repeat("AAAA", 342)}}
		}, nil, "1026 bytes"},
		{"challenge text too long", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}, {"CHAP_I", "1"}, {"CHAP_C", "0x" + strings.Repeat("00", 1025)}}
		}, nil, "2052 characters"},
		{"reflected challenge", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}, {"CHAP_I", "1"}, {"CHAP_C", encodeBinary(d.sent)}}
		}, nil, "reflection"},
		{"wrong secret and a challenge", host, func(d *dialogue) []Pair {
			return []Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply("another secret")}, {"CHAP_I", "1"}, {"CHAP_C", asHex}}
		}, nil, "wrong secret"},
	} {
		t.Run(c.what, func(t *testing.T) {
			for _, algorithm := range Algorithms() {
				d := begin(t, newAuthenticator(t), c.initiator, algorithm)
				answer, err := d.Step(c.keys(d))
				if c.answer == nil {
					if err == nil || d.Proved() || len(answer) > 0 || !strings.Contains(err.Error(), c.reason) {
						t.Errorf("%s, %v: %v, error %v, want %s", c.what, algorithm, answer, err, c.reason)
					}
					if err != nil && (strings.Contains(err.Error(), hostSecret) || strings.Contains(err.Error(), targetSecret)) {
						t.Errorf("%s: the error contains a secret: %v", c.what, err)
					}
				} else if got := join(answer); err != nil || !d.Proved() || got != c.answer(algorithm) {
					t.Errorf("%s, %v: %q, %v; want %q", c.what, algorithm, got, err, c.answer(algorithm))
				}
				if _, err := d.Step(nil); err == nil {
					t.Errorf("%s, %v: a third request is accepted", c.what, algorithm)
				}
			}
		})
	}
}

func join(pairs []Pair) string {
	var s []string
	for _, p := range pairs {
		s = append(s, p.Key+"="+p.Value)
	}
	return strings.Join(s, " ")
}

// A target without a credential refuses mutual authentication.
func TestExchange_NoMutual(t *testing.T) {
	a, err := New(Config{Users: []User{{Credential: credential("host", hostSecret)}}})
	if err != nil {
		t.Fatal(err)
	}
	d := begin(t, a, host, SHA256)
	_, err = d.Step([]Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}, {"CHAP_I", "1"}, {"CHAP_C", "0x00"}})
	if err == nil || !strings.Contains(err.Error(), "mutual") {
		t.Errorf("error %v", err)
	}
}

// An outstanding challenge of one connection is refused on another, also at another
// target of the server.
func TestExchange_Reflection(t *testing.T) {
	var shared Challenges
	config := Config{Users: []User{{Credential: credential("host", hostSecret)}}, Target: credential("target", targetSecret), Challenges: &shared}
	first, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	second, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	open := begin(t, first, host, SHA256)
	ask := func() error {
		d := begin(t, second, host, SHA256)
		_, err := d.Step([]Pair{{"CHAP_N", "host"}, {"CHAP_R", d.reply(hostSecret)}, {"CHAP_I", fmt.Sprint(open.id)}, {"CHAP_C", encodeBinary(open.sent)}})
		d.End()
		return err
	}
	if err := ask(); err == nil || !strings.Contains(err.Error(), "reflection") {
		t.Errorf("while the challenge is outstanding: %v", err)
	}
	open.End()
	if err := ask(); err != nil {
		t.Errorf("after its exchange: %v", err)
	}
	if len(shared.live) != 0 {
		t.Errorf("%d challenges remain after their exchanges", len(shared.live))
	}
}

// Challenges do not repeat, and identifiers vary.
func TestExchange_Challenges(t *testing.T) {
	a := newAuthenticator(t)
	seen, identifiers := map[string]bool{}, map[byte]bool{}
	for range 200 {
		d := begin(t, a, host, MD5)
		if seen[string(d.sent)] {
			t.Fatalf("challenge %x is sent twice", d.sent)
		}
		seen[string(d.sent)], identifiers[d.id] = true, true
	}
	if len(identifiers) < 50 {
		t.Errorf("%d identifiers in 200 exchanges", len(identifiers))
	}
}

// New refuses an invalid configuration before any login.
func TestNew(t *testing.T) {
	good := []User{{Credential: credential("host", hostSecret)}}
	for want, c := range map[string]Config{
		"no users":          {},
		"12 to 255":         {Users: []User{{Credential: credential("host", "eleven byte")}}},
		"256 bytes":         {Users: []User{{Credential: credential("host", strings.Repeat("a", 256))}}},
		"invalid CHAP name": {Users: []User{{Credential: credential("", hostSecret)}}},
		"duplicate":         {Users: append(good, good...)},
		"algorithm 9":       {Users: good, Algorithms: []Algorithm{9}},
		"both directions":   {Users: good, Target: credential("target", hostSecret)},
		"credential of the": {Users: good, Target: credential("", targetSecret)},
		"0 bytes":           {Users: good, Target: Credential{Name: "target"}},
	} {
		t.Run(want, func(t *testing.T) {
			_, err := New(c)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one about %s", err, want)
			}
			if err != nil && strings.Contains(err.Error(), hostSecret) {
				t.Errorf("the error contains a secret: %v", err)
			}
		})
	}
	if _, err := New(Config{Users: good, Target: credential("target", hostSecret)}); !errors.Is(err, ErrSharedSecret) {
		t.Errorf("error %v", err)
	}
}

// Without the secret, no sequence of requests authenticates, nor obtains a response
// with the target's secret.
func FuzzExchange(f *testing.F) {
	f.Add("CHAP_A=5,7", "CHAP_N=host\x00CHAP_R=0x00000000000000000000000000000000")
	f.Add("CHAP_A=8", "CHAP_N=anyone\x00CHAP_R=0bAAAA\x00CHAP_I=0xff\x00CHAP_C=0x01")
	f.Add("CHAP_N=host", "CHAP_A=5")
	a := newAuthenticator(f)
	f.Fuzz(func(t *testing.T, first, second string) {
		e := a.Begin(host)
		for _, text := range []string{first, second, second} {
			var request []Pair
			for item := range strings.SplitSeq(text, "\x00") {
				key, value, _ := strings.Cut(item, "=")
				request = append(request, Pair{key, value})
			}
			answer, err := e.Step(request)
			if e.Proved() {
				t.Fatal("authenticated without the secret")
			}
			for _, p := range answer {
				if p.Key == "CHAP_N" || p.Key == "CHAP_R" {
					t.Fatalf("answer %v", answer)
				}
			}
			if err != nil && len(answer) > 0 {
				t.Fatalf("error %v with an answer", err)
			}
		}
		e.End()
		if len(a.config.Challenges.live) != 0 {
			t.Fatal("a challenge remains")
		}
	})
}

// A decoded value survives encoding and decoding.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"0x00ff", "0XAb", "0bAAECAw==", "0B", "0x1", "12", "0b\nAAAA", "255", "0xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if b, err := decodeBinary(s); err == nil {
			if len(b) == 0 || len(b) > maxEncoded {
				t.Fatalf("%.40q is %d bytes", s, len(b))
			}
			if len(b) <= maxChallenge {
				if again, err := decodeBinary(encodeBinary(b)); err != nil || string(again) != string(b) {
					t.Fatalf("%x became %x, %v", b, again, err)
				}
			}
		}
		if n, err := decodeIdentifier(s); err == nil {
			if again, err := decodeIdentifier(fmt.Sprint(n)); err != nil || again != n {
				t.Fatalf("%q is %d, then %d", s, n, again)
			}
		}
	})
}

// BenchmarkExchange measures a mutual authentication.
func BenchmarkExchange(b *testing.B) {
	a := newAuthenticator(b)
	b.ReportAllocs()
	for b.Loop() {
		e := a.Begin(host)
		answer, err := e.Step([]Pair{{"CHAP_A", "7"}})
		if err != nil {
			b.Fatal(err)
		}
		id, _ := decodeIdentifier(answer[1].Value)
		challenge, _ := decodeBinary(answer[2].Value)
		if _, err := e.Step([]Pair{{"CHAP_N", "host"}, {"CHAP_I", "1"}, {"CHAP_C", "0x01"},
			{"CHAP_R", encodeBinary(SHA256.Response(id, []byte(hostSecret), challenge))}}); err != nil {
			b.Fatal(err)
		}
		e.End()
	}
}

package iscsi

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"odx/chap"
	"odx/internal/kit/logs"
	"odx/target/scsi"
)

const (
	chapUser, chapSecret     = "host", "the secret of the host"
	targetUser, targetSecret = "target", "the secret of the target"
	offerCHAP                = "AuthMethod=CHAP"
	agreedCHAP               = identity + "AuthMethod=CHAP"
)

// newCHAP returns an authenticator with chapUser, and targetUser as the target's
// credential.
func newCHAP(tb testing.TB) *chap.Authenticator {
	tb.Helper()
	a, err := chap.New(chap.Config{
		Users:  []chap.User{{Credential: chap.Credential{Name: chapUser, Secret: []byte(chapSecret)}}},
		Target: chap.Credential{Name: targetUser, Secret: []byte(targetSecret)},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// demand makes the test target require authentication. It must be called before any
// connection.
func (b *bench) demand(a Authentication) { b.srv.conf.Load().target(testTarget).Authentication = a }

// step sends a login request and returns the response.
func (i *initiator) step(flags byte, keys ...string) (*bhs, []byte) {
	i.tb.Helper()
	h := i.loginRequest(0, 0)
	h[1] = flags
	i.send(h, nil, text(keys...))
	return i.expect(opLoginResponse)
}

// wantStep is step with an expected response.
func (i *initiator) wantStep(flags byte, keys []string, answer byte, want string) {
	i.tb.Helper()
	r, data := i.step(flags, keys...)
	if r.field16(36) != 0 || r[1] != answer || lines(data) != want {
		i.tb.Fatalf("%q: status %#04x, flags %#x, text %q; want success, %#x, %q", keys, r.field16(36), r[1], lines(data), answer, want)
	}
}

// proof requests a challenge and returns the keys of the response to it.
func (i *initiator) proof(a chap.Algorithm, user, secret string) []string {
	i.tb.Helper()
	r, data := i.step(csgSecurity, "CHAP_A="+strconv.Itoa(int(a)))
	if r.field16(36) != 0 {
		i.tb.Fatalf("CHAP_A: status %#x", r.field16(36))
	}
	return answerChallenge(i.tb, a, data, user, secret)
}

// answerChallenge returns the keys of the response to the challenge in data.
func answerChallenge(tb testing.TB, a chap.Algorithm, data []byte, user, secret string) []string {
	tb.Helper()
	pairs, err := parseText(data)
	if err != nil || len(pairs) != 3 {
		tb.Fatalf("CHAP_A answered %q", data)
	}
	id, _ := strconv.Atoi(pairs[1].value)
	challenge, _ := hex.DecodeString(pairs[2].value[2:])
	return []string{"CHAP_N=" + user, "CHAP_R=0x" + hex.EncodeToString(a.Response(byte(id), []byte(secret), challenge))}
}

// Logins with each algorithm, one-way and mutual, in both session types.
func TestLogin_CHAP(t *testing.T) {
	a := newCHAP(t)
	overTransports(t, func(o *Options) { o.DiscoveryAuthentication = Authentication{CHAP: a} }, func(t *testing.T, b *bench) {
		b.demand(Authentication{CHAP: a})
		for _, algorithm := range chap.Algorithms() {
			for n, mutual := range []string{"", "0x00112233445566778899aabbccddeeff"} {
				for _, session := range []struct{ key, answer string }{{normal, agreedCHAP}, {discover, "AuthMethod=CHAP"}} {
					i := b.dial()
					i.isid[5] = byte(algorithm) + byte(n)<<4
					first := []string{name, session.key, "AuthMethod=SRP,CHAP,None"}
					if session.key == normal {
						first = append(first, wantTarget)
					}
					// The request to leave the stage is not granted yet.
					i.wantStep(csgSecurity|toOperational, first, csgSecurity, session.answer)
					keys, want := i.proof(algorithm, chapUser, chapSecret), ""
					if mutual != "" {
						challenge, _ := hex.DecodeString(mutual[2:])
						keys = append(keys, "CHAP_I=7", "CHAP_C="+mutual)
						want = "CHAP_N=" + targetUser + " CHAP_R=0x" + hex.EncodeToString(algorithm.Response(7, []byte(targetSecret), challenge))
					}
					i.wantStep(csgSecurity|toOperational, keys, csgSecurity|toOperational, want)
					r, data := i.step(csgOperational|toFullFeature, "InitialR2T=No")
					if r.field16(36) != 0 || r[1] != csgOperational|toFullFeature {
						t.Fatalf("last request answered with %x %q", *r, data)
					}
					i.loggedIn(r, data)
					if session.key == normal {
						i.alive()
					} else if i.text("SendTargets=All") == "" {
						t.Error("no targets")
					}
					i.nc.Close()
				}
			}
		}
	})
}

// Each step of the login is a request of its own.
func TestLogin_CHAPStepwise(t *testing.T) {
	b := newBench(t, nil, nil)
	b.demand(Authentication{CHAP: newCHAP(t)})
	i := b.dial()
	i.wantStep(csgSecurity, []string{name, wantTarget}, csgSecurity, strings.TrimSpace(identity))
	i.wantStep(csgSecurity, []string{offerCHAP}, csgSecurity, "AuthMethod=CHAP")
	keys := i.proof(chap.MD5, chapUser, chapSecret)
	i.wantStep(csgSecurity|bitContinue, keys[:1], csgSecurity, "")
	i.wantStep(csgSecurity, keys[1:], csgSecurity, "")
	i.wantStep(csgSecurity, nil, csgSecurity, "")
	r, data := i.step(csgSecurity|toFullFeature, nil...)
	if r[1] != csgSecurity|toFullFeature || r.field16(36) != 0 {
		t.Fatalf("last request answered with %x %q", *r, data)
	}
	i.loggedIn(r, data)
	i.alive()
}

// Logins without valid authentication get no session, and receive only the status. The
// log has the initiator and its address, and no secret.
func TestLogin_CHAPRefused(t *testing.T) {
	begin := func(i *initiator) {
		i.wantStep(csgSecurity, []string{name, wantTarget, offerCHAP}, csgSecurity, agreedCHAP)
	}
	for what, c := range map[string]struct {
		play func(i *initiator) (*bhs, []byte)
		want uint16
		log  string
	}{
		"operational at once": {func(i *initiator) (*bhs, []byte) { return i.step(csgOperational|toFullFeature, name, wantTarget) },
			loginAuthenticationFailed, "skips the authentication"},
		"operational at once, in pieces": {func(i *initiator) (*bhs, []byte) {
			i.wantStep(csgOperational|bitContinue, []string{name}, csgOperational, "")
			return i.step(csgOperational|toFullFeature, wantTarget)
		}, loginAuthenticationFailed, "skips the authentication"},
		"no method, straight on": {func(i *initiator) (*bhs, []byte) { return i.step(csgSecurity|toOperational, name, wantTarget) },
			loginAuthenticationFailed, "offers no authentication"},
		"no method, to the end": {func(i *initiator) (*bhs, []byte) { return i.step(csgSecurity|toFullFeature, name, wantTarget) },
			loginAuthenticationFailed, "offers no authentication"},
		"None": {func(i *initiator) (*bhs, []byte) { return i.step(csgSecurity, name, wantTarget, "AuthMethod=None") },
			loginAuthenticationFailed, "offers only"},
		"methods that we have not": {func(i *initiator) (*bhs, []byte) { return i.step(csgSecurity, name, wantTarget, "AuthMethod=KRB5,SRP") },
			loginAuthenticationFailed, "offers only"},
		"method twice": {func(i *initiator) (*bhs, []byte) {
			begin(i)
			return i.step(csgSecurity, "AuthMethod=None")
		}, loginInitiatorError, "sent twice"},
		"next stage before the proof": {func(i *initiator) (*bhs, []byte) {
			begin(i)
			return i.step(csgOperational|toFullFeature, "InitialR2T=No")
		}, loginInitiatorError, "request of stage 1 in stage 0"},
		"nothing": {func(i *initiator) (*bhs, []byte) {
			begin(i)
			return i.step(csgSecurity | toFullFeature)
		}, loginAuthenticationFailed, "first request must have CHAP_A"},
		"algorithms that we have not": {func(i *initiator) (*bhs, []byte) {
			begin(i)
			return i.step(csgSecurity, "CHAP_A=1,2")
		}, loginAuthenticationFailed, "offered"},
		"nothing for the challenge": {func(i *initiator) (*bhs, []byte) {
			begin(i)
			i.proof(chap.SHA256, chapUser, chapSecret)
			return i.step(csgSecurity | toFullFeature)
		}, loginAuthenticationFailed, "second request"},
		"wrong secret": {func(i *initiator) (*bhs, []byte) {
			begin(i)
			return i.step(csgSecurity|toFullFeature, i.proof(chap.SHA256, chapUser, "some other secret")...)
		}, loginAuthenticationFailed, "wrong secret"},
		"unknown user": {func(i *initiator) (*bhs, []byte) {
			begin(i)
			return i.step(csgSecurity|toFullFeature, i.proof(chap.SHA256, "guest", chapSecret)...)
		}, loginAuthenticationFailed, `user \"guest\": unknown`},
		"the target's secret": {func(i *initiator) (*bhs, []byte) {
			begin(i)
			return i.step(csgSecurity|toFullFeature, i.proof(chap.SHA256, chapUser, targetSecret)...)
		}, loginAuthenticationFailed, "both directions"},
		"reflection": {func(i *initiator) (*bhs, []byte) {
			begin(i)
			other := b2(i)
			begin(other)
			_, data := other.step(csgSecurity, "CHAP_A=7")
			return i.step(csgSecurity, append(i.proof(chap.SHA256, chapUser, chapSecret), strings.Split(lines(data), " ")[1:]...)...)
		}, loginAuthenticationFailed, "reflection"},
		"CHAP before it is agreed upon": {func(i *initiator) (*bhs, []byte) { return i.step(csgSecurity, name, wantTarget, "CHAP_A=5") },
			loginInitiatorError, "not negotiated"},
		"CHAP with the offer": {func(i *initiator) (*bhs, []byte) { return i.step(csgSecurity, name, wantTarget, offerCHAP, "CHAP_A=5") },
			loginInitiatorError, "not negotiated"},
		"more after the proof": {func(i *initiator) (*bhs, []byte) {
			begin(i)
			i.wantStep(csgSecurity, i.proof(chap.SHA1, chapUser, chapSecret), csgSecurity, "")
			return i.step(csgSecurity, "CHAP_I=1", "CHAP_C=0x00")
		}, loginAuthenticationFailed, "after the end"},
		"CHAP in the next stage": {func(i *initiator) (*bhs, []byte) {
			begin(i)
			i.wantStep(csgSecurity|toOperational, i.proof(chap.SHA1, chapUser, chapSecret), csgSecurity|toOperational, "")
			return i.step(csgOperational, "CHAP_I=1", "CHAP_C=0x00")
		}, loginInitiatorError, "not negotiated"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var log logs.Text
			b := newBench(t, func(o *Options) { o.Log = log.Entry() }, nil)
			b.demand(Authentication{CHAP: newCHAP(t)})
			i := b.dial()
			r, data := c.play(i)
			if r.field16(36) != c.want || len(data) > 0 {
				t.Errorf("status %#04x, text %q; want %#04x", r.field16(36), data, c.want)
			}
			i.expectClosed()
			said := log.String()
			for _, want := range []string{c.log, testInitiator, i.nc.LocalAddr().String()} {
				if !strings.Contains(said, want) && c.want != loginInitiatorError {
					t.Errorf("the log lacks %q: %s", want, said)
				}
			}
			if strings.Contains(said, chapSecret) || strings.Contains(said, targetSecret) {
				t.Errorf("the log shows a secret: %s", said)
			}
			if n := b.disk.nexuses(); n != 0 {
				t.Errorf("%d nexuses", n)
			}
		})
	}
}

// b2 connects again to the address of i.
func b2(i *initiator) *initiator {
	i.tb.Helper()
	return (&bench{tb: i.tb, addr: i.nc.RemoteAddr().String()}).dial()
}

// An initiator that offers authentication must authenticate.
func TestLogin_OptionalAuthentication(t *testing.T) {
	b := newBench(t, nil, nil)
	b.demand(Authentication{CHAP: newCHAP(t), Optional: true})
	b.login().alive()
	i := b.dial()
	i.wantStep(csgSecurity|toFullFeature, []string{name, wantTarget, "AuthMethod=None,CHAP"}, csgSecurity|toFullFeature, identity+"AuthMethod=None")
	i = b.dial()
	i.wantStep(csgSecurity|toFullFeature, []string{name, wantTarget, "AuthMethod=CHAP,None"}, csgSecurity, agreedCHAP)
	if r, _ := i.step(csgSecurity|toFullFeature, i.proof(chap.MD5, chapUser, "some other secret")...); r.field16(36) != loginAuthenticationFailed {
		t.Errorf("status %#x", r.field16(36))
	}
}

// Discovery and targets have separate authentication.
func TestLogin_DiscoveryAuthentication(t *testing.T) {
	b := newBench(t, func(o *Options) { o.DiscoveryAuthentication = Authentication{CHAP: newCHAP(t)} }, nil)
	i := b.dial()
	if r, _ := i.step(csgOperational|toFullFeature, name, discover); r.field16(36) != loginAuthenticationFailed {
		t.Errorf("status %#x", r.field16(36))
	}
	b.login().alive()
}

// The access list selects by name and address who is admitted and which targets are
// listed. Unauthenticated initiators learn nothing about it.
func TestLogin_Admit(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		view := scsi.View{3: {LUN: 0, ReadOnly: true}}
		local := netip.MustParseAddr("127.0.0.1")
		b.srv.conf.Load().target(testTarget).Admit = func(initiator string, from netip.Addr) (scsi.View, bool) {
			return view, initiator == testInitiator && from == local
		}
		b.srv.conf.Load().target(testTarget + "2").Admit = func(initiator string, _ netip.Addr) (scsi.View, bool) { return nil, initiator != testInitiator }
		b.login().alive()
		if got := b.disk.rightsOf(testInitiator).View; !sameView(got, view) {
			t.Errorf("the nexus sees %v", got)
		}
		const unlisted = "InitiatorName=" + testInitiator + ".unlisted"
		i := b.dial()
		if r, _ := i.step(csgOperational|toFullFeature, unlisted, wantTarget); r.field16(36) != loginAuthorizationFailed {
			t.Errorf("status %#x", r.field16(36))
		}
		i.expectClosed()
		i = b.dial()
		if r, _ := i.step(csgSecurity|toOperational, unlisted, wantTarget, "AuthMethod=None"); r.field16(36) != loginAuthorizationFailed {
			t.Errorf("status %#x", r.field16(36))
		}
		for initiator, want := range map[string]string{name: testTarget, unlisted: testTarget + "2"} {
			i := b.dial()
			i.login(initiator, discover)
			if got := i.text("SendTargets=All"); strings.Count(got, "TargetName=") != 1 || !strings.Contains(got, "TargetName="+want+" ") {
				t.Errorf("SendTargets for %s: %q, want %s", initiator, got, want)
			}
			other := testTarget
			if want == other {
				other = testTarget + "2"
			}
			if got := i.text("SendTargets=" + other); got != "" {
				t.Errorf("SendTargets for %s: %q", initiator, got)
			}
		}
	})
}

// Nexuses have the same proof if their initiators authenticated the same identity from
// the same address, and none if neither was required.
func TestLogin_Proof(t *testing.T) {
	proof := func(demand, address string, a *chap.Authenticator) string {
		b := newBench(t, nil, nil)
		everyone := func(string, netip.Addr) (scsi.View, bool) { return nil, true }
		switch demand {
		case "address":
			b.srv.conf.Load().target(testTarget).Admit = everyone
		case "secret":
			b.demand(Authentication{CHAP: a})
		case "perhaps a secret":
			b.demand(Authentication{CHAP: a, Optional: true})
		}
		i := b.dialFrom(address)
		if demand == "secret" {
			i.wantStep(csgSecurity, []string{name, wantTarget, offerCHAP}, csgSecurity, agreedCHAP)
			i.step(csgSecurity|toFullFeature, i.proof(chap.SHA256, chapUser, chapSecret)...)
		} else {
			i.login(name, wantTarget)
		}
		return b.disk.rightsOf(testInitiator).Proof
	}
	const here, there = "127.0.0.1", "127.0.0.2"
	secret := proof("secret", here, newCHAP(t))
	for what, got := range map[string]bool{
		"nothing was asked for":         proof("nothing", here, nil) == "",
		"nothing was proved":            proof("perhaps a secret", here, newCHAP(t)) == "",
		"the address":                   proof("address", here, nil) == here,
		"the secret":                    strings.HasPrefix(secret, here+" ") && len(secret) > 64,
		"the secret, at another target": secret == proof("secret", here, newCHAP(t)),
		"the secret, from elsewhere":    secret != proof("secret", there, newCHAP(t)),
	} {
		if !got {
			t.Errorf("%s: wrong proof", what)
		}
	}
}

// The access list applies after authentication.
func TestLogin_AdmitAfterAuthentication(t *testing.T) {
	b := newBench(t, nil, nil)
	b.demand(Authentication{CHAP: newCHAP(t)})
	b.srv.conf.Load().target(testTarget).Admit = func(string, netip.Addr) (scsi.View, bool) { return nil, false }
	for secret, want := range map[string]uint16{chapSecret: loginAuthorizationFailed, "some other secret": loginAuthenticationFailed} {
		i := b.dial()
		i.wantStep(csgSecurity, []string{name, wantTarget, offerCHAP}, csgSecurity, agreedCHAP)
		r, data := i.step(csgSecurity|toFullFeature, i.proof(chap.SHA256, chapUser, secret)...)
		if r.field16(36) != want || len(data) > 0 {
			t.Errorf("status %#x, text %q; want %#x", r.field16(36), data, want)
		}
	}
}

// A login without progress ends after a bounded number of requests, length of text, or
// number of keys.
func TestLogin_Bounds(t *testing.T) {
	for what, next := range map[string]func(i *initiator, n int) *bhs{
		"empty requests": func(i *initiator, n int) *bhs { r, _ := i.step(csgSecurity); return r },
		"endless text": func(i *initiator, n int) *bhs {
			r, _ := i.step(csgSecurity, "X-"+strconv.Itoa(n)+"="+strings.Repeat("a", 2000))
			return r
		},
		"text without end": func(i *initiator, n int) *bhs { r, _ := i.step(csgSecurity|bitContinue, "a"); return r },
		"endless keys": func(i *initiator, n int) *bhs {
			var keys []string
			for k := range 20 {
				keys = append(keys, fmt.Sprintf("X-%d.%d=", n, k))
			}
			r, _ := i.step(csgSecurity, keys...)
			return r
		},
	} {
		b := newBench(t, nil, nil)
		b.demand(Authentication{CHAP: newCHAP(t)})
		i := b.dial()
		i.wantStep(csgSecurity, []string{name, wantTarget}, csgSecurity, strings.TrimSpace(identity))
		var status []uint16
		for n := 0; len(status) < 1 && n <= maxLoginPDUs; n++ {
			if r := next(i, n); r.field16(36) != 0 {
				status = append(status, r.field16(36))
			}
		}
		if !slices.Contains(status, uint16(loginInitiatorError)) && !slices.Contains(status, uint16(loginOutOfResources)) {
			t.Errorf("%s: no end after %d requests (%#x)", what, maxLoginPDUs, status)
		}
		i.expectClosed()
	}
}

// FuzzSecureLogin sends requests with arbitrary flags and keys to a target with
// authentication. None logs in.
func FuzzSecureLogin(f *testing.F) {
	b := newBench(f, nil, nil)
	b.demand(Authentication{CHAP: newCHAP(f)})
	request := func(flags byte, keys ...string) string { return string(flags) + strings.Join(keys, "\n") }
	f.Add(request(csgSecurity|toOperational, name, wantTarget, offerCHAP), request(csgSecurity, "CHAP_A=7"),
		request(csgSecurity|toFullFeature, "CHAP_N=host", "CHAP_R=0x00", "CHAP_I=1", "CHAP_C=0xff"))
	f.Add(request(csgOperational|toFullFeature, name, wantTarget), "", "")
	f.Add(request(csgSecurity|bitContinue, name), request(csgSecurity, wantTarget, "AuthMethod=None,CHAP"), request(csgOperational|toFullFeature))
	f.Fuzz(func(t *testing.T, first, second, third string) {
		i := &initiator{cmdSN: 1, isid: [6]byte{0x80}}
		var wire []byte
		for _, r := range []string{first, second, third} {
			if r == "" || len(r) > 4000 {
				continue
			}
			h := i.loginRequest(0, 0)
			h[1] = r[0]
			wire = append(wire, encode(h, nil, text(strings.Split(r[1:], "\n")...), false, false)...)
		}
		b.play(t, wire)
		for _, s := range b.srv.Sessions() {
			if s.TargetName == testTarget {
				t.Fatalf("session %+v", s)
			}
		}
		if b.disk.nexuses() != 0 {
			t.Fatal("a nexus was attached")
		}
	})
}

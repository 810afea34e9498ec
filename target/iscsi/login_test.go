package iscsi

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// The table has the offers of an initiator and the answers (RFC 7143 13).
func TestParams_Negotiate(t *testing.T) {
	o := DefaultOptions()
	for _, c := range []struct {
		offer string
		want  string // "" for no answer
		in    sessionType
		check func(p *params) bool
	}{
		{"HeaderDigest=None,CRC32C", "None", 0, func(p *params) bool { return !p.headerDigest }},
		{"HeaderDigest=CRC32C,None", "CRC32C", 0, func(p *params) bool { return p.headerDigest }},
		{"HeaderDigest=X-own,CRC32C", "CRC32C", 0, func(p *params) bool { return p.headerDigest }},
		{"HeaderDigest=X-own", "Reject", 0, func(p *params) bool { return !p.headerDigest }},
		{"DataDigest=CRC32C", "CRC32C", 0, func(p *params) bool { return p.dataDigest && !p.headerDigest }},
		{"DataDigest=" + strings.Repeat("X-long,", 100) + "None", "None", 0, func(p *params) bool { return !p.dataDigest }},
		{"MaxConnections=8", "4", 0, func(p *params) bool { return p.maxConnections == 4 }},
		{"MaxConnections=1", "1", 0, func(p *params) bool { return p.maxConnections == 1 }},
		{"MaxConnections=0", "Reject", 0, nil},
		{"InitialR2T=No", "No", 0, func(p *params) bool { return !p.initialR2T }},
		{"InitialR2T=Yes", "Yes", 0, func(p *params) bool { return p.initialR2T }},
		{"InitialR2T=yes", "Reject", 0, func(p *params) bool { return p.initialR2T }},
		{"ImmediateData=No", "No", 0, func(p *params) bool { return !p.immediateData }},
		{"ImmediateData=Yes", "Yes", 0, func(p *params) bool { return p.immediateData }},
		{"MaxRecvDataSegmentLength=65536", "", 0, func(p *params) bool { return p.peerMaxRecv == 65536 }},
		{"MaxRecvDataSegmentLength=511", "Reject", 0, func(p *params) bool { return p.peerMaxRecv == 8192 }},
		{"MaxRecvDataSegmentLength=16777216", "Reject", 0, nil},
		{"MaxBurstLength=16776192", "1048576", 0, func(p *params) bool { return p.maxBurst == 1<<20 }},
		{"MaxBurstLength=0x1000", "4096", 0, func(p *params) bool { return p.maxBurst == 4096 }},
		{"MaxBurstLength=4_096", "Reject", 0, nil},
		{"MaxBurstLength=+4096", "Reject", 0, nil},
		{"MaxBurstLength=", "Reject", 0, nil},
		{"MaxBurstLength=99999999999999999999", "Reject", 0, nil},
		{"MaxBurstLength=" + strings.Repeat("0", 300) + "512", "Reject", 0, nil},
		{"FirstBurstLength=512", "512", 0, func(p *params) bool { return p.firstBurst == 512 }},
		{"DefaultTime2Wait=2", "2", 0, func(p *params) bool { return p.time2Wait == 2 }},
		{"DefaultTime2Retain=20", "0", 0, func(p *params) bool { return p.time2Retain == 0 }},
		{"DefaultTime2Retain=3601", "Reject", 0, nil},
		{"MaxOutstandingR2T=1", "1", 0, func(p *params) bool { return p.maxOutstandingR2T == 1 }},
		{"MaxOutstandingR2T=65535", "8", 0, func(p *params) bool { return p.maxOutstandingR2T == 8 }},
		{"DataPDUInOrder=No", "Yes", 0, nil},
		{"DataSequenceInOrder=No", "Yes", 0, nil},
		{"ErrorRecoveryLevel=2", "0", 0, func(p *params) bool { return p.errorRecoveryLevel == 0 }},
		{"ErrorRecoveryLevel=3", "Reject", 0, nil},
		{"TaskReporting=FastAbort,RFC3720", "RFC3720", 0, nil},
		{"iSCSIProtocolLevel=2", "1", 0, nil},
		{"InitiatorAlias=host", "", 0, func(p *params) bool { return p.initiatorAlias == "host" }},
		{"IFMarker=Yes", "No", 0, nil},
		{"OFMarker=No", "No", 0, nil},
		{"IFMarkInt=2048~8192", "Reject", 0, nil},
		{"SendTargets=All", "Reject", 0, nil},
		{"X-com.example.key=1", "NotUnderstood", 0, nil},
		{"X#key=1", "NotUnderstood", 0, nil},
		{"headerdigest=None", "NotUnderstood", 0, nil},
		{"InitialR2T=No", "Irrelevant", sessionDiscovery, func(p *params) bool { return p.initialR2T }},
		{"MaxBurstLength=512", "Irrelevant", sessionDiscovery, nil},
		{"HeaderDigest=CRC32C", "CRC32C", sessionDiscovery, func(p *params) bool { return p.headerDigest }},
	} {
		p := defaultParams()
		key, value, _ := strings.Cut(c.offer, "=")
		got, _ := p.negotiate(&o, pair{key, value}, c.in)
		if got != c.want {
			t.Errorf("%.60s answered %q, want %q", c.offer, got, c.want)
		}
		if c.check != nil && !c.check(&p) {
			t.Errorf("%.60s leaves %+v", c.offer, p)
		}
	}
}

// The first burst is at most a burst.
func TestParams_ClampFirstBurst(t *testing.T) {
	p := defaultParams()
	p.maxBurst = 512
	if p.clampFirstBurst(); p.firstBurst != 512 {
		t.Errorf("FirstBurstLength %d with MaxBurstLength 512", p.firstBurst)
	}
}

// loginStep is a request of a login and the expected response.
type loginStep struct {
	flags  byte
	keys   []string
	status uint16
	answer byte // flags
	text   string
}

const (
	csgSecurity, csgOperational        = stageSecurity << 2, stageOperational << 2
	toOperational, toFullFeature       = bitTransit | stageOperational, bitTransit | stageFullFeature
	declares                           = "MaxRecvDataSegmentLength=262144"
	identity                           = "TargetPortalGroupTag=7 TargetAlias=test "
	name, wantTarget, normal, discover = "InitiatorName=" + testInitiator, "TargetName=" + testTarget, "SessionType=Normal", "SessionType=Discovery"
)

// The logins run from the first request to the last response.
func TestLogin(t *testing.T) {
	manyKeys := []string{name, wantTarget}
	for n := range 250 {
		manyKeys = append(manyKeys, fmt.Sprintf("X-%d=1", n))
	}
	cases := map[string][]loginStep{
		"straight to operational": {
			{csgOperational | toFullFeature, []string{name, wantTarget, normal}, 0, csgOperational | toFullFeature, identity + declares}},
		"as open-iscsi does": {
			{csgSecurity | toOperational, []string{name, "InitiatorAlias=a", wantTarget, normal, "AuthMethod=None"}, 0,
				csgSecurity | toOperational, identity + "AuthMethod=None"},
			{csgOperational | toFullFeature, []string{"HeaderDigest=None", "InitialR2T=No", "MaxRecvDataSegmentLength=262144"}, 0,
				csgOperational | toFullFeature, "HeaderDigest=None InitialR2T=No " + declares}},
		"security only": {
			{csgSecurity | toFullFeature, []string{name, wantTarget, "AuthMethod=CHAP,None"}, 0,
				csgSecurity | toFullFeature, identity + "AuthMethod=None"}},
		"several requests in a stage": {
			{csgOperational, []string{name, wantTarget, "InitialR2T=No"}, 0, csgOperational, identity + "InitialR2T=No " + declares},
			{csgOperational, []string{"ImmediateData=No"}, 0, csgOperational, "ImmediateData=No"},
			{csgOperational | toFullFeature, nil, 0, csgOperational | toFullFeature, ""}},
		"discovery": {
			{csgOperational | toFullFeature, []string{name, discover}, 0, csgOperational | toFullFeature, declares}},
		"names in capitals": {
			{csgOperational | toFullFeature, []string{"InitiatorName=IQN.2026-11.example.odx:X", "TargetName=" + strings.ToUpper(testTarget)}, 0,
				csgOperational | toFullFeature, identity + declares}},
		"request text in pieces": {
			{csgOperational | bitContinue, []string{name}, 0, csgOperational, ""},
			{csgOperational | bitContinue, []string{wantTarget}, 0, csgOperational, ""},
			{csgOperational | toFullFeature, []string{"InitialR2T=Yes"}, 0, csgOperational | toFullFeature, identity + "InitialR2T=Yes " + declares}},
		"no name":               {{csgOperational | toFullFeature, []string{wantTarget}, loginMissingParameter, csgOperational, ""}},
		"bad name":              {{csgOperational | toFullFeature, []string{"InitiatorName=a b", wantTarget}, loginMissingParameter, csgOperational, ""}},
		"no target":             {{csgOperational | toFullFeature, []string{name}, loginMissingParameter, csgOperational, ""}},
		"unknown target":        {{csgOperational | toFullFeature, []string{name, wantTarget + "x"}, loginNotFound, csgOperational, ""}},
		"unknown session type":  {{csgOperational | toFullFeature, []string{name, wantTarget, "SessionType=X"}, loginBadSessionType, csgOperational, ""}},
		"CHAP only":             {{csgSecurity | toOperational, []string{name, wantTarget, "AuthMethod=CHAP"}, loginAuthenticationFailed, csgSecurity, ""}},
		"key twice":             {{csgOperational, []string{name, wantTarget, "InitialR2T=No", "InitialR2T=No"}, loginInitiatorError, csgOperational, ""}},
		"name twice, the same":  {{csgOperational, []string{name, wantTarget}, 0, csgOperational, identity + declares}, {csgOperational, []string{name, wantTarget}, 0, csgOperational, ""}},
		"name twice, two names": {{csgOperational, []string{name, wantTarget}, 0, csgOperational, identity + declares}, {csgOperational, []string{name + "x"}, loginInitiatorError, csgOperational, ""}},
		"session type late":     {{csgOperational, []string{name, wantTarget}, 0, csgOperational, identity + declares}, {csgOperational, []string{normal}, loginInitiatorError, csgOperational, ""}},
		"no key=value":          {{csgOperational, []string{name, wantTarget, "nonsense"}, loginInitiatorError, csgOperational, ""}},
		"operational key early": {{csgSecurity, []string{name, wantTarget, "InitialR2T=No"}, loginInitiatorError, csgSecurity, ""}},
		"AuthMethod late": { // as jSCSI does
			{csgOperational, []string{name, wantTarget, "AuthMethod=None"}, 0, csgOperational, identity + "AuthMethod=None " + declares},
			{csgOperational | toFullFeature, nil, 0, csgOperational | toFullFeature, ""}},
		"AuthMethod late, with a choice": {
			{csgOperational | toFullFeature, []string{name, wantTarget, "AuthMethod=CHAP,None"}, 0, csgOperational | toFullFeature, identity + "AuthMethod=None " + declares}},
		"AuthMethod late, in the next stage": {
			{csgSecurity | toOperational, []string{name, wantTarget}, 0, csgSecurity | toOperational, strings.TrimSpace(identity)},
			{csgOperational | toFullFeature, []string{"AuthMethod=None"}, 0, csgOperational | toFullFeature, "AuthMethod=None " + declares}},
		"AuthMethod late and without None": {
			{csgOperational, []string{name, wantTarget, "AuthMethod=CHAP"}, loginInitiatorError, csgOperational, ""}},
		"AuthMethod again in the next stage": {
			{csgSecurity | toOperational, []string{name, wantTarget, "AuthMethod=None"}, 0, csgSecurity | toOperational, identity + "AuthMethod=None"},
			{csgOperational | toFullFeature, []string{"AuthMethod=None"}, loginInitiatorError, csgOperational, ""}},
		"alias again, as libiscsi does": {
			{csgSecurity | toOperational, []string{name, "InitiatorAlias=a", wantTarget, "AuthMethod=CHAP,None"}, 0, csgSecurity | toOperational, identity + "AuthMethod=None"},
			{csgOperational | toFullFeature, []string{name, "InitiatorAlias=a", wantTarget}, 0, csgOperational | toFullFeature, declares}},
		"another alias": {
			{csgSecurity | toOperational, []string{name, "InitiatorAlias=a", wantTarget, "AuthMethod=None"}, 0, csgSecurity | toOperational, identity + "AuthMethod=None"},
			{csgOperational | toFullFeature, []string{"InitiatorAlias=b"}, loginInitiatorError, csgOperational, ""}},
		"first burst within the burst": {
			{csgOperational | toFullFeature, []string{name, wantTarget, "MaxBurstLength=65536", "FirstBurstLength=262144"}, 0,
				csgOperational | toFullFeature, identity + "MaxBurstLength=65536 FirstBurstLength=65536 " + declares}},
		"first burst before the burst": {
			{csgOperational | toFullFeature, []string{name, wantTarget, "FirstBurstLength=262144", "MaxBurstLength=65536"}, 0,
				csgOperational | toFullFeature, identity + "MaxBurstLength=65536 FirstBurstLength=65536 " + declares}},
		"first burst a request after the burst": {
			{csgOperational, []string{name, wantTarget, "MaxBurstLength=512"}, 0, csgOperational, identity + "MaxBurstLength=512 " + declares},
			{csgOperational | toFullFeature, []string{"FirstBurstLength=65536"}, 0, csgOperational | toFullFeature, "FirstBurstLength=512"}},
		"length of a data segment beyond the range": {
			{csgOperational | toFullFeature, []string{name, wantTarget, "MaxRecvDataSegmentLength=16777216"}, 0,
				csgOperational | toFullFeature, identity + "MaxRecvDataSegmentLength=Reject"}},
		"length of a data segment below the range, and another request": {
			{csgOperational, []string{name, wantTarget, "MaxRecvDataSegmentLength=0"}, 0, csgOperational, identity + "MaxRecvDataSegmentLength=Reject"},
			{csgOperational | toFullFeature, nil, 0, csgOperational | toFullFeature, ""}},
		"keys that are the target's": {
			{csgOperational | toFullFeature, []string{name, wantTarget, "TargetAlias=x", "TargetPortalGroupTag=1", "TargetAddress=x"}, 0,
				csgOperational | toFullFeature, identity + "TargetAddress=NotUnderstood " + declares}},
		"back to security":        {{csgOperational, []string{name, wantTarget}, 0, csgOperational, identity + declares}, {csgSecurity, nil, loginInitiatorError, csgOperational, ""}},
		"transit to itself":       {{csgOperational | bitTransit | stageOperational, []string{name, wantTarget}, loginInitiatorError, csgOperational, ""}},
		"transit to reserved":     {{csgSecurity | bitTransit | 2, []string{name, wantTarget}, loginInitiatorError, csgSecurity, ""}},
		"reserved stage":          {{2 << 2, []string{name, wantTarget}, loginInitiatorError, 2 << 2, ""}},
		"T and C":                 {{csgOperational | toFullFeature | bitContinue, []string{name}, loginInitiatorError, csgOperational, ""}},
		"more text than we take":  {{csgOperational | bitContinue, []string{strings.Repeat("a", 8000)}, 0, csgOperational, ""}, {csgOperational | bitContinue, []string{strings.Repeat("a", 8000)}, 0, csgOperational, ""}, {csgOperational | bitContinue, []string{strings.Repeat("a", 8000)}, loginOutOfResources, csgOperational, ""}},
		"more keys than we count": {{csgOperational, append(manyKeys, "A=1", "B=1", "C=1", "D=1", "E=1"), loginInitiatorError, csgOperational, ""}},
	}
	overTransports(t, nil, func(t *testing.T, b *bench) {
		n := byte(0)
		for what, steps := range cases {
			i := b.dial()
			n++
			i.isid[5] = n // separate sessions
			for k, s := range steps {
				h := i.loginRequest(0, 0)
				h[1] = s.flags
				i.send(h, nil, text(s.keys...))
				r, data := i.expect(opLoginResponse)
				if r.field16(36) != s.status || r[1] != s.answer || lines(data) != s.text && s.status == 0 {
					t.Errorf("%s, request %d: status %#04x, flags %#x, text %q; want %#04x, %#x, %q",
						what, k, r.field16(36), r[1], lines(data), s.status, s.answer, s.text)
				}
				if s.status != 0 {
					i.expectClosed()
				}
			}
		}
	})
}

// A response that is longer than a PDU is continued (C bit), and the stage changes only
// after its end.
func TestLogin_LongResponse(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		var keys []string
		keys = append(keys, name, wantTarget)
		for n := range 200 {
			keys = append(keys, fmt.Sprintf("X-com.example.a-rather-long-key.%03d=1", n))
		}
		i := b.dial()
		i.send(i.loginRequest(stageOperational, stageFullFeature), nil, text(keys...))
		var all []byte
		for n := 0; ; n++ {
			r, data := i.expect(opLoginResponse)
			if all = append(all, data...); r[1]&bitContinue == 0 {
				if r[1]&bitTransit != 0 {
					t.Fatal("unrequested transit")
				}
				break
			}
			i.send(i.loginRequest(stageOperational, 0), nil, nil)
		}
		if got := strings.Count(string(all), "=NotUnderstood\x00"); got != 200 {
			t.Errorf("%d keys NotUnderstood", got)
		}
		i.send(i.loginRequest(stageOperational, stageFullFeature), nil, nil)
		r, _ := i.expect(opLoginResponse)
		if r[1] != bitTransit|stageOperational<<2|stageFullFeature {
			t.Fatalf("last response %x", *r)
		}
		i.loggedIn(r, nil)
		i.alive()
	})
}

// The header of a request is inconsistent.
func TestLogin_Header(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		for what, change := range map[string]func(h *bhs){
			"version": func(h *bhs) { h[2], h[3] = 3, 1 },
			"ISID":    func(h *bhs) { h[9]++ },
			"CID":     func(h *bhs) { h[21]++ },
			"tag":     func(h *bhs) { h[19]++ },
		} {
			i := b.dial()
			i.send(i.loginRequest(stageOperational, 0), nil, text(name, wantTarget))
			i.expect(opLoginResponse)
			h := i.loginRequest(stageOperational, stageFullFeature)
			change(h)
			i.send(h, nil, nil)
			r, _ := i.expect(opLoginResponse)
			want := uint16(loginInitiatorError)
			if what == "version" {
				want = loginUnsupportedVersion
			}
			if r.field16(36) != want {
				t.Errorf("%s: status %#x", what, r.field16(36))
			}
			i.expectClosed()
		}
		for what, wire := range map[string][]byte{
			"no login":     encode(&bhs{0: opNopOut | bitImmediate, 1: bitFinal}, nil, nil, false, false),
			"HTTP":         []byte("GET / HTTP/1.1\r\nHost: example\r\nAccept: text/html, */*\r\n\r\n"),
			"long segment": encode(&bhs{0: opLogin | bitImmediate, 1: csgOperational}, nil, make([]byte, 8193), false, false),
			"AHS":          encode(&bhs{0: opLogin | bitImmediate, 1: csgOperational}, make([]byte, 8), nil, false, false),
		} {
			i := b.dial()
			i.nc.Write(wire) // may fail: the target need not read everything
			t.Log(what)
			i.expectClosed()
		}
		b.login().alive()
	})
}

// An initiator that is refused is the first to end the connection; then the target frees it.
func TestLogin_RefusedEnds(t *testing.T) {
	b := newBench(t, func(o *Options) { o.LogoutTimeout = time.Hour }, nil)
	i := b.dial()
	i.send(i.loginRequest(stageOperational, 0), nil, text(name, "TargetName="+testTarget+"3"))
	if r, _ := i.expect(opLoginResponse); r.field16(36) != loginNotFound {
		t.Fatalf("status %#x", r.field16(36))
	}
	i.nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := i.nc.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the response: %d bytes, %v", n, err)
	}
	i.nc.Close()
	eventually(t, "the connection is freed", func() bool { return len(b.srv.appendConns(nil)) == 0 })
}

// A login with the same initiator port ends its session (RFC 7143 6.3.5). Other ports and
// other initiators keep theirs.
func TestLogin_SessionReinstatement(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		first := b.login()
		other := b.dial()
		other.isid[5]++
		other.login(name, wantTarget)
		unrelated := b.loginAs(testInitiator + "2")
		// A command that waits for data ends with the session.
		h := first.command(bitWrite, memBlock, write10(0, 1)...)
		first.send(h, nil, nil)
		first.expect(opR2T)

		second := b.login()
		first.expectClosed()
		for _, i := range []*initiator{second, other, unrelated} {
			i.alive()
		}
		if second.tsih == first.tsih || second.tsih == 0 {
			t.Errorf("TSIH %d after %d", second.tsih, first.tsih)
		}
		if n := b.disk.nexuses(); n != 3 {
			t.Errorf("%d nexuses", n)
		}
	})
}

// A second connection for a session that negotiated one, and a connection for no session.
func TestLogin_JoinRefused(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		first := b.login()
		for _, c := range []struct {
			tsih, cid, want uint16
		}{
			{first.tsih, 1, loginTooManyConnections},
			{first.tsih + 1, 0, loginNoSuchSession},
		} {
			i := b.dial()
			h := i.loginRequest(stageOperational, stageFullFeature)
			h.put16(14, c.tsih)
			h.put16(20, c.cid)
			i.send(h, nil, text(name, wantTarget))
			if r, _ := i.expect(opLoginResponse); r.field16(36) != c.want {
				t.Errorf("TSIH %d, CID %d: status %#x, want %#x", c.tsih, c.cid, r.field16(36), c.want)
			}
			i.expectClosed()
		}
		first.alive()
	})
}

// A peer that does not log in within LoginTimeout loses its connection.
func TestLogin_Timeout(t *testing.T) {
	b := newBench(t, func(o *Options) { o.LoginTimeout = 50 * time.Millisecond }, nil)
	silent, slow := b.dial(), b.dial()
	slow.send(slow.loginRequest(stageOperational, 0), nil, text(name, wantTarget))
	slow.expect(opLoginResponse)
	silent.expectClosed()
	slow.expectClosed()
	i := b.login()
	i.alive()
}

// MaxConnections bounds the logged-in connections.
func TestServer_MaxConnections(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxConnections = 2 }, nil)
	one, two := b.login(), b.loginAs(testInitiator+"2")
	third := b.dial()
	third.isid[5]++
	third.send(third.loginRequest(stageOperational, stageFullFeature), nil, text(name, wantTarget))
	if r, _ := third.expect(opLoginResponse); r.field16(36) != loginOutOfResources {
		t.Errorf("status %#x", r.field16(36))
	}
	one.alive()
	two.logout()
	eventually(t, "a place is free", func() bool { return len(b.srv.Sessions()) == 1 })
	third = b.dial()
	third.isid[5]++
	third.login(name, wantTarget)
	third.alive()
}

// fixedAddr is a listener with only an address.
type fixedAddr struct {
	net.Listener
	addr net.Addr
}

func (f fixedAddr) Addr() net.Addr { return f.addr }

// The portal of the connection is first, a wildcard portal has the address of the
// connection, and unreachable portals are omitted.
func TestPortalAddresses(t *testing.T) {
	addr := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct {
		local   string
		portals []string // the first one is that of the connection; optionally with an advertised address
		want    string
	}{
		{"192.0.2.1:3260", []string{"192.0.2.1:3260"}, "192.0.2.1:3260,1"},
		{"192.0.2.1:3260", []string{"192.0.2.1:3260", "198.51.100.1:3260"}, "192.0.2.1:3260,1 198.51.100.1:3260,2"},
		{"192.0.2.1:3260", []string{"0.0.0.0:3260", "0.0.0.0:3261"}, "192.0.2.1:3260,1 192.0.2.1:3261,2"},
		// Another family, only if there is no alternative.
		{"192.0.2.1:3260", []string{"0.0.0.0:3260", "[::]:3261"}, "192.0.2.1:3260,1"},
		{"[2001:db8::1]:3260", []string{"[::]:3260", "192.0.2.1:3260", "0.0.0.0:3262"}, "[2001:db8::1]:3260,1"},
		{"192.0.2.1:3260", []string{"0.0.0.0:3260", "[2001:db8::1]:3260"}, "192.0.2.1:3260,1"},
		{"192.0.2.1:3260", []string{"-", "[2001:db8::1]:3260"}, "[2001:db8::1]:3260,2"},
		{"192.0.2.1:3260", []string{"-", "[::]:3260"}, ""},
		// A socket for both families.
		{"[::ffff:192.0.2.1]:3260", []string{"[::]:3260"}, "192.0.2.1:3260,1"},
		{"[fe80::1%1]:3260", []string{"[::]:3260"}, "[fe80::1]:3260,1"},
		// Addresses of host or link scope.
		{"192.0.2.1:3260", []string{"192.0.2.1:3260", "127.0.0.1:3260"}, "192.0.2.1:3260,1"},
		{"127.0.0.1:3260", []string{"127.0.0.1:3260", "192.0.2.1:3260"}, "127.0.0.1:3260,1 192.0.2.1:3260,2"},
		{"[2001:db8::1]:3260", []string{"[2001:db8::1]:3260", "[fe80::1%1]:3260", "[::1]:3260"}, "[2001:db8::1]:3260,1"},
		// NAT, port forwarding, or docker -p.
		{"172.17.0.2:3260", []string{"0.0.0.0:3260 203.0.113.5:13260"}, "203.0.113.5:13260,1"},
		{"172.17.0.2:3260", []string{"0.0.0.0:3260 san.example.com:3260", "172.17.0.2:3261"}, "san.example.com:3260,1 172.17.0.2:3261,2"},
		{"172.17.0.2:3260", []string{"0.0.0.0:3260 203.0.113.5:3260", "[::]:3260 [2001:db8::5]:3260"}, "203.0.113.5:3260,1"},
		{"[fd00::2]:3260", []string{"[::]:3260 [2001:db8::5]:3260", "0.0.0.0:3260 203.0.113.5:3260"}, "[2001:db8::5]:3260,1"},
		{"[fd00::2]:3260", []string{"-", "0.0.0.0:3260 203.0.113.5:3260"}, "203.0.113.5:3260,2"},
		{"172.17.0.2:3260", []string{"172.17.0.3:3260", "172.17.0.2:3261 203.0.113.5:3260"}, "172.17.0.2:3260,1 203.0.113.5:3260,2"},
	} {
		t.Run(c.local+" "+c.want, func(t *testing.T) {
			var portals []Portal
			var at Portal
			for n, p := range c.portals {
				if p == "-" { // in no portal group of the target
					at = Portal{Listener: fixedAddr{addr: addr(c.local)}, Group: 1}
					continue
				}
				address, advertise, _ := strings.Cut(p, " ")
				portals = append(portals, Portal{Listener: fixedAddr{addr: addr(address)}, Group: uint16(n + 1), Advertise: advertise})
				if n == 0 {
					at = portals[0]
				}
			}
			if got := strings.Join(portalAddresses(portals, at, addr(c.local)), " "); got != c.want {
				t.Errorf("%s with %v: %s, want %s", c.local, c.portals, got, c.want)
			}
		})
	}
}

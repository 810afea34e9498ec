package iscsi

import (
	"strings"
	"sync/atomic"
	"testing"

	"odx/chap"
	"odx/internal/kit/logs"
)

// Users of the tests: two that are bound to testInitiator, and two that may use any name.
const (
	boundUser, otherBoundUser = "bound", "other-bound"
	freeUser, otherFreeUser   = "free", "other-free"
)

// newUsers authenticates the four users. Once over is set, the user named gone may not
// use any name.
func newUsers(t *testing.T, gone string, over *atomic.Bool) *chap.Authenticator {
	t.Helper()
	var users []chap.User
	for _, name := range []string{boundUser, otherBoundUser, freeUser, otherFreeUser} {
		u := chap.User{Credential: chap.Credential{Name: name, Secret: []byte("the secret of " + name)}}
		mine := func(initiator string) bool { return !strings.HasSuffix(name, boundUser) || initiator == testInitiator }
		u.Allows = func(initiator string) bool { return mine(initiator) && !(name == gone && over.Load()) }
		if strings.HasSuffix(name, boundUser) {
			u.Binds = mine
		}
		users = append(users, u)
	}
	a, err := chap.New(chap.Config{Users: users})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// loginBy logs in as user, or with AuthMethod=None if user is empty.
func (i *initiator) loginBy(user string, cid uint16, keys ...string) (status uint16) {
	i.tb.Helper()
	request := func(flags byte, keys ...string) (*bhs, []byte) {
		h := i.loginRequest(0, 0)
		h[1] = flags
		h.put16(20, cid)
		i.send(h, nil, text(keys...))
		return i.expect(opLoginResponse)
	}
	if user == "" {
		request(csgSecurity|toOperational, name, wantTarget, "AuthMethod=None")
	} else {
		request(csgSecurity, name, wantTarget, offerCHAP)
		_, challenge := request(csgSecurity, "CHAP_A=7")
		request(csgSecurity|toOperational, answerChallenge(i.tb, chap.SHA256, challenge, user, "the secret of "+user)...)
	}
	r, data := request(csgOperational|toFullFeature, keys...)
	if status = r.field16(36); status == loginSuccess {
		i.loggedIn(r, data)
	}
	return status
}

// The initiator's name, ISID and TSIH do not suffice to end a session, or to replace or
// add a connection.
func TestSession_Replacement(t *testing.T) {
	const refused = loginAuthorizationFailed
	for what, c := range map[string]struct {
		first, second string // users
		gone          string // the user that may not use any name at the second login
		optional      bool
		want          uint16
	}{
		"the same user":                  {first: freeUser, second: freeUser},
		"the same bound user":            {first: boundUser, second: boundUser},
		"unbound after bound":            {first: boundUser, second: freeUser, want: refused},
		"unbound after another unbound":  {first: freeUser, second: otherFreeUser, want: refused},
		"bound after unbound":            {first: freeUser, second: boundUser},
		"bound after another bound":      {first: otherBoundUser, second: boundUser},
		"no user after unbound":          {first: freeUser, optional: true, want: refused},
		"no user after bound":            {first: boundUser, optional: true, want: refused},
		"unbound after no user":          {second: freeUser, optional: true},
		"no user after no user":          {optional: true},
		"unbound after one that is gone": {first: boundUser, gone: boundUser, second: freeUser},
		"unbound, another one is gone":   {first: boundUser, gone: otherBoundUser, second: freeUser, want: refused},
		"no user after one that is gone": {first: boundUser, gone: boundUser, optional: true},
	} {
		for _, way := range []string{"reinstatement", "new connection", "connection replacement"} {
			t.Run(what+"/"+way, func(t *testing.T) {
				t.Parallel()
				var log logs.Text
				b := newBench(t, func(o *Options) { o.Log = log.Entry() }, nil)
				var over atomic.Bool
				b.demand(Authentication{CHAP: newUsers(t, c.gone, &over), Optional: c.optional})
				first := b.dial()
				if status := first.loginBy(c.first, 0, "MaxConnections=4"); status != loginSuccess {
					t.Fatalf("first login: status %#x", status)
				}
				first.alive()
				over.Store(true)
				second := b.dial()
				cid := uint16(0)
				if way != "reinstatement" {
					second.tsih, second.cmdSN = first.tsih, first.cmdSN
				}
				if way == "new connection" {
					cid = 1
				}
				if status := second.loginBy(c.second, cid); status != c.want {
					t.Fatalf("status %#x, want %#x", status, c.want)
				}
				displaced := c.want == loginSuccess && way != "new connection"
				if displaced {
					first.expectClosed()
				} else {
					first.alive()
				}
				if c.want != loginSuccess {
					second.expectClosed()
				} else if way == "reinstatement" {
					second.alive()
				}
				said := log.String()
				old, now := first.nc.LocalAddr().String(), second.nc.LocalAddr().String()
				if (displaced || c.want != loginSuccess) && !hasLine(said, old, now) {
					t.Errorf("no line of the log has both addresses, %s and %s:\n%s", old, now, said)
				}
			})
		}
	}
}

// hasLine reports whether a line of text contains all words.
func hasLine(text string, words ...string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// TestServer_TSIH/random: TSIHs are not predictable from others.
func TestServer_TSIH(t *testing.T) {
	t.Run("random", func(t *testing.T) {
		b := newBench(t, nil, nil)
		const n = 12
		seen := map[uint16]bool{}
		steps := map[int]int{}
		last := 0
		for k := range n {
			i := b.dial()
			i.isid[5] = byte(k)
			i.login(name, wantTarget)
			if i.tsih == 0 || seen[i.tsih] {
				t.Fatalf("TSIH %d twice, or zero", i.tsih)
			}
			seen[i.tsih] = true
			steps[int(i.tsih)-last]++
			last = int(i.tsih)
		}
		for step, times := range steps {
			if times > n/2 {
				t.Errorf("%d times the next TSIH was the one before plus %d", times, step)
			}
		}
	})
}

package tokens_test

import (
	"errors"
	"testing"

	"odx/offload/offloadtest"
	"odx/tokens"
)

// The access of a token is set when it is made, and kept over restarts.
func TestAccess(t *testing.T) {
	groups := []tokens.Group{{Name: "backup", Initiators: []tokens.Pattern{"iqn.x:bk-*", "iqn.x:extra"}}, {Name: "empty"}}
	const any, own, backup, empty = tokens.AccessAnyone, tokens.AccessInitiator, tokens.Access("group:backup"), tokens.Access("group:empty")
	for _, tc := range []struct {
		name   string
		policy tokens.Policy
		asked  tokens.Access
		want   tokens.Access
	}{
		{"default", tokens.Policy{}, "", any},
		{"policy", tokens.Policy{Access: own}, "", own},
		{"rule of the creator", tokens.Policy{Access: own, Rules: []tokens.Rule{{Initiator: "iqn.x:other", Access: any}, {Initiator: "iqn.x:c*", Access: backup}}}, "", backup},
		{"rule of the use", tokens.Policy{Rules: []tokens.Rule{{Use: "api", Access: backup}, {Use: "scsi", Access: own}}}, "", own},
		{"rule without access", tokens.Policy{Access: own, Rules: []tokens.Rule{{Priority: 1}}}, "", own},
		{"narrowed by the creator", tokens.Policy{}, own, own},
		{"narrowed further", tokens.Policy{Access: backup}, own, own},
		{"not widened by the creator", tokens.Policy{Access: own}, any, own},
		{"not moved to another group", tokens.Policy{Access: empty}, backup, empty},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := offloadtest.NewStore([16]byte{1})
			v := s.NewVolume("v", volumeSize)
			tc.policy.Groups = groups
			o := tokens.Options{Store: s, Policy: tc.policy}
			m := openWith(t, o)
			tok := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{Creator: tokens.Creator{Initiator: "iqn.x:creator"}, Use: "scsi", Access: tc.asked})
			for range 2 {
				if i, err := m.Lookup(tok); err != nil || i.Access != tc.want {
					t.Errorf("access %q, %v; want %q", i.Access, err, tc.want)
				}
				for who, may := range map[string]bool{
					"":               true, // the administrator
					"iqn.x:creator":  tc.want == own || tc.want == any,
					"iqn.x:creator2": tc.want == any,
					"iqn.x:bk-1":     tc.want == backup || tc.want == any,
					"iqn.x:bk-":      tc.want == backup || tc.want == any,
					"iqn.x:extra":    tc.want == backup || tc.want == any,
					"iqn.x:extra2":   tc.want == any,
				} {
					_, err := m.OffloadWrite(ctx, tok, 0, destination(v), ranges(8192, 512), tokens.WriteOptions{Requester: tokens.Requester{Initiator: who}})
					if may != (err == nil) || err != nil && !errors.Is(err, tokens.ErrAccess) {
						t.Errorf("initiator %q: %v", who, err)
					}
				}
				m = openWith(t, o) // access is kept with the token
			}
		})
	}
}

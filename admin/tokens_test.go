package admin

import (
	"reflect"
	"testing"
	"time"

	"odx/conf"
	"odx/tokens"
)

// TestTokenOptions: what the configuration says of tokens reaches their manager.
func TestTokenOptions(t *testing.T) {
	got := tokenOptions(&conf.Tokens{
		Max: 1, MaxPerInitiator: 2, Held: 4, Size: 5,
		MinInactivity: 6 * time.Second, DefaultInactivity: 7 * time.Second, MaxInactivity: 8 * time.Second, UseRecords: 9,
		DigestSize: 10, HashLifetime: 11 * time.Hour,
		WhenFull: "refuse", UnderPressure: "keep", Deletion: "hint", RunningCopy: "abort", Unmapped: "lower", Access: "group:g",
		Groups: []conf.InitiatorGroup{{Name: "g", Initiators: []conf.NamePattern{"iqn.a", "iqn.b*"}}},
		Rules:  []conf.TokenRule{{Initiator: "iqn.c*", Use: "api", Priority: 10, Access: "initiator"}},
	}, &conf.Memory{Tokens: 3})
	want := tokens.Options{
		Limits: tokens.Limits{
			Tokens: 1, TokensPerInitiator: 2, MemoryBytes: 3, HeldBytes: 4, TokenBytes: 5,
			MinInactivity: 6 * time.Second, DefaultInactivity: 7 * time.Second, MaxInactivity: 8 * time.Second, UseRecordsPerSecond: 9, DigestBytes: 10, HashLifetime: 11 * time.Hour,
		},
		Policy: tokens.Policy{
			WhenFull: tokens.RefuseNew, Pressure: tokens.Keep, Deletion: tokens.DeletionHint, RunningCopy: tokens.AbortCopy,
			Unmapped: tokens.LowerUnmapped, Access: tokens.AccessGroup("g"),
			Groups: []tokens.Group{{Name: "g", Initiators: []tokens.Pattern{"iqn.a", "iqn.b*"}}},
			Rules:  []tokens.Rule{{Initiator: "iqn.c*", Use: "api", Priority: 10, Access: tokens.AccessInitiator}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := tokenOptions(&conf.Tokens{WhenFull: "evict", Unmapped: "refuse"}, &conf.Memory{}); got.Policy.WhenFull != tokens.EvictOthers || got.Policy.Unmapped != tokens.RefuseUnmapped {
		t.Errorf("%+v", got.Policy)
	}
}

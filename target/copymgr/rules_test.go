package copymgr

import (
	"testing"

	"odx/tokens"
)

func TestRules(t *testing.T) {
	rules := Rules{
		{Initiators: []string{"iqn.2026-11.example:back*"}},
		{From: []string{"secret-*"}, Deny: true},
		{Initiators: []string{"iqn.2026-11.example:guest"}, From: []string{"a", "b"}, To: []string{"a", "b"}},
		{Initiators: []string{"iqn.2026-11.example:guest"}, Deny: true},
	}
	for _, tc := range []struct {
		initiator, from, to string
		want, source        bool
	}{
		{"iqn.2026-11.example:backup", "secret-1", "a", true, true},
		{"iqn.2026-11.example:host", "secret-1", "a", false, false},
		{"iqn.2026-11.example:host", "a", "secret-1", true, true},
		{"iqn.2026-11.example:guest", "a", "b", true, true},
		{"iqn.2026-11.example:guest", "a", "c", false, true},
		{"iqn.2026-11.example:guest", "c", "a", false, false},
	} {
		if got := rules.allow(tc.initiator, tc.from, tc.to); got != tc.want {
			t.Errorf("%s from %s to %s: %v", tc.initiator, tc.from, tc.to, got)
		}
		if got := rules.allowSource(tc.initiator, tc.from); got != tc.source {
			t.Errorf("%s from %s: %v", tc.initiator, tc.from, got)
		}
	}
}

func TestRules_Tokens(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunA, rangeOf{0, 8})
	b.manager.Reconfigure(Rules{{From: []string{"volume0"}, To: []string{"volume1"}, Deny: true}, {From: []string{"volume2"}, Deny: true}})
	a := b.writeUsing(lunB, 1, writeParameters(token, 0, rangeOf{0, 1}))
	if a.code() != "5/20/02" {
		t.Errorf("forbidden destination: %s", a.code())
	}
	b.wantRefusalOnRecord(t, lunB, 1, 0x11, a)
	if a := b.writeUsing(lunA, 1, writeParameters(token, 0, rangeOf{64, 8})); a.code() != "GOOD" {
		t.Errorf("another destination: %s", a.code())
	}
	if a := b.populate(lunOutside, 1, populateParameters(rangeOf{0, 8})); a.code() != "5/20/02" {
		t.Errorf("forbidden source: %s", a.code())
	}
	if a := b.populate(lunA, 1, populateParameters(rangeOf{0, 8})); a.code() != "GOOD" {
		t.Errorf("source with a destination left: %s", a.code())
	}
}

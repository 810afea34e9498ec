package target

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"odx/blockdev"
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

// TestTokensGoWhenTheStoreGetsFull: the watch over space asks for what is over
// the soft threshold, and tokens that hold space end.
func TestTokensGoWhenTheStoreGetsFull(t *testing.T) {
	s := start(t, parse(t, t.TempDir(), fmt.Sprintf(disks, `"127.0.0.1:0"`)+"store: {capacity: 256MiB, soft_threshold: 10}\n"))
	v, err := s.Store().Volume("src")
	if err != nil {
		t.Fatal(err)
	}
	write := func(value byte) {
		p := make([]byte, 16<<20)
		for at := 0; at < len(p); at += blockdev.BlockLength {
			p[at], p[at+1], p[at+2] = byte(at>>12), byte(at>>20), value
		}
		if err := v.WriteAt(t.Context(), p, 0); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	res, err := s.tokens.OffloadRead(t.Context(), tokens.Source{Volume: v, LU: tokens.LU{BlockLength: 512}}, []blockdev.Range{{Length: 16 << 20}}, tokens.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.relieveStore(1 << 20)
	if _, err := s.tokens.Lookup(res.Token); err != nil {
		t.Fatalf("a token that holds nothing went: %v", err)
	}
	write(2)
	// The watch looks every second; a token that ends is refused before it is counted.
	for err == nil || s.tokens.Stats().Live > 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("the token stayed")
		case <-time.After(10 * time.Millisecond):
		}
		_, err = s.tokens.Lookup(res.Token)
	}
	if !errors.Is(err, tokens.ErrCancelled) || s.tokens.Stats().CancelledFor[tokens.OutOfSpace] != 1 {
		t.Errorf("%v; %+v", err, s.tokens.Stats())
	}
}

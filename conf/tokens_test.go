package conf

import (
	"reflect"
	"testing"
	"time"
)

func TestLoad_ExampleTokens(t *testing.T) {
	cfg, err := Load("examples/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := Tokens{
		Max: 100_000, MaxPerInitiator: 20_000, Memory: 256 << 20, Held: 50 << 30, Size: 1 << 40, DigestSize: 4 << 30, HashLifetime: 24 * time.Hour,
		MinInactivity: time.Second, DefaultInactivity: time.Minute, MaxInactivity: 10 * time.Minute, UseRecords: 100,
		WhenFull: "evict", UnderPressure: "give_up", Deletion: "mandatory", RunningCopy: "finish", Unmapped: "allow", Access: "anyone",
		Groups: []InitiatorGroup{{Name: "backup", Initiators: []NamePattern{"iqn.2026-11.com.example:backup-*"}}},
		Rules: []TokenRule{
			{Initiator: "iqn.2026-11.com.example:vmhost-*", Use: "scsi", Priority: 10},
			{Use: "api", Priority: 20, Access: "group:backup"},
		},
	}
	if !reflect.DeepEqual(cfg.Tokens, want) {
		t.Errorf("got  %+v\nwant %+v", cfg.Tokens, want)
	}
}

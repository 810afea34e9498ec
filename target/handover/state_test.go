package handover

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"odx/internal/kit/fields"
	"odx/internal/kit/must"
)

var update = flag.Bool("update", false, "write the golden file")

// full returns a state with a value other than zero in every field.
func full() *State {
	sense := func(forwarded *Forwarded) *Sense {
		information, specific := uint64(7), uint64(8)
		return &Sense{Key: 3, ASC: 0x1100, Information: &information, CommandSpecific: &specific,
			SenseKeySpecific: []byte{0x80, 1, 2}, Deferred: true, Cause: "cause", Forwarded: forwarded}
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return &State{Version: Version, Sessions: []Session{{
		Initiator: "iqn.2026-11.example:host", Alias: "host", ISID: []byte{0x80, 1, 2, 3, 4, 5}, TSIH: 9,
		Target: "iqn.2026-11.example.odx:disks", PortalGroup: 1, User: "user",
		ExpCmdSN: 0xFFFFFFF0, MaxCmdSN: 0x10, Aborted: []uint32{0xFFFFFFF8, 2},
		Keys: Keys{MaxConnections: 4, InitialR2T: true, ImmediateData: true, MaxBurstLength: 1 << 20, FirstBurstLength: 1 << 18, MaxOutstandingR2T: 1,
			DefaultTime2Wait: 2, DefaultTime2Retain: 20, ErrorRecoveryLevel: 1, ProtocolLevel: 1},
		Since: at,
		Connections: []Connection{{Socket: 1, CID: 2, StatSN: 3, ExpStatSN: 4, TransferTag: 5, HeaderDigest: true, DataDigest: true,
			InitiatorSegment: 65536, TargetSegment: 262144, Unread: []byte("unread")}},
		Nexus: Nexus{Doubted: true, Units: []Unit{{
			LUN: 6, ID: bytes.Repeat([]byte{7}, 16), Attentions: []uint16{0x2901, 0x2A09}, Deferred: sense(nil), Reserved: true,
			Copies: []Copy{{ListID: 1, ServiceAction: 0x10, Status: 4, Completion: 2, Sense: sense(&Forwarded{Destination: true, Status: 2, Sense: sense(nil)}),
				Units: 0xF1, TransferCount: 8, Steps: 9, Segments: 10, Ended: at, Held: []byte("held"), HeldDiscarded: true, DetailsReported: true,
				Token: bytes.Repeat([]byte{11}, 512)}},
			Running: []RunningCopy{{ListID: 12, CDB: bytes.Repeat([]byte{13}, 16), Parameters: []byte("parameters"), Began: at, TransferCount: 14, Steps: 15,
				Segment: 16, SegmentBytes: 13, Residual: []byte("residual"), ResidualSource: 3, Held: []byte("held"), HeldDiscarded: true}},
		}}},
	}}}
}

// TestState_Golden: what a program of this Version writes stays the same, and is read.
func TestState_Golden(t *testing.T) {
	got, err := full().Encode()
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	must.Succeed(t, json.Indent(&indented, got, "", "\t"))
	golden := filepath.Join("testdata", "state.json")
	if *update {
		must.Succeed(t, os.WriteFile(golden, indented.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(indented.Bytes(), want) {
		t.Errorf("encoded:\n%s\nwant %s; another format is another Version", indented.Bytes(), golden)
	}
	s, err := Decode(want)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, full()) {
		t.Errorf("decoded %+v", s)
	}
}

// TestState_Complete: the golden file has every field.
func TestState_Complete(t *testing.T) {
	// Sense and Forwarded contain each other, so only types without them are filled.
	for _, p := range []any{&Keys{}, &Connection{}, &RunningCopy{}} {
		fields.Fill(p)
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var names map[string]any
		must.Succeed(t, json.Unmarshal(data, &names))
		golden, err := os.ReadFile(filepath.Join("testdata", "state.json"))
		if err != nil {
			t.Fatal(err)
		}
		for name := range names {
			if !bytes.Contains(golden, []byte(`"`+name+`"`)) {
				t.Errorf("%T: the golden file has no %s", p, name)
			}
		}
	}
}

// TestDecode_Refused holds what Decode refuses, and why.
func TestDecode_Refused(t *testing.T) {
	if _, err := Decode([]byte(`{"version":1,"sessions":7}`)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("another version: %v", err)
	}
	for _, text := range []string{``, `[]`, `{"version":2,"sessions":7}`, `{"version":2}{`} {
		if s, err := Decode([]byte(text)); err == nil {
			t.Errorf("%q decoded as %+v", text, s)
		}
	}
	for want, change := range map[string]func(s *State){
		"name":           func(s *State) { s.Sessions[0].Initiator = "" },
		"too long":       func(s *State) { s.Sessions[0].Target = strings.Repeat("x", MaxName+1) },
		"ISID":           func(s *State) { s.Sessions[0].ISID = nil },
		"TSIH 0":         func(s *State) { s.Sessions[0].TSIH = 0 },
		"TSIH 9":         func(s *State) { s.Sessions = append(s.Sessions, s.Sessions[0]) },
		"MaxCmdSN":       func(s *State) { s.Sessions[0].MaxCmdSN += MaxWindow },
		"outside":        func(s *State) { s.Sessions[0].Aborted[0] = 0x11 },
		"0 connections":  func(s *State) { s.Sessions[0].Connections = nil },
		"burst":          func(s *State) { s.Sessions[0].Keys.FirstBurstLength = 0 },
		"MaxOutstanding": func(s *State) { s.Sessions[0].Keys.MaxOutstandingR2T = 0 },
		"segments":       func(s *State) { s.Sessions[0].Connections[0].InitiatorSegment = 1 << 24 },
		"socket":         func(s *State) { s.Sessions[0].Connections[0].Socket = -1 },
		"unread":         func(s *State) { s.Sessions[0].Connections[0].Unread = make([]byte, MaxUnread+1) },
		"identity":       func(s *State) { s.Sessions[0].Nexus.Units[0].ID = nil },
		"LUN":            func(s *State) { s.Sessions[0].Nexus.Units[0].LUN = MaxUnits },
		"attentions":     func(s *State) { s.Sessions[0].Nexus.Units[0].Attentions = make([]uint16, MaxAttentions+1) },
		"token":          func(s *State) { s.Sessions[0].Nexus.Units[0].Copies[0].Token = []byte{1} },
		"CDB of":         func(s *State) { s.Sessions[0].Nexus.Units[0].Running[0].CDB = nil },
		"parameter list": func(s *State) {
			s.Sessions[0].Nexus.Units[0].Running[0].Parameters = make([]byte, MaxParameters+1)
		},
		"14 of all":     func(s *State) { s.Sessions[0].Nexus.Units[0].Running[0].SegmentBytes = 15 },
		"residual data": func(s *State) { s.Sessions[0].Nexus.Units[0].Running[0].ResidualSource = 9 },
		"held data":     func(s *State) { s.Sessions[0].Nexus.Units[0].Running[0].Held = make([]byte, MaxHeld+1) },
		"list identifier": func(s *State) {
			u := &s.Sessions[0].Nexus.Units[0]
			u.Running = append(u.Running, u.Running[0])
		},
		"256 running": func(s *State) {
			u := &s.Sessions[0].Nexus.Units[0]
			for id := range uint32(MaxRunning) {
				c := u.Running[0]
				c.ListID = 100 + id
				u.Running = append(u.Running, c)
			}
		},
		"sense key": func(s *State) { s.Sessions[0].Nexus.Units[0].Deferred.Key = 0x10 },
		"forwarded": func(s *State) {
			f := &Forwarded{Sense: &Sense{}}
			f.Sense.Forwarded = &Forwarded{Sense: &Sense{Forwarded: &Forwarded{Sense: &Sense{Forwarded: &Forwarded{Sense: &Sense{}}}}}}
			s.Sessions[0].Nexus.Units[0].Deferred.Forwarded = f
		},
	} {
		s := full()
		change(s)
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("decode: %v, want %s", err, want)
		}
		if _, err := s.Encode(); err == nil {
			t.Errorf("%s: encoded", want)
		}
	}
}

// FuzzDecode: what is decoded can be encoded, to the same.
func FuzzDecode(f *testing.F) {
	seed, err := full().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"version":2,"sessions":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Decode(data)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatalf("decoded, and not encoded: %v", err)
		}
		other, err := Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if third, err := other.Encode(); err != nil || !bytes.Equal(third, again) {
			t.Fatalf("%v: %s is not %s", err, third, again)
		}
	})
}

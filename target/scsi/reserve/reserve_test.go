package reserve

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"odx/target/scsi/nexus"
	"odx/target/scsi/record"
	"odx/target/scsi/sense"
)

// records is a record.Store in memory.
type records map[string][]byte

func (r records) Load(key string) ([]byte, error) { return r[key], nil }

func (r records) Save(_ context.Context, key string, value []byte) error {
	r[key] = value
	return nil
}

// unit is a logical unit with one port, which remembers unit attentions.
type unit struct {
	attached   []nexus.ID
	attentions map[nexus.ID][]sense.ASC
}

func (u *unit) Ports() ([]Port, []nexus.ID) {
	return []Port{{Target: "iqn.t", Tag: 1, ID: 1}}, u.attached
}
func (u *unit) RelativePort(nexus.ID) uint16 { return 1 }
func (u *unit) Attend(attentions map[nexus.ID][]sense.ASC) {
	u.attentions = attentions
}

// nexusOf returns a nexus of the initiator of that name.
func nexusOf(name string) *nexus.ID {
	return &nexus.ID{InitiatorName: "iqn." + name, TargetName: "iqn.t", TargetPortalGroupTag: 1}
}

// bed is the reservations of a unit, and two nexuses.
type bed struct {
	*testing.T
	unit *unit
	*Reservations
	a, b *nexus.ID
}

func newBed(t *testing.T, r records) *bed {
	t.Helper()
	b := &bed{T: t, unit: &unit{}, a: nexusOf("a"), b: nexusOf("b")}
	var err error
	if r == nil {
		b.Reservations, err = Open(b.unit, nil, record.None{})
	} else {
		b.Reservations, err = Open(b.unit, r, record.None{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const aptpl = 0x01

// out carries out a PERSISTENT RESERVE OUT with a basic parameter list.
func (b *bed) out(n *nexus.ID, action byte, kind Type, key, actionKey uint64, flags byte) ([]nexus.ID, error) {
	list := make([]byte, MinList)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], actionKey)
	list[20] = flags
	done, err := b.Change(b.Context(), n, []byte{0x5F, action, byte(kind), 0, 0, 0, 0, 0, MinList, 0}, list)
	return done.Preempted, err
}

// must is out of a command that succeeds.
func (b *bed) must(n *nexus.ID, action byte, kind Type, key, actionKey uint64, flags byte) []nexus.ID {
	b.Helper()
	preempted, err := b.out(n, action, kind, key, actionKey, flags)
	if err != nil {
		b.Fatalf("action %d of %s: %v", action, n.InitiatorName, err)
	}
	return preempted
}

// allowed says which accesses a nexus has: read, write, and PERSISTENT RESERVE.
func (b *bed) allowed(n *nexus.ID) string {
	s := ""
	for _, a := range []Access{AccessAlways, AccessState, AccessRead, AccessWrite, AccessPersistentReserve} {
		if b.Check(n, a) == nil {
			s += string("asrwp"[a])
		}
	}
	return s
}

// Who has which access, by type of the reservation: its holder, a nexus that is
// registered, and one that is not (SPC-4 r37 5.12.1, SBC-3 4.17).
func TestReservations_Check(t *testing.T) {
	const all = "asrwp"
	for kind, want := range map[Type][3]string{
		0:                              {all, all, all},
		WriteExclusive:                 {all, "asrp", "asrp"},
		ExclusiveAccess:                {all, "asp", "asp"},
		WriteExclusiveRegistrantsOnly:  {all, all, "asrp"},
		ExclusiveAccessRegistrantsOnly: {all, all, "asp"},
		WriteExclusiveAllRegistrants:   {all, all, "asrp"},
		ExclusiveAccessAllRegistrants:  {all, all, "asp"},
	} {
		t.Run(fmt.Sprint("type ", kind), func(t *testing.T) {
			b := newBed(t, nil)
			b.must(b.a, Register, 0, 0, 0x0A, 0)
			b.must(b.b, Register, 0, 0, 0x0B, 0)
			if kind != 0 {
				b.must(b.a, Reserve, kind, 0x0A, 0, 0)
			}
			if got := [3]string{b.allowed(b.a), b.allowed(b.b), b.allowed(nexusOf("c"))}; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// RESERVE is the session's, and ends with it or a reset.
func TestReservations_Reserve(t *testing.T) {
	for name, end := range map[string]func(b *bed){
		"released": func(b *bed) {
			if err := errors.Join(b.Release(b.b), b.Release(b.a)); err != nil {
				b.Error(err)
			}
		},
		"session ended": func(b *bed) { b.Detach(b.b); b.Detach(b.a) },
		"reset":         func(b *bed) { b.Reset() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, nil)
			if err := b.Reserve(t.Context(), b.a); err != nil {
				t.Fatal(err)
			}
			again := *b.a // the same ports, another session
			if got := b.allowed(b.a) + " " + b.allowed(b.b) + " " + b.allowed(&again); got != "asrw a a" {
				t.Errorf("allowed: %s", got)
			}
			if err := b.Reserve(t.Context(), b.b); !errors.Is(err, ErrConflict) {
				t.Errorf("reserved twice: %v", err)
			}
			if _, err := b.out(b.a, Register, 0, 0, 0x0A, 0); !errors.Is(err, ErrConflict) {
				t.Errorf("registered while reserved: %v", err)
			}
			end(b)
			if got := b.allowed(b.b); got != "asrwp" {
				t.Errorf("allowed at the end: %s", got)
			}
		})
	}
}

// What others lose is reported to them, and only PREEMPT AND ABORT names the nexuses
// whose tasks end.
func TestReservations_Change(t *testing.T) {
	for _, action := range []byte{Preempt, PreemptAndAbort} {
		b := newBed(t, nil)
		b.must(b.a, Register, 0, 0, 0x0A, 0)
		b.must(b.b, Register, 0, 0, 0x0B, 0)
		b.must(b.b, Reserve, ExclusiveAccess, 0x0B, 0, 0)
		preempted := b.must(b.a, action, WriteExclusive, 0x0A, 0x0B, 0)
		if want := action == PreemptAndAbort; slices.Contains(preempted, *b.b) != want || len(preempted) > 1 {
			t.Errorf("action %d: preempted %v", action, preempted)
		}
		if want := map[nexus.ID][]sense.ASC{*b.b: {sense.ASCRegistrationsPreempted}}; !maps.EqualFunc(b.unit.attentions, want, slices.Equal) {
			t.Errorf("action %d: unit attentions %v", action, b.unit.attentions)
		}
		if got := b.allowed(b.b); got != "asrp" {
			t.Errorf("action %d: the preempted nexus may %s", action, got)
		}
	}
}

// The record is that of version 1, and what a restart finds.
func TestReservations_Records(t *testing.T) {
	kept := records{}
	b := newBed(t, kept)
	b.must(b.a, Register, 0, 0, 0x0A, aptpl)
	b.must(b.a, Reserve, ExclusiveAccess, 0x0A, 0, 0)
	want := `{"version":1,"type":3,"holder":{"initiator":"iqn.a","isid":[0,0,0,0,0,0],"target":"iqn.t","portal_group_tag":1},` +
		`"registrations":[{"key":10,"nexus":{"initiator":"iqn.a","isid":[0,0,0,0,0,0],"target":"iqn.t","portal_group_tag":1}}]}`
	if got := string(kept[recordKey]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	again := newBed(t, kept)
	for _, action := range []byte{ReadReservation, ReadFullStatus} {
		if got, want := again.Report(action)[4:], b.Report(action)[4:]; !bytes.Equal(got, want) {
			t.Errorf("report %d after a restart % x, want % x", action, got, want)
		}
	}
	if _, err := newBed(t, nil).out(b.a, Register, 0, 0, 0x0A, aptpl); err == nil {
		t.Error("APTPL accepted without records")
	}
}

// A process that takes over has every registration and PRGENERATION, whatever APTPL says;
// a loss of power leaves those with APTPL. A command whose current state alone was stored
// when its process ended is carried through.
func TestReservations_Era(t *testing.T) {
	durable, era := records{}, records{}
	reopen := func(r, era record.Store) *bed {
		t.Helper()
		b := &bed{T: t, unit: &unit{}, a: nexusOf("a"), b: nexusOf("b")}
		var err error
		if b.Reservations, err = Open(b.unit, r, era); err != nil {
			t.Fatal(err)
		}
		return b
	}
	keys := func(b *bed) string { return fmt.Sprintf("%x", b.Report(ReadKeys)) }
	b := reopen(durable, era)
	b.must(b.a, Register, 0, 0, 0xA, 0)
	b.must(b.b, Register, 0, 0, 0xB, 0)
	b.must(b.a, Reserve, ExclusiveAccess, 0xA, 0, 0)
	after := reopen(durable, era)
	if got, want := keys(after), keys(b); got != want {
		t.Errorf("READ KEYS %s, want %s", got, want)
	}
	if after.allowed(after.b) != "asp" || after.allowed(after.a) != "asrwp" {
		t.Errorf("the holder has %s, the other one %s", after.allowed(after.a), after.allowed(after.b))
	}
	if lost := reopen(durable, records{}); keys(lost) != "0000000000000000" || lost.allowed(lost.b) != "asrwp" {
		t.Errorf("after a loss of power: %s", keys(lost))
	}

	before := maps.Clone(durable)
	after.must(after.a, RegisterAndIgnore, 0, 0, 0xC, aptpl)
	if maps.EqualFunc(durable, before, bytes.Equal) {
		t.Fatal("nothing is durable")
	}
	want := durable[recordKey]
	reopen(before, era)
	if !bytes.Equal(before[recordKey], want) {
		t.Errorf("durable %s, want %s", before[recordKey], want)
	}

	failing := reopen(failingRecords{}, era)
	current := maps.Clone(era)
	if _, err := failing.out(failing.a, RegisterAndIgnore, 0, 0, 0xD, aptpl); err == nil || !maps.EqualFunc(era, current, bytes.Equal) {
		t.Errorf("a command that cannot be stored: %v, %s", err, era[recordKey])
	}
}

// failingRecords are records that are lost when the second value is saved.
type failingRecords struct{ records }

func (failingRecords) Save(_ context.Context, _ string, value []byte) error {
	if bytes.Contains(value, []byte(`"key":13`)) {
		return errors.New("disk on fire")
	}
	return nil
}

// What cannot be right is refused.
func TestOpen_Record(t *testing.T) {
	const nexus = `{"initiator":"iqn.a","isid":[0,0,0,0,0,1],"target":"iqn.t","portal_group_tag":1}`
	reg := func(key string) string { return `{"key":` + key + `,"nexus":` + nexus + `}` }
	for name, text := range map[string]string{
		"no JSON":                    `reserved!`,
		"another version":            `{"version":2,"registrations":[` + reg("1") + `]}`,
		"no registration":            `{"version":1,"registrations":[]}`,
		"key 0":                      `{"version":1,"registrations":[` + reg("0") + `]}`,
		"registered twice":           `{"version":1,"registrations":[` + reg("1") + `,` + reg("2") + `]}`,
		"no such type":               `{"version":1,"type":2,"holder":` + nexus + `,"registrations":[` + reg("1") + `]}`,
		"no holder":                  `{"version":1,"type":1,"registrations":[` + reg("1") + `]}`,
		"a holder of nothing":        `{"version":1,"holder":` + nexus + `,"registrations":[` + reg("1") + `]}`,
		"a holder among all":         `{"version":1,"type":8,"holder":` + nexus + `,"registrations":[` + reg("1") + `]}`,
		"a holder not registered":    `{"version":1,"type":1,"holder":{"initiator":"b"},"registrations":[` + reg("1") + `]}`,
		"a key of more than 64 bits": `{"version":1,"registrations":[` + reg("18446744073709551616") + `]}`,
	} {
		r := records{recordKey: []byte(text)}
		if _, err := Open(&unit{}, r, record.None{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	ok := `{"version":1,"type":1,"holder":` + nexus + `,"registrations":[` + reg("18446744073709551615") + `]}`
	r := records{recordKey: []byte(ok)}
	if _, err := Open(&unit{}, r, record.None{}); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

// Whatever the store returns is a state that can be written again, or an error.
func FuzzReservationsRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"registrations":[{"key":1,"nexus":{"initiator":"iqn.a","isid":[0,0,0,0,0,1],"target":"iqn.t","portal_group_tag":1}}]}`))
	f.Add([]byte(`{"version":1,"type":5,"holder":{"initiator":"iqn.a"},"registrations":[{"key":1,"nexus":{"initiator":"iqn.a"}}]}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decode(data)
		if err != nil {
			return
		}
		first, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(first)
		if err != nil {
			t.Fatal(err)
		}
		if second, _ := again.encode(); !bytes.Equal(first, second) {
			t.Fatalf("%s became %s", first, second)
		}
	})
}

// A record of the current state is one that can be written again, or an error.
func FuzzCurrentRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"generation":7,"state":{"version":1,"registrations":[{"key":1,"nexus":{"initiator":"iqn.a","isid":[0,0,0,0,0,1],"target":"iqn.t","portal_group_tag":1}}]}}`))
	f.Add([]byte(`{"version":1,"generation":1,"state":{"version":1,"registrations":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeCurrent(data)
		if err != nil {
			return
		}
		first, err := s.encodeCurrent()
		if err != nil || first == nil {
			return
		}
		again, err := decodeCurrent(first)
		if err != nil {
			t.Fatal(err)
		}
		if second, _ := again.encodeCurrent(); !bytes.Equal(first, second) {
			t.Fatalf("%s became %s", first, second)
		}
	})
}

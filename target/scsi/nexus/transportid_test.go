package nexus

import (
	"encoding/hex"
	"strings"
	"testing"
)

// nameOnly is a TransportID that is an iSCSI name.
func nameOnly(name string) []byte {
	length := max((len(name)+4)/4*4, minTransportIDLength)
	d := append([]byte{transportIDName | ProtocolISCSI, 0, byte(length >> 8), byte(length)}, name...)
	return append(d, make([]byte, length-len(name))...)
}

// wantHex compares bytes with hexadecimal digits; blanks do not count.
func wantHex(t *testing.T, got []byte, want string) {
	t.Helper()
	if w := strings.Join(strings.Fields(want), ""); hex.EncodeToString(got) != w {
		t.Errorf("got  %x\nwant %s", got, w)
	}
}

func TestTransportID_Append(t *testing.T) {
	id := ID{InitiatorName: "iqn.2026-11.example.initiator:b", ISID: [6]byte{0x80, 0x12, 0x34, 0xAB, 0xCD, 0xEF}}
	wantHex(t, AppendTransportID(nil, id), `
		45 00 0034
		69716e2e 32303236 2d31312e 6578616d 706c652e 696e6974 6961746f 723a62
		2c692c3078 383031323334616263646566 00000000`)
	wantHex(t, AppendTransportID(nil, ID{InitiatorName: "a"}), "45 00 0014  612c692c 30783030 30303030 30303030 30300000")
}

func TestTransportID_Parse(t *testing.T) {
	isid := [6]byte{0x80, 0, 0, 0, 0, 0xAB}
	port := AppendTransportID(nil, ID{InitiatorName: "iqn.a", ISID: isid})
	got, rest, ok := parseTransportID(append(port[:len(port):len(port)], 1, 2))
	if !ok || got.Name != "iqn.a" || got.ISID == nil || *got.ISID != isid || len(rest) != 2 {
		t.Errorf("a port: %+v, %d bytes left, %t", got, len(rest), ok)
	}
	if got, _, ok = parseTransportID(nameOnly("IQN.A")); !ok || got.Name != "iqn.a" || got.ISID != nil {
		t.Errorf("a name: %+v, %t", got, ok)
	}
	longest := strings.Repeat("n", maxISCSINameLength)
	if _, _, ok := parseTransportID(nameOnly(longest)); !ok {
		t.Error("the longest name was refused")
	}
	edit := func(at int, b byte) []byte {
		p := append([]byte(nil), port...)
		p[at] = b
		return p
	}
	for name, p := range map[string][]byte{
		"nothing":               {},
		"half a header":         port[:3],
		"cut":                   port[:len(port)-1],
		"SAS":                   edit(0, 0x46),
		"reserved format":       edit(0, 0x85),
		"length of no multiple": edit(3, port[3]+1),
		"short":                 {0x05, 0, 0, 4, 'i', 'q', 'n', 0},
		"not terminated":        edit(len(port)-1, 'x'),
		"name too long":         nameOnly(longest + "n"),
		"no name":               nameOnly(""),
		"port without ISID":     append([]byte{0x45}, nameOnly("iqn.a")[1:]...),
		"ISID of five bytes":    append([]byte{0x45}, nameOnly("iqn.a,i,0x8000000000")[1:]...),
		"ISID that is no hex":   append([]byte{0x45}, nameOnly("iqn.a,i,0x80000000000g")[1:]...),
	} {
		if got, _, ok := parseTransportID(p); ok {
			t.Errorf("%s: taken for %+v", name, got)
		}
	}
}

func FuzzTransportID(f *testing.F) {
	f.Add(nameOnly("iqn.a"))
	f.Add(AppendTransportID(nil, ID{InitiatorName: "iqn.a"}))
	f.Add(append(nameOnly("iqn.a"), AppendTransportID(nil, ID{InitiatorName: "iqn.b", ISID: [6]byte{1, 2}})...))
	f.Fuzz(func(t *testing.T, p []byte) {
		list, ok := ParseTransportIDs(p)
		if !ok {
			return
		}
		for _, id := range list {
			if id.ISID == nil {
				continue
			}
			back, rest, ok := parseTransportID(AppendTransportID(nil, ID{InitiatorName: id.Name, ISID: *id.ISID}))
			if !ok || back.Name != id.Name || *back.ISID != *id.ISID || len(rest) != 0 {
				t.Fatalf("%+v came back as %+v (%t)", id, back, ok)
			}
		}
	})
}

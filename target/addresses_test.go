package target

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"odx/backstore/meta"
	"odx/conf"
	"odx/internal/kit/must"
	"odx/pool/address"
	"odx/target/iscsi"
)

// The record has the connections to the addresses of the owner, and no others.
func TestOwnerAddresses_Connections(t *testing.T) {
	o := ownerAddresses{list: []conf.OwnerAddress{
		{Prefix: netip.MustParsePrefix("192.0.2.10/24"), Interface: "eth0"}, {Prefix: netip.MustParsePrefix("2001:db8::10/64"), Interface: "eth0"},
	}}
	connection := func(local, remote string) iscsi.ConnectionInfo {
		return iscsi.ConnectionInfo{Local: local, Remote: remote}
	}
	got := o.connections([]iscsi.SessionInfo{
		{Connections: []iscsi.ConnectionInfo{connection("192.0.2.10:3260", "192.0.2.99:5000"), connection("192.0.2.11:3260", "192.0.2.99:5001")}},
		{Connections: []iscsi.ConnectionInfo{connection("[2001:db8::10]:3260", "[2001:db8::99]:5000"), connection("192.0.2.10:3260", "192.0.2.98:5000")}},
	})
	want := []address.Connection{
		{Local: netip.MustParseAddrPort("192.0.2.10:3260"), Remote: netip.MustParseAddrPort("192.0.2.98:5000")},
		{Local: netip.MustParseAddrPort("192.0.2.10:3260"), Remote: netip.MustParseAddrPort("192.0.2.99:5000")},
		{Local: netip.MustParseAddrPort("[2001:db8::10]:3260"), Remote: netip.MustParseAddrPort("[2001:db8::99]:5000")},
	}
	if !slices.Equal(got, want) {
		t.Errorf("connections %v, want %v", got, want)
	}
}

// The record of as many connections as there may be fits into a row.
func TestConnectionsRecord(t *testing.T) {
	r := connectionsRecord{Version: connectionsVersion}
	for i := range maxConnections {
		r.Connections = append(r.Connections, connectionRecord{
			netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:65535"), netip.MustParseAddrPort(fmt.Sprintf("[2001:db8:1111:2222:3333:4444:5555:7777]:%d", 60000+i)),
		})
	}
	text, err := json.Marshal(r)
	must.Succeed(t, err)
	if len(text) > meta.MaxValue {
		t.Errorf("%d bytes are more than the %d of a row", len(text), meta.MaxValue)
	}
	list, err := parseConnections(text)
	if err != nil || len(list) != maxConnections || list[7] != address.Connection(r.Connections[7]) {
		t.Errorf("%d connections, %v", len(list), err)
	}
	r.Connections = append(r.Connections, r.Connections[0])
	text, err = json.Marshal(r)
	must.Succeed(t, err)
	for _, text := range []string{string(text), `{"version":2}`, `{"version":1,"connections":[{"local":"","remote":"192.0.2.1:1"}]}`, `{"version":1,"connections":[{"local":"192.0.2.1:70000"}]}`, "no JSON"} {
		if list, err := parseConnections([]byte(text)); err == nil {
			t.Errorf("%.60s: %v", text, list)
		}
	}
}

func FuzzConnectionsRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"connections":[{"local":"192.0.2.10:3260","remote":"[2001:db8::1%eth0]:1"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseConnections(text)
		if err != nil && list != nil || len(list) > maxConnections {
			t.Errorf("%d connections, %v", len(list), err)
		}
		for _, c := range list {
			if !c.Local.IsValid() || !c.Remote.IsValid() || strings.Contains(c.Local.String(), "invalid") {
				t.Errorf("connection %v", c)
			}
		}
	})
}

// Package standby passes the listening sockets of a server to the processes that wait to
// take its place. A standby holds them and does not accept, so that a connection that comes
// while no process serves waits in the kernel, and is not refused. Sockets go over a Unix
// socket in the directory of the store, one in each packet.
package standby

import (
	"encoding/json"
	"errors"
	"fmt"
)

// socketName is the name of the socket in the directory of a store.
const socketName = "standby.sock"

// version is that of the packets.
const version = 1

// packet describes the listening socket that comes with it (SCM_RIGHTS, unix(7)), or one that
// the server has closed. Its fields are part of the protocol between versions of odx.
type packet struct {
	Version int    `json:"version"`
	Network string `json:"network"`
	// Address is what the server was told to listen on, as its configuration has it.
	Address string `json:"address"`
	// Withdrawn: no socket comes with the packet, and the one of this address that the
	// standby holds is to be closed.
	Withdrawn bool `json:"withdrawn,omitempty"`
}

// parsePacket reads a packet.
func parsePacket(data []byte) (*packet, error) {
	var p packet
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("packet of a server: %w", err)
	}
	if p.Version != version {
		return nil, fmt.Errorf("the server has version %d of the protocol of standbys, not %d", p.Version, version)
	}
	if p.Network == "" || p.Address == "" {
		return nil, errors.New("packet of a server without an address")
	}
	return &p, nil
}

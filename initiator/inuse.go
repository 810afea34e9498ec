package initiator

import (
	"context"
	"encoding/binary"
	"fmt"
)

// Service actions of PERSISTENT RESERVE IN (SPC-4 r37 6.15).
const (
	prinReadKeys        = 0x00
	prinReadReservation = 0x01
)

// Reservations is what a logical unit says of persistent reservations.
type Reservations struct {
	// Registered counts the initiator ports that are registered.
	Registered int
	// Held: there is a reservation.
	Held bool
}

// Reservations asks for persistent reservations. A logical unit that has none of the commands
// has no reservation.
func (d *Disk) Reservations(ctx context.Context) (r Reservations, err error) {
	keys, err := d.reserveIn(ctx, prinReadKeys)
	if err != nil {
		return r, err
	}
	held, err := d.reserveIn(ctx, prinReadReservation)
	const keyLength = 8
	return Reservations{Registered: keys / keyLength, Held: held > 0}, err
}

// reserveIn returns the ADDITIONAL LENGTH of the answer to a service action.
func (d *Disk) reserveIn(ctx context.Context, action byte) (int, error) {
	p := make([]byte, 64)
	c := Command{CDB: []byte{0x5e, action, 0, 0, 0, 0, 0, 0, byte(len(p)), 0}, In: p}
	err := d.do(ctx, &c)
	switch {
	case refusal(err) != nil:
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("PERSISTENT RESERVE IN: %w", err)
	case c.Received < 8:
		return 0, fmt.Errorf("PERSISTENT RESERVE IN: %d bytes", c.Received)
	}
	return int(min(binary.BigEndian.Uint32(p[4:]), 1<<20)), nil
}

// Unmaps reports whether Zero needs no zeros to be sent.
func (d *Disk) Unmaps() bool { return d.writeSame.limit.Load() > 0 }

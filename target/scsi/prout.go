package scsi

import (
	"context"
	"encoding/binary"
	"slices"
)

// Service actions of PERSISTENT RESERVE OUT (SPC-4 r37 6.16.2). REPLACE LOST
// RESERVATION is not among them (RLR_C=0): none is ever reported as lost.
const (
	prOutRegister          = 0x00
	prOutReserve           = 0x01
	prOutRelease           = 0x02
	prOutClear             = 0x03
	prOutPreempt           = 0x04
	prOutPreemptAndAbort   = 0x05
	prOutRegisterAndIgnore = 0x06
	prOutRegisterAndMove   = 0x07
)

const (
	prOutListLength = 24 // of the basic parameter list
	// maxPROutList bounds a parameter list with TransportIDs, in bytes.
	maxPROutList = 64 << 10
	// maxRegistrations bounds the registered I_T nexuses of a logical unit. With
	// the longest names they fit into one record of a store.
	maxRegistrations = 512
)

// prOut is a PERSISTENT RESERVE OUT: its CDB and parameter list.
type prOut struct {
	action     byte
	scope      byte
	kind       reservationType
	key        uint64 // RESERVATION KEY
	actionKey  uint64 // SERVICE ACTION RESERVATION KEY
	specIPT    bool
	allTGPT    bool
	aptpl      bool
	unreg      bool
	targetPort uint16 // RELATIVE TARGET PORT IDENTIFIER of REGISTER AND MOVE
	// transportIDs are those of SPEC_I_PT, or the one of REGISTER AND MOVE.
	transportIDs []transportID
}

// preparePersistentReserveOut checks the CDB of PERSISTENT RESERVE OUT.
func preparePersistentReserveOut(t *Task) error {
	n := binary.BigEndian.Uint32(t.CDB()[5:])
	if n < prOutListLength || n > maxPROutList {
		return NewSense(KeyIllegalRequest, ASCParameterListLengthError)
	}
	t.Wanted = n
	return nil
}

// parsePROut reads a command. list is as long as the CDB says, and not shorter
// than the basic parameter list.
func parsePROut(cdb, list []byte) (*prOut, error) {
	r := &prOut{
		action:    cdb[1] & 0x1F,
		scope:     cdb[2] >> 4,
		kind:      reservationType(cdb[2] & 0x0F),
		key:       binary.BigEndian.Uint64(list),
		actionKey: binary.BigEndian.Uint64(list[8:]),
	}
	if r.action == prOutRegisterAndMove {
		return r, r.parseMove(list)
	}
	r.specIPT, r.allTGPT, r.aptpl = list[20]&0x08 != 0, list[20]&0x04 != 0, list[20]&0x01 != 0
	switch {
	case !r.specIPT && len(list) != prOutListLength:
		return nil, NewSense(KeyIllegalRequest, ASCParameterListLengthError)
	case !r.specIPT:
		return r, nil
	case r.action != prOutRegister:
		return nil, InvalidFieldInParameterList(20, 3)
	}
	return r, r.parseInitiatorPorts(list)
}

// parseInitiatorPorts reads what SPEC_I_PT says is there.
func (r *prOut) parseInitiatorPorts(list []byte) (err error) {
	r.transportIDs, err = listTransportIDs(list, 24, 28)
	return err
}

// parseMove reads the parameter list of REGISTER AND MOVE (SPC-4 r37 6.16.4).
func (r *prOut) parseMove(list []byte) (err error) {
	r.unreg, r.aptpl = list[17]&0x02 != 0, list[17]&0x01 != 0
	r.targetPort = binary.BigEndian.Uint16(list[18:])
	if r.transportIDs, err = listTransportIDs(list, 20, 24); err != nil {
		return err
	}
	if len(r.transportIDs) != 1 || r.transportIDs[0].isid == nil {
		return InvalidFieldInParameterList(24, WholeField)
	}
	return nil
}

// listTransportIDs reads the TransportIDs that begin at byte start of list; the
// field at byte length has how many bytes they take.
func listTransportIDs(list []byte, length, start int) ([]transportID, error) {
	if len(list) < start || uint64(len(list)-start) != uint64(binary.BigEndian.Uint32(list[length:])) {
		return nil, NewSense(KeyIllegalRequest, ASCParameterListLengthError)
	}
	ids, ok := parseTransportIDs(list[start:])
	if !ok {
		return nil, InvalidFieldInParameterList(start, WholeField)
	}
	return ids, nil
}

// executePersistentReserveOut is PERSISTENT RESERVE OUT (SPC-4 r37 6.16).
func executePersistentReserveOut(ctx context.Context, t *Task) error {
	r, err := parsePROut(t.CDB(), t.DataOut()[:t.Wanted])
	if err != nil {
		return err
	}
	lu := t.LU
	preempted, err := lu.changeReservations(ctx, t.Nexus, r)
	if err != nil || r.action != prOutPreemptAndAbort {
		return err
	}
	for _, n := range lu.nexusesOf(preempted) {
		n.AbortTasks(lu, t)
	}
	lu.mu.Lock()
	callbacks := lu.onPreemptAndAbort
	lu.mu.Unlock()
	for _, fn := range callbacks {
		fn(preempted)
	}
	return nil
}

// changeReservations carries r out for n: it works on a copy of the state, keeps
// that if it has to outlast a loss of power, and only then lets others see it.
func (lu *LogicalUnit) changeReservations(ctx context.Context, n *Nexus, r *prOut) (preempted []NexusID, err error) {
	if err := lu.changing.lock(ctx); err != nil {
		return nil, err
	}
	defer lu.changing.unlock()
	if err := lu.Reserved(n, AccessPersistentReserve); err != nil {
		return nil, err
	}
	old := lu.persistent.Load()
	c := old.change(n.ID)
	if err := c.apply(r, lu.portsFor(n)); err != nil {
		return nil, err
	}
	if c.aptpl && lu.config.Records == nil {
		return nil, r.refuseAPTPL()
	}
	if err := lu.keepReservations(ctx, old, &c.persistentState); err != nil {
		return nil, err
	}
	lu.persistent.Store(&c.persistentState)
	lu.reserved.Store(c.reservation())
	lu.tellNexuses(c.attentions)
	return c.preempted, nil
}

// refuseAPTPL points to the APTPL bit.
func (r *prOut) refuseAPTPL() error {
	if r.action == prOutRegisterAndMove {
		return InvalidFieldInParameterList(17, 0)
	}
	return InvalidFieldInParameterList(20, 0)
}

// nexusesOf returns the attached nexuses among ids.
func (lu *LogicalUnit) nexusesOf(ids []NexusID) []*Nexus {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	var found []*Nexus
	for n := range lu.nexuses {
		if slices.Contains(ids, n.ID) {
			found = append(found, n)
		}
	}
	return found
}

// tellNexuses establishes unit attentions for the nexuses that are attached.
// The others meet I_T NEXUS LOSS OCCURRED or POWER ON when they come back, which
// tells them to look at everything anew.
func (lu *LogicalUnit) tellNexuses(attentions map[NexusID][]ASC) {
	if len(attentions) == 0 {
		return
	}
	lu.mu.Lock()
	defer lu.mu.Unlock()
	for n, itl := range lu.nexuses {
		for _, asc := range attentions[n.ID] {
			itl.establish(asc)
		}
	}
}

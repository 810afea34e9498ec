package reserve

import (
	"encoding/binary"

	"odx/target/scsi/nexus"
	"odx/target/scsi/sense"
)

// Service actions of PERSISTENT RESERVE OUT (SPC-4 r37 6.16.2). REPLACE LOST
// RESERVATION is not supported (RLR_C=0), because no reservation is reported as lost.
const (
	Register          = 0x00
	Reserve           = 0x01
	Release           = 0x02
	Clear             = 0x03
	Preempt           = 0x04
	PreemptAndAbort   = 0x05
	RegisterAndIgnore = 0x06
	RegisterAndMove   = 0x07
)

const (
	// MinList is the length of the basic parameter list, in bytes.
	MinList = 24
	// MaxList bounds a parameter list with TransportIDs, in bytes.
	MaxList = 64 << 10
	// MaxRegistrations bounds the registered I_T nexuses of a logical unit. With the
	// longest names they fit into one record of the store.
	MaxRegistrations = 512
)

// command is a PERSISTENT RESERVE OUT: its CDB and parameter list.
type command struct {
	action     byte
	scope      byte
	kind       Type
	key        uint64 // RESERVATION KEY
	actionKey  uint64 // SERVICE ACTION RESERVATION KEY
	specIPT    bool
	allTGPT    bool
	aptpl      bool
	unreg      bool
	targetPort uint16 // RELATIVE TARGET PORT IDENTIFIER of REGISTER AND MOVE
	// transportIDs are those of SPEC_I_PT, or the single one of REGISTER AND MOVE.
	transportIDs []nexus.TransportID
}

// parseOut reads a command. list has the length in the CDB, at least that of the basic
// parameter list.
func parseOut(cdb, list []byte) (*command, error) {
	r := &command{
		action:    cdb[1] & 0x1F,
		scope:     cdb[2] >> 4,
		kind:      Type(cdb[2] & 0x0F),
		key:       binary.BigEndian.Uint64(list),
		actionKey: binary.BigEndian.Uint64(list[8:]),
	}
	if r.action == RegisterAndMove {
		return r, r.parseMove(list)
	}
	r.specIPT, r.allTGPT, r.aptpl = list[20]&0x08 != 0, list[20]&0x04 != 0, list[20]&0x01 != 0
	switch {
	case !r.specIPT && len(list) != MinList:
		return nil, sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	case !r.specIPT:
		return r, nil
	case r.action != Register:
		return nil, sense.InvalidFieldInParameterList(20, 3)
	}
	return r, r.parseInitiatorPorts(list)
}

// parseInitiatorPorts reads the TransportIDs of SPEC_I_PT.
func (r *command) parseInitiatorPorts(list []byte) (err error) {
	r.transportIDs, err = listTransportIDs(list, 24, 28)
	return err
}

// parseMove reads the parameter list of REGISTER AND MOVE (SPC-4 r37 6.16.4).
func (r *command) parseMove(list []byte) (err error) {
	r.unreg, r.aptpl = list[17]&0x02 != 0, list[17]&0x01 != 0
	r.targetPort = binary.BigEndian.Uint16(list[18:])
	if r.transportIDs, err = listTransportIDs(list, 20, 24); err != nil {
		return err
	}
	if len(r.transportIDs) != 1 || r.transportIDs[0].ISID == nil {
		return sense.InvalidFieldInParameterList(24, sense.WholeField)
	}
	return nil
}

// listTransportIDs reads the TransportIDs from byte start of list on; the field at byte
// length has their total length.
func listTransportIDs(list []byte, length, start int) ([]nexus.TransportID, error) {
	if len(list) < start || uint64(len(list)-start) != uint64(binary.BigEndian.Uint32(list[length:])) {
		return nil, sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	ids, ok := nexus.ParseTransportIDs(list[start:])
	if !ok {
		return nil, sense.InvalidFieldInParameterList(start, sense.WholeField)
	}
	return ids, nil
}

// refuseAPTPL returns an error that points to the APTPL bit.
func (r *command) refuseAPTPL() error {
	if r.action == RegisterAndMove {
		return sense.InvalidFieldInParameterList(17, 0)
	}
	return sense.InvalidFieldInParameterList(20, 0)
}

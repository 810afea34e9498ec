package scsi

import (
	"testing"

	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

// A has the key 0Ah and holds the logical unit for itself and b, which has 0Bh.
func TestPersistentReserveIn(t *testing.T) {
	f := newPRFixture(t)
	wantHex(t, f.in(reserve.ReadKeys), "00000000 00000000")
	wantHex(t, f.in(reserve.ReadReservation), "00000000 00000000")
	wantHex(t, f.in(reserve.ReadFullStatus), "00000000 00000000")

	f.must(f.a, reserve.Register, 0, 0, 0x0A)
	f.must(f.b, reserve.Register, 0, 0, 0x0102030405060708)
	wantHex(t, f.in(reserve.ReadReservation), "00000002 00000000")
	f.must(f.a, reserve.Reserve, reserve.WriteExclusiveRegistrantsOnly, 0x0A, 0)

	wantHex(t, f.in(reserve.ReadKeys), `
		00000002          # PRGENERATION
		00000010          # 16 more bytes
		000000000000000a 0102030405060708`)
	wantHex(t, f.in(reserve.ReadReservation), `
		00000002 00000010
		000000000000000a  # reservation key
		00000000 00       # obsolete, reserved
		05                # LU_SCOPE, write exclusive - registrants only
		0000`)
	wantHex(t, f.in(reserve.ReadFullStatus), `
		00000002 000000a0
		000000000000000a 00000000
		01 05             # R_HOLDER; LU_SCOPE, type
		00000000 0001     # relative target port
		00000038          # the TransportID
		45 00 0034
		69716e2e 32303236 2d31312e 6578616d 706c652e 696e6974 6961746f 723a61
		2c692c3078 303030303030303030303030 00000000
		0102030405060708 00000000
		00 00             # registered, no holder
		00000000 0001
		00000038
		45 00 0034
		69716e2e 32303236 2d31312e 6578616d 706c652e 696e6974 6961746f 723a62
		2c692c3078 303030303030303030303030 00000000`)

	f.must(f.b, reserve.Preempt, reserve.ExclusiveAccessAllRegistrants, 0x0102030405060708, 0x0A)
	wantHex(t, f.on(f.b, prInCDB(reserve.ReadReservation)).data, "00000003 00000010 0000000000000000 00000000 00 08 0000")
}

func TestPersistentReserveIn_ReportCapabilities(t *testing.T) {
	wantHex(t, newPRFixture(t).in(reserve.ReportCapabilities), `
		0008
		1c                # CRH, SIP_C, ATP_C
		b0                # TMV, ALLOW COMMANDS 3
		ea01              # every type
		0000`)
	f := newPRFixture(t, keeping(&prRecords{}))
	wantHex(t, f.in(reserve.ReportCapabilities), "0008 1d b0 ea01 0000")
	f.out(f.a, reserve.Register, 0, prOutList(0, 0x0A, 0x01)).wantStatus(t, good)
	wantHex(t, f.in(reserve.ReportCapabilities), "0008 1d b1 ea01 0000")
	f.out(f.a, reserve.Register, 0, prOutList(0x0A, 0x0A, 0)).wantStatus(t, good)
	wantHex(t, f.in(reserve.ReportCapabilities), "0008 1d b0 ea01 0000")
}

// The length field covers the whole list, whatever the allocation length.
func TestPersistentReserveIn_AllocationLength(t *testing.T) {
	f := newPRFixture(t)
	f.registerAll()
	cdb := prInCDB(reserve.ReadKeys)
	for n, want := range map[byte]string{0: "", 4: "00000003", 8: "00000003 00000018", 12: "00000003 00000018 00000000"} {
		cdb[7], cdb[8] = 0, n
		wantHex(t, f.good(cdb, nil), want)
	}
}

// Those that do not exist end in INVALID FIELD IN CDB, REPLACE LOST RESERVATION (08h)
// among them.
func TestPersistentReserve_ServiceActions(t *testing.T) {
	f := newPRFixture(t)
	for action := byte(4); action < 32; action++ {
		f.do(prInCDB(action), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
	for action := byte(8); action < 32; action++ {
		f.out(f.a, action, 0, prOutList(0, 0, 0)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
}

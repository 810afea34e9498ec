package scsi

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

// accessOf gives a CDB for each kind of command, with its row of the tables of
// SPC-4 r37 5.12.1, SBC-3 4.17 and SPC-2 table 10: who gets RESERVATION CONFLICT
// when another nexus holds a reservation: by RESERVE, of write exclusive and of
// exclusive access types (the latter two for nexuses that the type lets out).
var reservationTable = []struct {
	name                                  string
	cdb                                   []byte
	reserve, writeExclusive, exclusiveAll bool
}{
	{"TEST UNIT READY", testUnitReady, true, false, false},
	{"REQUEST SENSE", requestSense, false, false, false},
	{"INQUIRY", inquiryCDB(0, 0, 96), false, false, false},
	{"REPORT LUNS", reportLUNsCDB(0, 96), false, false, false},
	{"LOG SENSE", logSense(0, 0x0C, 0, 0, 255), false, false, false},
	{"MODE SENSE(6)", modeSense6(0x3F, 0, 255), true, false, true},
	{"MODE SENSE(10)", modeSense10(0, 0x3F, 0, 255), true, false, true},
	{"MODE SELECT(6)", modeSelect6(nil), true, true, true},
	{"MODE SELECT(10)", modeSelect10(nil), true, true, true},
	{"REPORT SUPPORTED OPERATION CODES", rsocCDB(0, 0, 0, 255), true, false, true},
	{"REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", []byte{0xA3, 0x0D, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0}, true, false, true},
	{"REPORT TARGET PORT GROUPS", reportTPG(0, 255), false, false, false},
	{"SET TARGET PORT GROUPS", setTPGCDB(0), true, true, true},
	{"PERSISTENT RESERVE IN", prInCDB(reserve.ReadKeys), true, false, false},
	{"READ CAPACITY(10)", cdb10(0x25, 0, 0, 0), false, false, false},
	{"READ CAPACITY(16)", cdb16(0x9E, 0x10, 0, 32), false, false, false},
	{"READ(6)", cdb6(0x08, 0, 1), true, false, true},
	{"READ(10)", cdb10(0x28, 0, 0, 1), true, false, true},
	{"READ(12)", cdb12(0xA8, 0, 0, 1), true, false, true},
	{"READ(16)", cdb16(0x88, 0, 0, 1), true, false, true},
	{"VERIFY(10)", cdb10(0x2F, 0, 0, 1), true, false, true},
	{"VERIFY(16)", cdb16(0x8F, 0, 0, 1), true, false, true},
	{"GET LBA STATUS", getLBAStatus(0, 24), true, false, true},
	{"WRITE(6)", cdb6(0x0A, 0, 1), true, true, true},
	{"WRITE(10)", cdb10(0x2A, 0, 0, 1), true, true, true},
	{"WRITE(12)", cdb12(0xAA, 0, 0, 1), true, true, true},
	{"WRITE(16)", cdb16(0x8A, 0, 0, 1), true, true, true},
	{"WRITE AND VERIFY(10)", cdb10(0x2E, 0, 0, 1), true, true, true},
	{"WRITE SAME(16)", cdb16(0x93, 0, 0, 1), true, true, true},
	{"UNMAP", unmapCDB(0), true, true, true},
	{"COMPARE AND WRITE", compareAndWriteCDB(0, 0, 1), true, true, true},
	{"SYNCHRONIZE CACHE(10)", cdb10(0x35, 0, 0, 0), true, true, true},
	{"SYNCHRONIZE CACHE(16)", cdb16(0x91, 0, 0, 0), true, true, true},
	{"VERIFY(12)", cdb12(0xAF, 0, 0, 1), true, false, true},
	{"WRITE AND VERIFY(12)", cdb12(0xAE, 0, 0, 1), true, true, true},
	{"WRITE AND VERIFY(16)", cdb16(0x8E, 0, 0, 1), true, true, true},
	{"WRITE SAME(10)", cdb10(0x41, 0, 0, 1), true, true, true},
	{"WRITE ATOMIC(16)", cdb16(0x9C, 0, 0, 1), true, true, true},
	{"ORWRITE(16)", cdb16(0x8B, 0, 0, 1), true, true, true},
	{"PRE-FETCH(10)", cdb10(0x34, 0, 0, 1), true, false, true},
	{"PRE-FETCH(16)", cdb16(0x90, 0, 0, 1), true, false, true},
	{"READ DEFECT DATA(10)", cdb10(0x37, 0, 0, 8), true, false, true},
	{"READ DEFECT DATA(12)", cdb12(0xB7, 0, 0, 8), true, false, true},
	{"FORMAT UNIT", []byte{0x04, 0, 0, 0, 0, 0}, true, true, true},
	{"SANITIZE, BLOCK ERASE", []byte{0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0}, true, true, true},
	{"SANITIZE, EXIT FAILURE MODE", []byte{0x48, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0}, true, true, true},
	{"PREVENT ALLOW MEDIUM REMOVAL, allow", []byte{0x1E, 0, 0, 0, 0, 0}, false, false, false},
	{"PREVENT ALLOW MEDIUM REMOVAL, prevent", []byte{0x1E, 0, 0, 0, 1, 0}, true, true, true},
	{"START STOP UNIT, start", startUnit, false, false, false},
	{"SEND DIAGNOSTIC", []byte{0x1D, 0x04, 0, 0, 0, 0}, true, true, true},
	{"START STOP UNIT, stop", []byte{0x1B, 0, 0, 0, 0x04, 0}, true, true, true},
}

// TestReservations_ConflictTable runs every command as each kind of bystander.
func TestReservations_ConflictTable(t *testing.T) {
	for _, tt := range reservationTable {
		t.Run(tt.name, func(t *testing.T) {
			run := func(f *prFixture, n *Nexus, want bool) {
				t.Helper()
				r := f.run(request{nexus: n, cdb: tt.cdb, out: make([]byte, 1024), expectedOut: -1})
				if got := r.status == conflict; got != want {
					t.Errorf("%s: status %02Xh, RESERVATION CONFLICT wanted: %t", n.ID.InitiatorName, r.status, want)
				}
			}
			f := newPRFixture(t, space)
			f.good(reserve6, nil)
			run(f, f.b, tt.reserve)
			run(f, f.a, tt.name == "PERSISTENT RESERVE IN")
			for kind := range reserve.Type(9) {
				if !slices.Contains(prKinds, kind) {
					continue
				}
				f := newPRFixture(t, space)
				f.must(f.a, reserve.Register, 0, 0, 0x0A)
				f.must(f.b, reserve.Register, 0, 0, 0x0B)
				f.must(f.a, reserve.Reserve, kind, 0x0A, 0)
				outside := tt.exclusiveAll
				switch kind {
				case reserve.WriteExclusive, reserve.WriteExclusiveRegistrantsOnly, reserve.WriteExclusiveAllRegistrants:
					outside = tt.writeExclusive
				}
				registered := outside && (kind == reserve.WriteExclusive || kind == reserve.ExclusiveAccess)
				run(f, f.a, false)
				run(f, f.b, registered)
				run(f, f.c, outside)
			}
		})
	}
}

// What the copy manager asks.
func TestLogicalUnit_Reserved(t *testing.T) {
	f := newPRFixture(t)
	f.must(f.a, reserve.Register, 0, 0, 0x0A)
	f.must(f.a, reserve.Reserve, reserve.WriteExclusive, 0x0A, 0)
	for _, tt := range []struct {
		n      *Nexus
		access Access
		want   error
	}{
		{f.a, AccessRead, nil}, {f.a, AccessWrite, nil},
		{f.b, AccessRead, nil}, {f.b, AccessWrite, reserve.ErrConflict}, {f.b, AccessAlways, nil},
	} {
		if got := f.lu.Reserved(tt.n, tt.access); got != tt.want {
			t.Errorf("%s, access %d: %v", tt.n.ID.InitiatorName, tt.access, got)
		}
	}
}

var (
	reserve10 = []byte{0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	release10 = []byte{0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0}
)

// It is RESERVE(6) with another CDB.
func TestReserve_TenByte(t *testing.T) {
	f := newPRFixture(t)
	f.good(reserve10, nil)
	f.good(reserve6, nil)
	f.on(f.b, reserve10).wantStatus(t, conflict)
	f.on(f.b, release10).wantStatus(t, good)
	f.on(f.b, reserve6).wantStatus(t, conflict)
	f.good(release10, nil)
	f.on(f.b, reserve10).wantStatus(t, good)
	f.target.Detach(f.b)
	f.good(reserve10, nil)
	f.target.ResetLU(f.c, [8]byte{})
	f.wantAttentions(f.c, sense.ASCBusDeviceResetFunction)
	f.on(f.c, reserve10).wantStatus(t, good)

	for at, b := range map[int]byte{1: 0x10, 7: 1, 8: 1} {
		cdb := append([]byte(nil), reserve10...)
		cdb[at] = b
		f.on(f.c, cdb).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
	f.on(f.c, []byte{0x57, 0x02, 0, 0, 0, 0, 0, 0, 0, 0}).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
}

// CRH (SPC-4 r37 5.12.3). Who has every access by the persistent reservation gets GOOD
// without effect, others a conflict.
func TestReserve_WithRegistrations(t *testing.T) {
	for kind, want := range map[reserve.Type][3]byte{
		0:                                     {conflict, conflict, conflict},
		reserve.WriteExclusive:                {good, conflict, conflict},
		reserve.ExclusiveAccess:               {good, conflict, conflict},
		reserve.WriteExclusiveRegistrantsOnly: {good, good, conflict},
		reserve.ExclusiveAccessAllRegistrants: {good, good, conflict},
	} {
		t.Run(fmt.Sprint("type ", kind), func(t *testing.T) {
			f := newPRFixture(t)
			f.must(f.a, reserve.Register, 0, 0, 0x0A)
			f.must(f.b, reserve.Register, 0, 0, 0x0B)
			if kind != 0 {
				f.must(f.a, reserve.Reserve, kind, 0x0A, 0)
			}
			for i, n := range []*Nexus{f.a, f.b, f.c} {
				for _, cdb := range [][]byte{reserve6, reserve10, release6, release10} {
					f.on(n, cdb).wantStatus(t, want[i])
				}
			}
			f.must(f.a, reserve.Clear, 0, 0x0A, 0) // no RESERVE is in its way
		})
	}
}

// While the logical unit is reserved the old way, PERSISTENT RESERVE IN and OUT are
// conflicts for everyone.
func TestReserve_PersistentReserve(t *testing.T) {
	f := newPRFixture(t)
	f.good(reserve6, nil)
	for _, n := range []*Nexus{f.a, f.b} {
		f.on(n, prInCDB(reserve.ReadKeys)).wantStatus(t, conflict)
		f.out(n, reserve.Register, 0, prOutList(0, 0x0A, 0)).wantStatus(t, conflict)
	}
	f.good(release6, nil)
	f.wantKeys()
}

// BenchmarkReserved shows what a reservation costs READ: nothing but an atomic
// load while there is none, the lookup of the nexus else.
func BenchmarkReserved(b *testing.B) {
	for name, kind := range map[string]reserve.Type{"none": 0, "registrants only": reserve.WriteExclusiveRegistrantsOnly} {
		b.Run(name, func(b *testing.B) {
			f := newPRFixture(b)
			f.registerAll()
			if kind != 0 {
				f.must(f.a, reserve.Reserve, kind, 0x0A, 0)
			}
			b.ReportAllocs()
			for b.Loop() {
				if f.lu.Reserved(f.b, AccessWrite) != nil {
					b.Fatal("conflict")
				}
			}
		})
	}
}

func TestReservations_Allocations(t *testing.T) {
	f := newPRFixture(t)
	f.registerAll()
	f.must(f.a, reserve.Reserve, reserve.WriteExclusive, 0x0A, 0)
	task := NewTask(&f.pool)
	for n, want := range map[*Nexus]byte{f.a: good, f.b: conflict} {
		allocs := testing.AllocsPerRun(100, func() {
			task.Reset(n, cdb10(0x2A, 0, 0, 1))
			task.ExpectedOut = 512
			if !f.target.Prepare(task) {
				task.AllocDataOut(512)
				f.target.Execute(context.Background(), task)
			}
			if task.Result != want {
				t.Errorf("status %02Xh, want %02Xh", task.Result, want)
			}
			task.Release()
		})
		if allocs >= 2 { // the CDB is one
			t.Errorf("%.0f allocations for one WRITE that ends with %02Xh", allocs, want)
		}
	}
}

// No command has been forgotten but those that look at reservations themselves.
func TestReservations_ConflictTableComplete(t *testing.T) {
	f := newPRFixture(t, space)
	known := map[*Operation]bool{}
	for _, tt := range reservationTable {
		op, err := f.lu.operation(tt.cdb)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		known[op] = true
	}
	check := func(op *Operation) {
		own := op.Access == AccessPersistentReserve || op.Usage[0]&0xBE == 0x16 // RESERVE and RELEASE
		if !known[op] && !own {
			t.Errorf("%s (%02Xh) is not in the table; give it its row of SPC-4 or SBC-3", op.Name, op.Usage[0])
		}
	}
	for code := range f.lu.opcodes {
		if op := f.lu.opcodes[code].single; op != nil {
			check(op)
		}
		if actions := f.lu.opcodes[code].actions; actions != nil {
			for _, op := range actions {
				if op != nil {
					check(op)
				}
			}
		}
	}
}

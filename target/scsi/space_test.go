package scsi

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"odx/backstore"
	"odx/target/scsi/sense"
)

// space is a soft threshold of 80 GiB, with 50 MiB and a byte in use.
func space(c *LUConfig) {
	c.Space = Space{SoftThreshold: 80 << 30, Usage: func() (used, left int64) { return 50<<20 + 1, 7<<30 - 1 }}
}

const (
	goldenRecoveryLBPERE = "01 0a c0 00 00 00 00 80 0000 0000"
	goldenThreshold      = "81 02 0000 00014000" // enabled, armed increasing, used: 80 Ki sets of 1 MiB
	goldenProvisioning   = "5c 02 0014 00 00000000000000 00000000" + goldenThreshold
)

func TestSpace_Pages(t *testing.T) {
	f := newFixture(t, space)
	wantHex(t, f.good(inquiryCDB(1, 0xB2, 255), nil), "00 b2 0004  0b e4 02 00")
	wantHex(t, f.good(modeSense6(0x01, 0, 255), nil), "17 00 10 08"+goldenDescriptor+goldenRecoveryLBPERE)
	wantHex(t, f.good(modeSense6(0x41, 0, 255), nil), "17 00 10 08"+goldenDescriptor+"01 0a 00 00 00 00 00 80 0000 0000")
	wantHex(t, f.good(modeSense6(0x1C, 2, 255), nil), "23 00 10 08"+goldenDescriptor+goldenProvisioning)
	wantHex(t, f.good(modeSense6(0x5C, 2, 255), nil), "23 00 10 08"+goldenDescriptor+"5c 02 0014 0000000000000000 0000000000000000 00000000")
	wantHex(t, f.good(modeSense6(0x1C, 0xFF, 255), nil), "2f 00 10 08"+goldenDescriptor+goldenExceptions+goldenProvisioning)
	all := f.good(modeSense6(0x3F, 0xFF, 255), nil)
	f.good(modeSelect6(all), all)
	all[len(all)-1]++ // THRESHOLD COUNT
	f.do(modeSelect6(all), all).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInParameterList)

	native := newFixture(t, space, func(c *LUConfig) { c.LogicalBlockLength = 4096 })
	wantHex(t, native.good(inquiryCDB(1, 0xB2, 255), nil), "00 b2 0004  08 e4 02 00")
	wantHex(t, native.good(modeSense6(0x1C, 2, 255), nil)[12:], goldenProvisioning)
	measured := newFixture(t, space, func(c *LUConfig) { c.Space.SoftThreshold = 0 })
	wantHex(t, measured.good(modeSense6(0x1C, 2, 255), nil)[28:], "01 02 0000 00000000") // not enabled
	full := newFixture(t, space, func(c *LUConfig) { c.Thin = false })
	full.do(modeSense6(0x1C, 2, 255), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	full.do(logSense(0, 0x0C, 0, 0, 255), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
}

func TestSoftThreshold_UnitAttention(t *testing.T) {
	f := newFixture(t, space)
	other := f.attach("iqn.2026-11.example.initiator:b")
	f.lu.SoftThresholdReached()
	f.lu.SoftThresholdReached() // again, before any nexus was notified
	wantHex(t, f.do(testUnitReady, nil).sense, "70 00 06 00000000 0a 00000000 3807 00 000000")
	f.good(testUnitReady, nil)
	late := f.attach("iqn.2026-11.example.initiator:c")
	// Descriptor format has room for the threshold descriptor as INFORMATION.
	wantHex(t, f.on(other, []byte{0x03, 0x01, 0, 0, 255, 0}).data, "72 06 3807 000000 0c  00 0a 80 00"+goldenThreshold)
	f.on(other, testUnitReady).wantStatus(t, StatusGood)
	f.on(late, testUnitReady).wantStatus(t, StatusGood)
	f.lu.SoftThresholdReached() // the next crossing
	f.on(late, testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCSoftThresholdReached)
}

// recoveryPage is a parameter list for MODE SELECT(6).
func recoveryPage(byte7 byte) []byte {
	return []byte{0, 0, 0, 0, 0x01, 0x0A, 0xC0, 0, 0, 0, 0, byte7, 0, 0, 0, 0}
}

func TestSoftThreshold_LBPERE(t *testing.T) {
	f := newFixture(t, space)
	f.good(modeSelect6(recoveryPage(0)), recoveryPage(0))
	f.lu.SoftThresholdReached()
	f.good(testUnitReady, nil)
	f.good(modeSelect6(recoveryPage(0x80)), recoveryPage(0x80))
	f.lu.SoftThresholdReached()
	f.do(testUnitReady, nil).wantSense(t, sense.KeyUnitAttention, sense.ASCSoftThresholdReached)

	for name, change := range map[string]func(*LUConfig){
		"no threshold": func(c *LUConfig) { c.Space.SoftThreshold = 0 },
		"not thin":     func(c *LUConfig) { c.Thin = false },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, space, change)
			f.lu.SoftThresholdReached()
			f.good(testUnitReady, nil)
		})
	}
	plain := newFixture(t)
	plain.do(modeSelect6(recoveryPage(0x80)), recoveryPage(0x80)).
		wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInParameterList)
}

func logSense(flags, page, subpage byte, pointer, length uint16) []byte {
	c := []byte{0x4D, flags, page, subpage, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(c[5:], pointer)
	binary.BigEndian.PutUint16(c[7:], length)
	return c
}

func TestLogSense(t *testing.T) {
	f := newFixture(t, space)
	const (
		available = "0001 03 08 00001bff 02 000000" // 7 GiB less a byte
		used      = "0002 03 08 00000033 02 000000" // 50 MiB and a byte
	)
	for name, tt := range map[string]struct {
		cdb  []byte
		want string
	}{
		"supported pages":              {logSense(0, 0x40, 0, 0, 255), "00 00 0002 00 0c"},
		"supported pages and subpages": {logSense(0, 0x40, 0xFF, 0, 255), "40 ff 0006 0000 00ff 0c00"},
		"provisioning":                 {logSense(0, 0x4C, 0, 0, 255), "8c 00 0018" + available + used},
		"from the first parameter on":  {logSense(0, 0x4C, 0, 1, 255), "8c 00 0018" + available + used},
		"from the second on":           {logSense(0, 0x4C, 0, 2, 255), "8c 00 000c" + used},
		"threshold values":             {logSense(0, 0x0C, 0, 0, 255), "8c 00 0018" + available + used},
		"header only":                  {logSense(0, 0x4C, 0, 0, 4), "8c 00 0018"},
	} {
		t.Run(name, func(t *testing.T) { wantHex(t, f.good(tt.cdb, nil), tt.want) })
	}
	wantHex(t, f.good(rsocCDB(1, 0x4D, 0, 255), nil), "00 03 000a  4d 01 ff ff 00 ffff ffff 04")
	for name, cdb := range map[string][]byte{
		"SP":                     logSense(0x01, 0x40, 0, 0, 255),
		"unknown page":           logSense(0, 0x4D, 0, 0, 255),
		"unknown subpage":        logSense(0, 0x4C, 1, 0, 255),
		"after the parameters":   logSense(0, 0x4C, 0, 3, 255),
		"parameter of page 00h":  logSense(0, 0x40, 0, 1, 255),
		"subpage of page 00h":    logSense(0, 0x40, 1, 0, 255),
		"subpages of every page": logSense(0, 0x4C, 0xFF, 0, 255),
	} {
		t.Run(name, func(t *testing.T) { f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB) })
	}
}

// A full store refuses writes and nothing else, and takes them again once UNMAP
// has given space back.
func TestWrite_StoreFull(t *testing.T) {
	f, _ := newStoreFixture(t, backstore.Options{CapacityBytes: 4 << 20}, 16<<20)
	random := rand.NewChaCha8([32]byte{1})
	write := func(lba uint32, data []byte) result {
		return f.do(cdb10(0x2A, 0, lba, uint16(len(data)/512)), data)
	}
	first, second := make([]byte, 4<<20), make([]byte, 64<<10)
	random.Read(first)
	random.Read(second)
	write(0, first).wantStatus(t, StatusGood)

	write(16384, second).wantSense(t, sense.KeyDataProtect, sense.ASCSpaceAllocationFailed)
	f.do(cdb16(0x93, 0, 16384, 8), second[:512]).wantSense(t, sense.KeyDataProtect, sense.ASCSpaceAllocationFailed)
	f.do(compareAndWriteCDB(0, 16384, 8), append(make([]byte, 4096), second[:4096]...)).
		wantSense(t, sense.KeyDataProtect, sense.ASCSpaceAllocationFailed)
	if got := f.good(cdb10(0x28, 0, 0, 8192), nil); !bytes.Equal(got, first) {
		t.Error("reads differ on a full store")
	}
	f.good(cdb10(0x35, 0, 0, 0), nil)
	if got := f.good(cdb10(0x28, 0, 16384, 128), nil); !isZero(got) {
		t.Error("refused write changed data")
	}
	write(8192, first).wantStatus(t, StatusGood) // what is known takes no space

	f.unmap(unmapList([2]uint64{0, 16384})).wantStatus(t, StatusGood)
	// The space is back as soon as the store has gone through what it freed.
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	var last result
	for range 10_000 {
		if last = write(16384, second); last.status == StatusGood {
			break
		}
		last.wantSense(t, sense.KeyDataProtect, sense.ASCSpaceAllocationFailed)
		<-poll.C
	}
	last.wantStatus(t, StatusGood)
	if got := f.good(cdb10(0x28, 0, 16384, 128), nil); !bytes.Equal(got, second) {
		t.Error("data written after the UNMAP differs")
	}
}

package scsi

import (
	"encoding/binary"
	"slices"
	"testing"

	"odx/target/scsi/sense"
)

func inquiryCDB(evpd, page byte, length uint16) []byte {
	return []byte{0x12, evpd, page, byte(length >> 8), byte(length), 0}
}

func TestInquiry_Standard(t *testing.T) {
	f := newFixture(t)
	wantHex(t, f.good(inquiryCDB(0, 0, 255), nil), `
		00                 # connected, direct access block device
		00                 # not removable
		06                 # SPC-4
		12                 # HISUP, response data format 2
		5b                 # 91 more bytes
		30 00 02           # TPGS: implicit and explicit, no 3PC yet; CMDQUE
		4f 44 58 20 20 20 20 20                         # "ODX"
		56 49 52 54 55 41 4c 2d 44 49 53 4b 20 20 20 20 # "VIRTUAL-DISK"
		30 30 30 31                                     # "0001"
		00000000 00000000 00000000 00000000 00000000 0000
		00a0 0460 04c0 0960                             # SAM-5, SPC-4, SBC-3, iSCSI
		0000 0000 0000 0000
		00000000 00000000 00000000 00000000 00000000 0000`)
}

func TestInquiry_AllocationLength(t *testing.T) {
	f := newFixture(t)
	whole := f.good(inquiryCDB(0, 0, 512), nil)
	for _, n := range []uint16{0, 5, 36, 95, 96, 97, 256, 511} {
		got := f.good(inquiryCDB(0, 0, n), nil)
		if !slices.Equal(got, whole[:min(int(n), len(whole))]) {
			t.Errorf("allocation length %d: %d bytes", n, len(got))
		}
	}
}

func TestInquiry_Refused(t *testing.T) {
	f := newFixture(t)
	for name, cdb := range map[string][]byte{
		"page code without EVPD": inquiryCDB(0, 1, 255),
		"page that is not there": inquiryCDB(1, 0xC7, 255),
		"CMDDT":                  inquiryCDB(2, 0, 255),
	} {
		t.Run(name, func(t *testing.T) {
			f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
		})
	}
}

func TestInquiry_ThirdPartyCopy(t *testing.T) {
	f := newFixture(t)
	op := Operation{Name: "POPULATE TOKEN", Usage: make([]byte, 16), Execute: executeNoOp}
	op.Usage[0] = 0x83
	if err := f.lu.Install(0x83, 0x10, op); err != nil {
		t.Fatal(err)
	}
	op.Usage = slices.Clone(op.Usage)
	op.Usage[0] = 0x84
	if err := f.lu.Install(0x84, 0x07, op); err != nil {
		t.Fatal(err)
	}
	if d := f.good(inquiryCDB(0, 0, 96), nil); d[5]&0x08 == 0 {
		t.Errorf("byte 5 = %02Xh, want 3PC", d[5])
	}
}

func TestVPD_SupportedPages(t *testing.T) {
	f := newFixture(t)
	f.lu.InstallVPD(0x8F, func(*Nexus) []byte { return []byte{0xAA, 0xBB} })
	wantHex(t, f.good(inquiryCDB(1, 0x00, 255), nil), "00 00 0008  00 80 83 86 8f b0 b1 b2")
	wantHex(t, f.good(inquiryCDB(1, 0x8F, 255), nil), "00 8f 0002  aa bb")
}

func TestVPD_UnitSerialNumber(t *testing.T) {
	f := newFixture(t)
	got := f.good(inquiryCDB(1, 0x80, 255), nil)
	if want := "\x00\x80\x00\x20" + "0123456789abcdeffedcba9876543210"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestVPD_DeviceIdentification(t *testing.T) {
	f := newFixture(t)
	wantHex(t, f.good(inquiryCDB(1, 0x83, 1024), nil), `
		00 83 00cc
		01 03 00 10  6026f640 12345678 9abcdeff edcba987           # NAA 6: 02-6F-64, then the identity
		01 02 00 10  01234567 89abcdef 026f64fe dcba9876           # EUI-64 based, 16 bytes
		02 01 00 14  4f44582020202020 41534e465a346d727a655f2d            # "ODX     ", "ASNFZ4mrze_-"
		03 08 00 28  6e61612e 36303236 46363430 31323334 35363738 39414243 44454646
		             45444342 41393837 00000000                    # "naa.6026F640123456789ABCDEFFEDCBA987"
		51 94 00 04  00000001                                      # relative target port
		51 95 00 04  00000001                                      # target port group
		53 98 00 28  69716e2e 32303236 2d31312e 6578616d 706c652e 6f64783a 6469736b
		             732c742c 30783030 30310000                    # port: "iqn.…:disks,t,0x0001"
		53 a8 00 20  69716e2e 32303236 2d31312e 6578616d 706c652e 6f64783a 6469736b
		             73000000                                      # device: "iqn.…:disks"`)
}

func TestVPD_ExtendedInquiry(t *testing.T) {
	f := newFixture(t)
	got := f.good(inquiryCDB(1, 0x86, 255), nil)
	wantHex(t, got[:14], "00 86 003c  00 07 01 01 00 0000 00 00 fc")
	if len(got) != 64 {
		t.Errorf("page of %d bytes, want 64", len(got))
	}
}

func TestVPD_BlockLimits(t *testing.T) {
	tests := map[string]struct {
		change func(*LUConfig)
		want   string
	}{
		"512e": {func(*LUConfig) {}, `
			00 b0 003c
			01 ff 0008                 # WSNZ, COMPARE AND WRITE 255 blocks, granularity 4 KiB
			007fe000 00000800 00000000 # 4 GiB less 4 MiB at most, 1 MiB is optimal
			00100000 00000100          # UNMAP: 1 Mi blocks, 256 descriptors
			00000008 80000000          # UNMAP granularity 4 KiB, alignment valid
			000000000000fff8           # WRITE SAME
			00000800 00000008 00000008 # WRITE ATOMIC: 1 MiB at most, in units of 4 KiB
			00000000 00000000          # no atomic boundaries`},
		"4Kn": {func(c *LUConfig) { c.LogicalBlockLength = 4096 }, `
			00 b0 003c
			01 ff 0001 000ffc00 00000100 00000000 00100000 00000100 00000000 00000000
			0000000000001fff 00000100 00000001 00000001 00000000 00000000`},
		"no atomic write, not thin": {func(c *LUConfig) { c.Volume, c.Thin = plainVolume{c.Volume}, false }, `
			00 b0 003c
			01 00 0008 007fe000 00000800 00000000 00000000 00000000 00000000 00000000
			000000000000fff8 00000000 00000000 00000000 00000000 00000000`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := newFixture(t, tt.change).good(inquiryCDB(1, 0xB0, 255), nil)
			wantHex(t, got, tt.want)
		})
	}
}

// OPTIMAL UNMAP GRANULARITY is what each client can live with: Microsoft's divides by
// it, and qemu 7.2 fails an assertion over one block of 4096 bytes.
func TestVPD_BlockLimits_UnmapGranularity(t *testing.T) {
	const microsoft, other = "iqn.1991-05.com.microsoft:host.example", "iqn.2008-11.org.linux-kvm:vm"
	for _, tt := range []struct {
		name      string
		block     int
		thin      bool
		set       int64
		initiator string
		want      uint32 // blocks
	}{
		{"512e", 512, true, 0, other, 8},
		{"512e, Microsoft", 512, true, 0, microsoft, 8},
		{"4Kn", 4096, true, 0, other, 0},
		{"4Kn, Microsoft", 4096, true, 0, microsoft, 1},
		{"4Kn, not thin", 4096, false, 0, microsoft, 0},
		{"4Kn, one block configured", 4096, true, 4096, other, 1},
		{"4Kn, configured", 4096, true, 64 << 10, microsoft, 16},
		{"512e, configured", 512, true, 1 << 20, other, 2048},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, func(c *LUConfig) {
				c.LogicalBlockLength, c.Thin, c.UnmapGranularity = tt.block, tt.thin, tt.set
			})
			page := f.on(f.attach(tt.initiator), inquiryCDB(1, 0xB0, 255)).data
			if got := binary.BigEndian.Uint32(page[28:]); got != tt.want {
				t.Errorf("OPTIMAL UNMAP GRANULARITY %d, want %d", got, tt.want)
			}
			if valid := page[32]&0x80 != 0; valid != (tt.want > 0) {
				t.Errorf("UGAVALID %v", valid)
			}
		})
	}
}

func TestVPD_Provisioning(t *testing.T) {
	thin := newFixture(t)
	wantHex(t, thin.good(inquiryCDB(1, 0xB2, 255), nil), "00 b2 0004  00 e4 02 00")
	wantHex(t, thin.good(inquiryCDB(1, 0xB1, 8), nil), "00 b1 003c  0001 00 40") // WABEREQ 01b
	full := newFixture(t, func(c *LUConfig) { c.Thin = false })
	wantHex(t, full.good(inquiryCDB(1, 0xB2, 255), nil), "00 b2 0004  00 00 00 00")
}

func TestTarget_MissingLUN(t *testing.T) {
	f := newFixture(t)
	missing := map[string][8]byte{
		"LUN 1":                   {0, 1},
		"LUN 300, flat":           {0x41, 0x2C},
		"bus 1":                   {0x01, 0},
		"second level":            {0, 0, 0, 1},
		"REPORT LUNS well known":  {0xC1, 0x01},
		"logical unit addressing": {0x80, 0},
	}
	for name, lun := range missing {
		t.Run(name, func(t *testing.T) {
			do := func(cdb []byte) result { return f.run(request{nexus: f.nexus, lun: lun, cdb: cdb}) }
			if r := do(inquiryCDB(0, 0, 255)); r.status != StatusGood || len(r.data) != 36 || r.data[0] != 0x7F {
				t.Errorf("INQUIRY: status %02Xh, data % x; want qualifier 011b", r.status, r.data)
			}
			do(inquiryCDB(1, 0, 255)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
			wantHex(t, do(reportLUNsCDB(0, 1024)).data, "00000008 00000000 0000000000000000")
			se := do([]byte{0x03, 0, 0, 0, 18, 0}).data
			wantHex(t, se, "70 00 05 00000000 0a 00000000 2500 00 000000")
			do([]byte{0x00, 0, 0, 0, 0, 0}).wantSense(t, sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported)
			do(cdb10(0x28, 0, 0, 1)).wantSense(t, sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported)
		})
	}
	if f.target.HasLU(f.nexus, [8]byte{0, 1}) || !f.target.HasLU(f.nexus, [8]byte{}) {
		t.Error("HasLU disagrees with the LUNs in use")
	}
	if !f.target.HasLU(f.nexus, [8]byte{0x40, 0}) {
		t.Error("LUN 0 in flat space addressing is not found")
	}
}

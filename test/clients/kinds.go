package clients

import (
	"slices"

	"odx/internal/kit"
)

// Kind is a kind of disk that the suites are run on.
type Kind struct {
	Name string
	LUN  kit.LUN
	// only are the suites that apply; all but except where there are none.
	only, except []string
	// wrong are tests that are at fault themselves on such a disk.
	wrong []string
}

// Kinds are the disks. What one leaves out is run on another.
var Kinds = []Kind{
	{
		Name:   "512e",
		LUN:    kit.LUN{Size: 1 << 30},
		except: []string{"ReadOnly"},
		// It asks about the block i+1 and wants the answer to begin at block
		// i+LBPPB, where SBC-3 5.4.2 has it begin with what was asked about. Only
		// where a physical block is one logical block is that the same.
		wrong: []string{"GetLBAStatus.UnmapSingle"},
	},
	{
		Name:   "4Kn",
		LUN:    kit.LUN{Size: 1 << 30, BlockSize: 4096},
		except: []string{"ReadOnly"},
		// They write a block with 512 bytes of data, whatever its length is; libiscsi
		// 1.20 has it right.
		wrong: []string{"ProutReserve.AccessEA", "ProutReserve.AccessWE", "ProutReserve.AccessEARO",
			"ProutReserve.AccessWERO", "ProutReserve.AccessEAAR", "ProutReserve.AccessWEAR"},
	},
	{
		Name: "read-only",
		LUN:  kit.LUN{Size: 1 << 30, ReadOnly: true},
		only: []string{"Inquiry", "Mandatory", "ModeSense6", "ReadCapacity10", "ReadCapacity16", "ReadOnly", "TestUnitReady"},
	},
}

// Names are the suites of libiscsi 1.19; a program may have more.
var Names = []string{
	"CompareAndWrite", "ExtendedCopy", "GetLBAStatus", "Inquiry", "Mandatory", "ModeSense6", "MultipathIO",
	"NoMedia", "OrWrite", "Prefetch10", "Prefetch16", "PreventAllow", "PrinReadKeys", "PrinReportCapabilities",
	"PrinServiceactionRange", "ProutClear", "ProutPreempt", "ProutRegister", "ProutReserve", "Read6", "Read10",
	"Read12", "Read16", "ReadCapacity10", "ReadCapacity16", "ReadDefectData10", "ReadDefectData12", "ReadOnly",
	"ReceiveCopyResults", "ReportSupportedOpcodes", "Reserve6", "Sanitize", "StartStopUnit", "TestUnitReady",
	"Unmap", "Verify10", "Verify12", "Verify16", "Write10", "Write12", "Write16", "WriteAtomic16", "WriteSame10",
	"WriteSame16", "WriteVerify10", "WriteVerify12", "WriteVerify16", "iSCSIResiduals", "iSCSITMF", "iSCSIcmdsn",
	"iSCSIdatasn",
}

// plan returns those suites of all that apply to the kind, without the tests
// that are wrong about it.
func (k Kind) plan(all []Suite) []Suite {
	var chosen []Suite
	for _, suite := range all {
		if len(k.only) > 0 && !slices.Contains(k.only, suite.Name) || slices.Contains(k.except, suite.Name) {
			continue
		}
		right := slices.DeleteFunc(slices.Clone(suite.Tests), func(test string) bool {
			return slices.Contains(k.wrong, suite.Name+"."+test)
		})
		if len(right) == len(suite.Tests) {
			right = nil
		}
		chosen = append(chosen, Suite{suite.Name, right})
	}
	return chosen
}

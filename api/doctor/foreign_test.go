package doctor_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"

	"odx/api/doctor"
	"odx/initiator"
	"odx/internal/kit/logs"
	"odx/offload/offloadtest"
	"odx/target/iscsi"
	"odx/target/scsi"
)

// foreign is a target other than odx. Its LUN 0 has data; set configures both LUNs.
func foreign(t *testing.T, set func(lu *scsi.LogicalUnit) error) func(lun uint16) initiator.URL {
	t.Helper()
	device := scsi.NewTarget(scsi.TargetConfig{Name: name, Log: logs.Discard()})
	store := offloadtest.NewStore([16]byte{1})
	for lun := range uint16(2) {
		v := store.NewVolume(string(rune('a'+lun)), 4<<20)
		if err := v.WriteAt(t.Context(), []byte(strings.Repeat("source", 1<<12)), 0); err != nil {
			t.Fatal(err)
		}
		if lun == 1 {
			if err := v.Unmap(t.Context(), 0, v.Size()); err != nil {
				t.Fatal(err)
			}
		}
		lu, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: v, LogicalBlockLength: 512, ID: [16]byte{byte(lun + 1)}})
		if err == nil {
			err = set(lu)
		}
		if err == nil {
			err = device.AddLU(lun, lu)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	options := iscsi.DefaultOptions()
	options.Log = logs.Discard()
	s, err := iscsi.NewServer(options, []iscsi.TargetConfig{{Name: name, DeviceServer: device}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), iscsi.Portal{Listener: l, Group: 1}) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, iscsi.ErrClosed) {
			t.Error(err)
		}
	})
	return func(lun uint16) initiator.URL {
		return initiator.URL{Address: l.Addr().String(), Target: name, LUN: lun}
	}
}

// limits is page 8Fh with only the block device ROD limits.
func limits(first uint16, most, optimal uint64) func(*scsi.Nexus) []byte {
	p := make([]byte, 36)
	binary.BigEndian.PutUint16(p, first)
	binary.BigEndian.PutUint16(p[2:], 0x20)
	binary.BigEndian.PutUint64(p[20:], most)
	binary.BigEndian.PutUint64(p[28:], optimal)
	return func(*scsi.Nexus) []byte { return p }
}

// lies installs token commands that return GOOD and do nothing.
func lies(lu *scsi.LogicalUnit) error {
	lu.InstallVPD(0x8F, limits(0, 0, 0))
	answers := map[[2]byte]func(t *scsi.Task){
		{0x83, 0x10}: func(*scsi.Task) {}, {0x83, 0x11}: func(*scsi.Task) {},
		{0x84, 0x07}: func(t *scsi.Task) {
			p := make([]byte, 550)
			p[3], p[2], p[4], p[5], p[15] = 0x22, 0x02, 0x10, 0x01, 0xF1
			binary.BigEndian.PutUint64(p[16:], 16)
			binary.BigEndian.PutUint32(p[32:], 514)
			t.SetDataIn(p, uint32(len(p)))
		},
	}
	for code, answer := range answers {
		op := scsi.Operation{Name: "a lie", Usage: make([]byte, 16), Partial: true, Execute: func(_ context.Context, t *scsi.Task) error {
			answer(t)
			return nil
		}}
		op.Usage[0], op.Usage[1] = code[0], code[1]
		if code[0] == 0x83 {
			op.Prepare = scsi.ParameterListLength(10, 4)
		}
		if err := lu.Install(code[0], int(code[1]), op); err != nil {
			return err
		}
	}
	return nil
}

// TestExamine_ForeignTarget: the findings name why an initiator cannot copy by token
// with another target, and a target that acknowledges copies without copying is
// detected.
func TestExamine_ForeignTarget(t *testing.T) {
	for what, tt := range map[string]struct {
		set   func(lu *scsi.LogicalUnit) error
		wrong []string // beginnings of expected findings
	}{
		"no token copies": {func(*scsi.LogicalUnit) error { return nil }, []string{
			"3PC bit of INQUIRY: the 3PC bit", "list of VPD pages: page 8Fh is missing", "page 8Fh as Windows reads it: VPD page 8Fh", "create a token (POPULATE TOKEN): the logical unit does not offer"}},
		"pages out of order": {func(lu *scsi.LogicalUnit) error {
			lu.InstallVPD(0x00, func(*scsi.Nexus) []byte { return []byte{0x00, 0xB0, 0x83, 0x8F} })
			return lies(lu)
		}, []string{"list of VPD pages: page 83h follows page B0h"}},
		"limits are not first": {func(lu *scsi.LogicalUnit) error {
			if err := lies(lu); err != nil {
				return err
			}
			lu.InstallVPD(0x8F, limits(1, 0, 0))
			return nil
		}, []string{"page 8Fh as Windows reads it: the first descriptor is not the block device ROD limits"}},
		"limits are inconsistent": {func(lu *scsi.LogicalUnit) error {
			if err := lies(lu); err != nil {
				return err
			}
			lu.InstallVPD(0x8F, limits(0, 8, 9))
			return nil
		}, []string{"page 8Fh as Windows reads it: OPTIMAL TRANSFER COUNT 9 is above MAXIMUM TOKEN TRANSFER SIZE 8"}},
		"nothing is copied": {lies, []string{"copy by token and compare: the data differs", "reject a forged token: accepted"}},
	} {
		t.Run(what, func(t *testing.T) {
			at := foreign(t, tt.set)
			lines, ok := examine(t, doctor.Pair{Source: at(0), Destination: at(1), ScratchLength: 8192})
			if ok {
				t.Error("Examine reports no fault")
			}
			for _, want := range tt.wrong {
				if !strings.Contains(strings.Join(lines, "\n"), "NOT "+want) {
					t.Errorf("no %q in\n%s", want, strings.Join(lines, "\n"))
				}
			}
		})
	}
}

package doctor_test

import (
	"path/filepath"
	"strings"
	"testing"

	"odx/api/doctor"
	"odx/initiator"
)

// command sends a SCSI command to a LUN as an initiator whose session lasts until the
// test ends.
func command(t *testing.T, u initiator.URL, who string, cdb ...byte) {
	t.Helper()
	s, err := initiator.Dial(t.Context(), initiator.Options{URL: u, InitiatorName: who})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for { // until no unit attention is pending
		err := s.Do(t.Context(), &initiator.Command{CDB: append(cdb, make([]byte, 16-len(cdb))...)})
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "UNIT ATTENTION") {
			t.Fatal(err)
		}
	}
}

// TestExamine_Refusals: for each cause for which odx refuses a copy by token, the
// finding names the cause and the advice.
func TestExamine_Refusals(t *testing.T) {
	const luns = "targets:\n  - name: " + name + "\n    luns:\n" +
		"      - {lun: 0, volume: src, size: 64MiB}\n      - {lun: 1, volume: dst, size: 64MiB}\n"
	const host = "iqn.2026-11.example:host"
	for what, tt := range map[string]struct {
		text      string
		prepare   func(t *testing.T, at func(lun uint16) initiator.URL)
		src, dst  uint16
		initiator string
		check     string // the check that fails, or empty
		detail    string
		advice    string
	}{
		"nothing": {text: luns, dst: 1},
		"read-only destination": {text: luns + "      - {lun: 2, volume: more, size: 64MiB, read_only: true}\n", dst: 2,
			check: "use the token", detail: "DATA PROTECT, 27/00", advice: "read_only"},
		"no such LUN": {text: luns, dst: 7, check: "log in", detail: "there is no disk at this LUN", advice: "the LUN"},
		"rule about the source": {text: luns + "copy:\n  rules: [{from: [src], allow: false}]\n", dst: 1,
			check: "create a token", detail: "20/02", advice: "copy.rules"},
		"rule about the pair": {text: luns + "copy:\n  rules: [{from: [src], to: [dst], allow: false}]\n", dst: 1,
			check: "use the token", detail: "20/02", advice: "copy.rules"},
		"rule about another initiator": {text: luns + "copy:\n  rules: [{initiators: [\"" + host + "\"], allow: false}]\n", dst: 1},
		"rule about the host": {text: luns + "copy:\n  rules: [{initiators: [\"" + host + "\"], allow: false}]\n", dst: 1, initiator: host,
			check: "create a token", detail: "20/02", advice: "copy.rules"},
		"tokens of a group": {text: luns + "tokens: {access: \"group:g\", groups: [{name: g, initiators: [\"" + host + "\"]}]}\n", dst: 1,
			check: "use the token", detail: "23/00", advice: "tokens.access"},
		"tokens of a group, by a member": {text: luns + "tokens: {access: \"group:g\", groups: [{name: g, initiators: [\"" + host + "\"]}]}\n", dst: 1, initiator: host},
		"too many tokens": {text: luns + "tokens: {max: 1, when_full: refuse}\n", dst: 1,
			prepare: func(t *testing.T, at func(lun uint16) initiator.URL) {
				examine(t, doctor.Pair{Source: at(0), Destination: at(1)})
			},
			check: "create a token", detail: "55/0D", advice: "tokens.max"},
		"source outside the store": {text: "tokens: {unmapped: refuse}\n" + luns + "      - {lun: 2, backing: \"file:BACKING\", size: 64MiB}\n", src: 2, dst: 1,
			check: "create a token", detail: "55/0C", advice: "tokens.unmapped"},
		"reserved destination": {text: luns, dst: 1,
			prepare: func(t *testing.T, at func(lun uint16) initiator.URL) { command(t, at(1), host, 0x16) },
			check:   "use the token", detail: "RESERVATION CONFLICT", advice: "reserved"},
		"source stopped by another initiator": {text: luns, dst: 1,
			prepare: func(t *testing.T, at func(lun uint16) initiator.URL) { command(t, at(0), host, 0x1B) }},
		"not let in": {text: luns + "    access: [{initiators: [\"" + host + "\"]}]\n", dst: 1,
			check: "log in", detail: "", advice: "access rules for this initiator"},
		"let in": {text: luns + "    access: [{initiators: [\"" + host + "\"]}]\n", dst: 1, initiator: host},
	} {
		t.Run(what, func(t *testing.T) {
			_, at := start(t, strings.ReplaceAll(tt.text, "BACKING", filepath.Join(t.TempDir(), "disk")))
			if tt.prepare != nil {
				tt.prepare(t, at)
			}
			var wrong []doctor.Finding
			ok, err := doctor.Examine(t.Context(), doctor.Pair{Source: at(tt.src), Destination: at(tt.dst), Initiator: tt.initiator}, func(f doctor.Finding) {
				if !f.OK {
					wrong = append(wrong, f)
				}
			})
			if err != nil || ok != (tt.check == "") || ok != (len(wrong) == 0) {
				t.Fatalf("%v, %v, %+v", ok, err, wrong)
			}
			if ok {
				return
			}
			last := wrong[len(wrong)-1]
			if !strings.HasPrefix(last.Check, tt.check) || !strings.Contains(last.Detail, tt.detail) || !strings.Contains(last.Advice, tt.advice) {
				t.Errorf("%+v", wrong)
			}
		})
	}
}

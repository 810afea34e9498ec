package conf

import (
	"errors"
	"strings"
	"testing"
)

// A LUN gets another medium, and the rest of the file stays as it is.
func TestMoveLUN(t *testing.T) {
	const before = `# disks
data_dir: /srv/odx
portals: ["127.0.0.1:3260"]
targets:
  - name: iqn.2026-11.com.example:disks
    luns:
      - {lun: 0, volume: a, size: 1GiB} # the first
      - lun: 1 # the second
        volume: b # of b
        size: 2GiB
        read_only: true
`
	id := [16]byte{0x01, 0x23, 15: 0xff}
	for _, tt := range []struct {
		name string
		edit MoveLUN
		want string // of the lines of the LUN
	}{
		{"flow", MoveLUN{Number: 0, To: Device{Volume: "c"}, Identity: id},
			`      - {lun: 0, volume: c, size: 1GiB, identity: "012300000000000000000000000000ff"} # the first`},
		{"block", MoveLUN{Number: 1, To: Device{Volume: "c"}, Identity: id}, `      - lun: 1 # the second
        volume: c # of b
        size: 2GiB
        read_only: true
        identity: "012300000000000000000000000000ff"
`},
		{"no identity", MoveLUN{Number: 0, To: Device{Volume: "c"}}, `      - {lun: 0, volume: c, size: 1GiB} # the first`},
		{"file outside", MoveLUN{Number: 0, To: Device{Backing: "/c.img"}}, `      - {lun: 0, backing: 'file:/c.img'} # the first`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.edit.Target = "iqn.2026-11.com.example:disks"
			text, err := Apply("odx.yaml", []byte(before), tt.edit)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), tt.want) || !strings.HasPrefix(string(text), "# disks\n") {
				t.Errorf("the file is\n%s", text)
			}
			back := MoveLUN{Target: tt.edit.Target, Number: tt.edit.Number, To: Device{Volume: "z"}}
			if text, err = Apply("odx.yaml", text, back); err != nil || strings.Contains(string(text), "identity") {
				t.Errorf("moved back: %v\n%s", err, text)
			}
		})
	}
	_, err := Apply("odx.yaml", []byte(before), MoveLUN{Target: "iqn.2026-11.com.example:disks", Number: 7, To: Device{Volume: "c"}})
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("a LUN that is not there: %v", err)
	}
}

// Media keep their identities apart; LUNs on one medium have the same.
func TestIdentity_Problems(t *testing.T) {
	const digits = "0123456789abcdef0123456789abcdef"
	for _, tt := range []struct{ name, a, b, want string }{
		{"same medium", "volume: v, identity: " + digits, "volume: v, identity: " + strings.ToUpper(digits), ""},
		{"two media", "volume: v, identity: " + digits, "volume: w, identity: " + digits, "LUN 0: volume w has the identity of volume v (line 6)"},
		{"one medium, two identities", "volume: v, identity: " + digits, "volume: v", "conflicting identities"},
		{"no digits", "volume: v, identity: none", "volume: v", "invalid identity"},
		{"zeros", "volume: v, identity: \"00000000000000000000000000000000\"", "volume: v", "zeros identify nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("odx.yaml", []byte(`data_dir: /srv/odx
portals: ["127.0.0.1:3260"]
targets:
  - name: iqn.2026-11.com.example:a
    luns:
      - {lun: 0, `+tt.a+`}
  - name: iqn.2026-11.com.example:b
    luns:
      - {lun: 0, `+tt.b+`}
`))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

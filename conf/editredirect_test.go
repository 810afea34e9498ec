package conf

import (
	"errors"
	"strings"
	"testing"
)

// A target redirects, elsewhere, and not any more; the rest of the file stays as it is.
func TestSetRedirect(t *testing.T) {
	const name = "iqn.2026-11.com.example:disks"
	before := `# disks
data_dir: /srv/odx
portals: ["127.0.0.1:3260"]
targets:
  - name: ` + name + ` # the first
    luns:
      - {lun: 0, volume: a, size: 1GiB}
`
	text := []byte(before)
	for _, tt := range []struct{ to, want string }{
		{"192.0.2.7:3260", "    redirect: {to: \"192.0.2.7:3260\"}\n"}, {"[2001:db8::1]:3261", "    redirect: {to: \"[2001:db8::1]:3261\"}\n"}, {"", ""},
	} {
		var err error
		if text, err = Apply("odx.yaml", text, SetRedirect{name, tt.to}); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), before) || string(text) != before+tt.want {
			t.Errorf("redirected to %q, the file is\n%s", tt.to, text)
		}
	}
	if _, err := Apply("odx.yaml", text, SetRedirect{"iqn.2026-11.com.example:none", ""}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a target that is not there: %v", err)
	}
	if _, err := Apply("odx.yaml", text, SetRedirect{name, "here"}); err == nil {
		t.Error("redirected to no address")
	}
}

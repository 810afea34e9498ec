package clients

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/conf"
	"odx/initiator"
	"odx/internal/kit/logs"
	"odx/target"
)

const document = "../../docs/conformance.md"

// row is a row of a table of the document.
type row struct {
	name, code, standard, supported string
	tests                           []string
}

// tables reads the document: each heading with its rows.
func tables(t *testing.T) map[string][]row {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	all, heading := map[string][]row{}, ""
	quoted := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(text)) {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = strings.TrimSpace(h)
		}
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 7 || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| name ") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		r := row{name: cells[1], code: cells[2], standard: cells[3], supported: cells[4]}
		for _, m := range quoted.FindAllStringSubmatch(cells[5], -1) {
			r.tests = append(r.tests, m[1])
		}
		all[heading] = append(all[heading], r)
	}
	return all
}

// no reports whether the row is about something that is not supported.
func (r row) no() bool { return r.supported == "no" || strings.HasPrefix(r.supported, "no:") }

// TestDocumentAgreesWithTarget asks a target what it supports.
func TestDocumentAgreesWithTarget(t *testing.T) {
	all := tables(t)
	s := serve(t)
	for heading, codes := range map[string][]string{
		"Commands":                 commands(t, s),
		"Vital product data pages": vpdPages(t, s),
		"Mode pages":               modePages(t, s),
		"Log pages":                logPages(t, s),
	} {
		t.Run(heading, func(t *testing.T) {
			if len(codes) == 0 {
				t.Fatal("the target knows none")
			}
			said := map[string]bool{}
			for _, r := range all[heading] {
				if said[r.code] {
					t.Errorf("%s (%s) has two rows", r.name, r.code)
				}
				said[r.code] = true
				if supported := slices.Contains(codes, r.code); supported == r.no() {
					t.Errorf("%s (%s): supported %v, and the document says %q", r.name, r.code, supported, r.supported)
				}
			}
			for _, code := range codes {
				if !said[code] {
					t.Errorf("%s is supported and has no row", code)
				}
			}
		})
	}
}

// TestNamedTestsExist looks for every test that the document names.
func TestNamedTestsExist(t *testing.T) {
	known := goTests(t)
	for heading, rows := range tables(t) {
		for _, r := range rows {
			if len(r.tests) == 0 && !r.no() {
				t.Errorf("%s: %s (%s) is tested by nothing", heading, r.name, r.code)
			}
			if r.standard == "" || r.supported == "" {
				t.Errorf("%s: %s (%s) lacks a section or a word on support", heading, r.name, r.code)
			}
			for _, name := range r.tests {
				suite, ok := strings.CutPrefix(name, "iscsi-test-cu ")
				if ok && !slices.Contains(Names, suite) || !ok && !known[name] {
					t.Errorf("%s: %s names the test %s, which does not exist", heading, r.name, name)
				}
			}
		}
	}
}

// goTests are the names of all tests and fuzz targets, as package.Name.
func goTests(t *testing.T) map[string]bool {
	t.Helper()
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	known := map[string]bool{}
	for _, root := range []string{"../../target", "../../backstore", "../../test"} {
		err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range function.FindAllSubmatch(text, -1) {
				known[filepath.Base(filepath.Dir(path))+"."+string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return known
}

// serve starts a target and logs in to a LUN of its store.
func serve(t *testing.T) *initiator.Session {
	t.Helper()
	cfg, err := conf.Parse(filepath.Join(t.TempDir(), "odx.yaml"), []byte(`
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: a, size: 64MiB}
`))
	if err != nil {
		t.Fatal(err)
	}
	service, err := target.Start(t.Context(), cfg, logs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	url, err := initiator.ParseURL(service.LUNs()[0].URLs[0])
	if err != nil {
		t.Fatal(err)
	}
	s, err := initiator.Dial(t.Context(), initiator.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	// Unit attentions come before anything else.
	ready := &initiator.Command{CDB: make([]byte, 6)}
	for end := time.Now().Add(10 * time.Second); s.Do(t.Context(), ready) != nil; {
		if time.Now().After(end) {
			t.Fatal("the logical unit is not ready")
		}
	}
	return s
}

// ask runs a command that must succeed and returns its Data-In.
func ask(t *testing.T, s *initiator.Session, cdb ...byte) []byte {
	t.Helper()
	c := &initiator.Command{CDB: cdb, In: make([]byte, 0xFFFF)}
	if err := s.Do(t.Context(), c); err != nil {
		t.Fatalf("% x: %v", cdb, err)
	}
	return c.In[:c.Received]
}

// commands are those of REPORT SUPPORTED OPERATION CODES (SPC-4 r37 6.35.2).
func commands(t *testing.T, s *initiator.Session) []string {
	d := ask(t, s, 0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0)
	codes := map[string]bool{}
	for d = d[4:]; len(d) >= 8; d = d[8:] {
		code := fmt.Sprintf("%02Xh", d[0])
		if servactv := d[5]&0x01 != 0; servactv {
			code += fmt.Sprintf("/%02Xh", binary.BigEndian.Uint16(d[2:]))
		}
		codes[code] = true
	}
	return slices.Sorted(maps.Keys(codes))
}

// vpdPages are those of VPD page 00h.
func vpdPages(t *testing.T, s *initiator.Session) []string {
	var codes []string
	for _, page := range ask(t, s, 0x12, 0x01, 0x00, 0xFF, 0xFF, 0)[4:] {
		codes = append(codes, fmt.Sprintf("%02Xh", page))
	}
	return codes
}

// modePages are those of MODE SENSE(10) for all pages and subpages (SPC-4 r37
// 7.5.7).
func modePages(t *testing.T, s *initiator.Session) []string {
	d := ask(t, s, 0x5A, 0x08, 0x3F, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0)
	var codes []string
	for d = d[8+binary.BigEndian.Uint16(d[6:]):]; len(d) > 2; {
		if subpage := d[0]&0x40 != 0; subpage {
			codes = append(codes, fmt.Sprintf("%02Xh/%02Xh", d[0]&0x3F, d[1]))
			d = d[4+binary.BigEndian.Uint16(d[2:]):]
			continue
		}
		codes = append(codes, fmt.Sprintf("%02Xh", d[0]&0x3F))
		d = d[2+int(d[1]):]
	}
	return codes
}

// logPages are those of the log page 00h/FFh.
func logPages(t *testing.T, s *initiator.Session) []string {
	d := ask(t, s, 0x4D, 0, 0x40, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0)
	var codes []string
	for d = d[4:]; len(d) >= 2; d = d[2:] {
		code := fmt.Sprintf("%02Xh", d[0]&0x3F)
		if d[1] != 0 {
			code += fmt.Sprintf("/%02Xh", d[1])
		}
		codes = append(codes, code)
	}
	return codes
}

package target

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"odx/conf"
	client "odx/initiator"
	"odx/internal/kit/logs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disks is a configuration with a portal for every format verb of portals.
const disks = `
data_dir: data
portals: [%s]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 64MiB}
      - {lun: 1, volume: dst, size: 64MiB, block_size: 4096}
`

// parse reads text as the configuration in dir.
func parse(t *testing.T, dir, text string) *conf.Config {
	t.Helper()
	cfg, err := conf.Parse(filepath.Join(dir, "odx.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// start starts a service that ends with the test.
func start(t *testing.T, cfg *conf.Config) *Service {
	t.Helper()
	return startWith(t, cfg, logs.Discard())
}

// startLogging is start with what the service logs.
func startLogging(t *testing.T, cfg *conf.Config) (*Service, *logs.Text) {
	t.Helper()
	text := new(logs.Text)
	return startWith(t, cfg, text.Entry()), text
}

func startWith(t *testing.T, cfg *conf.Config, log *logrus.Entry) *Service {
	t.Helper()
	s, err := Start(t.Context(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Service) {
	t.Helper()
	if err := s.Stop(context.Background()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// refused starts cfg, which has to fail with these words after the name of the
// configuration file.
func refused(t *testing.T, cfg *conf.Config, words string) {
	t.Helper()
	s, err := Start(t.Context(), cfg, logs.Discard())
	if err == nil {
		stop(t, s)
		t.Fatalf("started; want an error: %s", words)
	}
	if want := cfg.File + words; err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// problems returns the LUNs that are not served, with the reasons.
func problems(s *Service) (list []string) {
	for _, l := range s.LUNs() {
		if l.Problem != "" {
			list = append(list, fmt.Sprintf("%d %s", l.Number, l.Problem))
		}
	}
	return list
}

// login logs in to a LUN.
func login(t *testing.T, s *Service, lun int) *client.Disk {
	t.Helper()
	d, err := client.Open(t.Context(), client.Options{
		InitiatorName: "iqn.2026-11.example:host",
		URL:           client.URL{Address: s.Portals()[0], Target: "iqn.2026-11.example.odx:disks", LUN: uint16(lun)},
	})
	if err != nil {
		t.Fatalf("LUN %d: %v", lun, err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func random(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	p := make([]byte, n)
	r.Read(p)
	return p
}

func read(t *testing.T, d *client.Disk, off int64, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	if err := d.ReadAt(t.Context(), p, off); err != nil {
		t.Fatal(err)
	}
	return p
}

// session logs in to LUN 0 of s and takes the unit attentions.
func session(t *testing.T, s *Service, name string) *client.Session {
	t.Helper()
	c := dial(t, s.LUNs()[0].URLs[0], name)
	attentions(t, c)
	return c
}

// dial logs in by a URL that a service reports. The caller closes the session.
func dial(t *testing.T, url, name string) *client.Session {
	t.Helper()
	c, err := tryDial(t, url, name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tryDial is dial for a login that may be refused.
func tryDial(t *testing.T, url, name string) (*client.Session, error) {
	t.Helper()
	u, err := client.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return client.Dial(t.Context(), client.Options{InitiatorName: name, URL: u})
}

// attentions takes the unit attentions of a session and returns them as ASC and ASCQ.
func attentions(t *testing.T, c *client.Session) (all []uint16) {
	t.Helper()
	for {
		err := run(t, c, make([]byte, 6), nil)
		var sense *client.SenseError
		switch {
		case errors.As(err, &sense) && sense.Key == client.KeyUnitAttention:
			all = append(all, uint16(sense.ASC))
		case sense == nil && err != nil:
			t.Fatal(err)
		default: // GOOD, or the logical unit is not ready by this port
			return all
		}
	}
}

func run(t *testing.T, c *client.Session, cdb, out []byte) error {
	return c.Do(t.Context(), &client.Command{CDB: cdb, Out: out, In: make([]byte, (1-min(len(out), 1))*512)})
}

// portGroups returns the parameter data of REPORT TARGET PORT GROUPS.
func portGroups(t *testing.T, c *client.Session) []byte {
	t.Helper()
	report := &client.Command{CDB: []byte{0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, In: make([]byte, 256)}
	if err := c.Do(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	return report.In[:report.Received]
}

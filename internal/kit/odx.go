package kit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// IQN is the name of the target that StartODX configures.
const IQN = "iqn.2026-11.example.odx:test"

// BinaryEnv names an environment variable with the path of an odx binary to
// use instead of building one (for example one built with -race).
const BinaryEnv = "ODX_BINARY"

// StartODX starts `odx serve` on a free port of 127.0.0.1 with the given LUNs and its
// store under dir. The volume of entry i of luns, if it names no file, is "vol<i>". The
// caller stops it.
func StartODX(ctx context.Context, dir string, luns []LUN) (*Target, error) {
	return StartODXWith(ctx, dir, luns, Settings{})
}

// Settings are keys of the configuration in addition to those that StartODX writes: of
// the target, and of the file; and portals, host:port, in addition to its own.
type Settings struct {
	Target, File map[string]any
	Portals      []string
	// Standby has a second process wait while one serves; it is the one that Restart
	// gives.
	Standby bool
	// On is the machine that it runs on; nil: this one.
	On *Machine
	// Ahead is how far its clock is ahead of that of this machine: see BinaryAhead.
	Ahead time.Duration
}

// Machine is where a target runs, if not in the network of the test.
type Machine struct {
	Address string // its IP address for the test
	// Line returns the command line that runs a program there.
	Line func(program string, args ...string) []string
}

// StartODXWith is StartODX with more in the configuration.
func StartODXWith(ctx context.Context, dir string, luns []LUN, more Settings) (*Target, error) {
	binary, err := Binary()
	if more.Ahead != 0 {
		binary, err = BinaryAhead(more.Ahead)
	}
	if err != nil {
		return nil, err
	}
	t := &Target{Kind: "odx", IQN: IQN, Dir: dir, LUNs: luns, stopBy: syscall.SIGTERM, handed: make(chan struct{}, 1), machine: more.On}
	t.start = func(ctx context.Context, t *Target) (*process, error) {
		if err := os.WriteFile(t.ConfigFile(), t.config(more), 0o644); err != nil {
			return nil, err
		}
		p, err := t.next(binary)
		if err != nil {
			return nil, err
		}
		err = p.waitFor(ctx, p.ready)
		if err == nil && more.Standby {
			err = t.await(ctx, binary)
		}
		if err != nil {
			p.cmd.Process.Kill()
			return nil, err
		}
		return p.process, nil
	}
	return launch(ctx, t)
}

// ConfigFile is the YAML file that an odx target was started with.
func (t *Target) ConfigFile() string { return filepath.Join(t.Dir, "odx.yaml") }

func (t *Target) config(more Settings) []byte {
	type lun struct {
		LUN       int    `yaml:"lun"`
		Volume    string `yaml:"volume,omitempty"`
		File      string `yaml:"file,omitempty"`
		Size      string `yaml:"size,omitempty"`
		BlockSize int    `yaml:"block_size,omitempty"`
		ReadOnly  bool   `yaml:"read_only,omitempty"`

		QoS map[string]int `yaml:"qos,omitempty"`
	}
	var list []lun
	for i, l := range t.LUNs {
		unit := lun{LUN: i, File: l.File, BlockSize: l.BlockSize, ReadOnly: l.ReadOnly}
		if l.File == "" {
			unit.Volume = fmt.Sprintf("vol%d", i)
		}
		if l.IOPS != 0 {
			unit.QoS = map[string]int{"iops": l.IOPS}
		}
		if l.Size != 0 {
			unit.Size = fmt.Sprintf("%dKiB", l.Size>>10)
		}
		list = append(list, unit)
	}
	disks := map[string]any{"name": t.IQN, "luns": list}
	maps.Copy(disks, more.Target)
	file := map[string]any{
		"data_dir": filepath.Join(t.Dir, "data"),
		"portals":  append([]string{t.Portal}, more.Portals...),
		"targets":  []any{disks},
		"log":      map[string]string{"level": "info", "format": "text"},
	}
	maps.Copy(file, more.File)
	b, err := yaml.Marshal(file)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return b
}

// Binary builds the odx command, unless it is up to date, and returns its path.
var Binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(BinaryEnv); path != "" {
		return path, nil
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	// Another checkout has another binary.
	sum := sha256.Sum256([]byte(root))
	dir, err := CacheDir("bin-" + hex.EncodeToString(sum[:8]))
	if err != nil {
		return "", err
	}
	// Test binaries of several packages build one after the other: what is up to date is
	// not linked again.
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	path := filepath.Join(dir, "odx")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", path, "./cmd/odx")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as scripts/build does, for the same packages in Go's cache
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/odx: %w\n%s", err, out)
	}
	return path, nil
})

// ModuleRoot is the directory that holds go.mod, whatever the working directory is.
func ModuleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "odx").Output()
	if err != nil {
		return "", fmt.Errorf("find the module's directory: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// CacheDir makes and returns a directory that keeps what is expensive to make
// from run to run (binaries, the Linux guest).
func CacheDir(name string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "odx-test", name)
	return dir, os.MkdirAll(dir, 0o755)
}

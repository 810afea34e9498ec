//go:build e2e

package guest

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/guest"
	"odx/internal/kit/harness"
	"odx/internal/kit/proxy"
)

var (
	//go:embed initiator.sh
	initiatorScript string
	//go:embed filesystems.sh
	fileSystemsScript string
	//go:embed copies.sh
	copiesScript string
	//go:embed sgtools.sh
	sgToolsScript string
	//go:embed multipath.sh
	multipathScript string
	//go:embed alua.sh
	aluaScript string
)

// scriptLimit is how long a script may take.
const scriptLimit = 5 * time.Minute

func build(t *testing.T) *guest.Image {
	t.Helper()
	harness.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	harness.Program(t, "apt-get", "apt")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	image, err := guest.Build(ctx)
	if err != nil {
		harness.Missing(t, err.Error())
	}
	return image
}

// TestGuest boots the guest and checks that it hands back what a script does.
func TestGuest(t *testing.T) {
	image := build(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r, err := image.Run(ctx, "uname -s\nexit 7\n", guest.Setup{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != 7 || r.Output != "Linux\n" {
		t.Errorf("exit status %d, output %q", r.Status, r.Output)
	}
}

// TestLinuxInitiator uses two LUNs with the kernel's initiator and the tools
// that administrators have.
func TestLinuxInitiator(t *testing.T) {
	t.Parallel() // a guest seldom uses more than one processor
	target := harness.Serve(t, kit.LUN{Size: 128 << 20}, kit.LUN{Size: 128 << 20})
	tokens := "yes"
	if os.Getenv(harness.TargetEnv) == "tgtd" {
		tokens = ""
	}
	runScript(t, fmt.Sprintf("PORTAL=10.0.2.2:%d IQN=%s FIRST=%d TOKENS=%s\n%s",
		target.Port(), target.IQN, target.LUN(0), tokens, initiatorScript), guest.Setup{})
}

// TestFileSystems makes, uses and checks the usual file systems on LUNs of
// both block lengths, and watches the space that they take and give back.
func TestFileSystems(t *testing.T) {
	t.Parallel() // a guest seldom uses more than one processor
	harness.RequireODX(t)
	target := harness.Serve(t, kit.LUN{Size: 512 << 20}, kit.LUN{Size: 512 << 20, BlockSize: 4096})
	ctx, cancel := context.WithTimeout(t.Context(), scriptLimit)
	defer cancel()
	runScript(t, fmt.Sprintf("PORTAL=10.0.2.2:%d IQN=%s\n%s", target.Port(), target.IQN, fileSystemsScript), guest.Setup{
		With: []guest.Layer{guest.Disks},
		Answer: func(string) (string, error) {
			space, err := target.Space(ctx)
			return strconv.FormatInt(space.Live, 10), err
		},
	})
}

// TestSGTools has sg3_utils send and decode most of what the target knows.
func TestSGTools(t *testing.T) {
	t.Parallel() // a guest seldom uses more than one processor
	harness.RequireODX(t)
	target := harness.Serve(t, kit.LUN{Size: 64 << 20}, kit.LUN{Size: 64 << 20, BlockSize: 4096})
	runScript(t, fmt.Sprintf("PORTAL=10.0.2.2:%d IQN=%s\n%s", target.Port(), target.IQN, sgToolsScript), guest.Setup{With: []guest.Layer{guest.Disks}})
}

// TestThirdPartyCopy copies between LUNs by the tools of sg3_utils and ddpt.
func TestThirdPartyCopy(t *testing.T) {
	t.Parallel() // a guest seldom uses more than one processor
	harness.RequireODX(t)
	target := harness.Serve(t, kit.LUN{Size: 128 << 20}, kit.LUN{Size: 128 << 20})
	runScript(t, fmt.Sprintf("PORTAL=10.0.2.2:%d IQN=%s\n%s", target.Port(), target.IQN, copiesScript), guest.Setup{With: []guest.Layer{guest.Disks}})
}

// TestMultipath takes the path to one portal after the other away from under
// fio, which verifies what it writes and must see no error.
func TestMultipath(t *testing.T) {
	second, err := kit.FreePortal()
	if err != nil {
		t.Fatal(err)
	}
	target := harness.ServeWith(t, kit.Settings{Portals: []string{second}}, kit.LUN{Size: 64 << 20})
	runOverPaths(t, target, second, multipathScript, guest.Disks, guest.Fio)
}

// TestALUA takes paths of different states away from under multipath, whose handler
// would set them itself where it may: they stay as the target's configuration has them.
func TestALUA(t *testing.T) {
	second, err := kit.FreePortal()
	if err != nil {
		t.Fatal(err)
	}
	target := harness.ServeWith(t, kit.Settings{Portals: []string{second + ",2"}, Target: map[string]any{
		"paths": []any{map[string]any{"portal_group": 2, "state": "nonoptimized"}}}}, kit.LUN{Size: 64 << 20})
	runOverPaths(t, target, second, aluaScript, guest.Disks)
}

// runOverPaths runs a script that has a path to each of two portals, as ports A and B
// of the host, and that can ask for a path to be cut and mended.
func runOverPaths(t *testing.T, target *kit.Target, second, script string, with ...guest.Layer) {
	t.Helper()
	paths := map[string]*proxy.Proxy{"a": harness.Proxy(t, target.Portal, 0), "b": harness.Proxy(t, second, 0)}
	runScript(t, fmt.Sprintf("A=%d B=%d IQN=%s\n%s", paths["a"].Port(), paths["b"].Port(), target.IQN, script), guest.Setup{
		With: with,
		Answer: func(question string) (string, error) {
			what, path, _ := strings.Cut(question, " ")
			if what == "mend" {
				return "", paths[path].Mend()
			}
			paths[path].Cut()
			return "", nil
		},
	})
}

// runScript runs a script that must end well.
func runScript(t *testing.T, script string, s guest.Setup) {
	t.Helper()
	image := build(t)
	// Handovers and reloads that a flag asks for take longer than those of the default.
	ctx, cancel := context.WithTimeout(t.Context(), scriptLimit+time.Duration(*handovers)*10*time.Second+time.Duration(*rounds)*5*time.Second)
	defer cancel()
	r, err := image.Run(ctx, script, s)
	t.Log(r.Output)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != 0 {
		t.Errorf("the script ended with exit status %d", r.Status)
	}
}

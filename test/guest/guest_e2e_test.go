//go:build e2e

package guest

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"testing"
	"time"

	"odx/test/odxtest"
	"odx/test/undertest"
)

//go:embed initiator.sh
var initiatorScript string

func build(t *testing.T) *Image {
	t.Helper()
	odxtest.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	odxtest.Program(t, "apt-get", "apt")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	image, err := Build(ctx)
	if err != nil {
		odxtest.Missing(t, err.Error())
	}
	return image
}

// TestGuest boots the guest and checks that it hands back what a script does.
func TestGuest(t *testing.T) {
	image := build(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r, err := image.Run(ctx, "uname -s\nexit 7\n", Setup{})
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
	image := build(t)
	target := odxtest.Serve(t, undertest.LUN{Size: 128 << 20}, undertest.LUN{Size: 128 << 20})
	tokens := "yes"
	if os.Getenv(odxtest.TargetEnv) == "tgtd" {
		tokens = ""
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	r, err := image.Run(ctx, fmt.Sprintf("PORTAL=10.0.2.2:%d IQN=%s FIRST=%d TOKENS=%s\n%s",
		target.Port(), target.IQN, target.LUN(0), tokens, initiatorScript), Setup{})
	t.Log(r.Output)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != 0 {
		t.Errorf("the script ended with exit status %d", r.Status)
	}
}

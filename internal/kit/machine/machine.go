// Package machine boots a Debian system with systemd in qemu's software emulation, as it is
// after an installation: packages are installed in it, services started, and it reboots.
// Package guest boots quicker, without systemd.
package machine

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"odx/internal/kit"
)

//go:embed image.sh
var imageScript string

// Image is a kernel, its first root file system, and a disk with Debian.
type Image struct{ dir string }

// Build makes the image, or finds the one made before. It needs mmdebstrap, fakeroot and
// the network.
func Build(ctx context.Context) (*Image, error) {
	suite, mirror := kit.Debian(ctx)
	sum := sha256.Sum256([]byte(imageScript + suite + mirror))
	dir, err := kit.CacheDir("machine-" + hex.EncodeToString(sum[:8]))
	if err != nil {
		return nil, err
	}
	image := &Image{filepath.Join(dir, "image")}
	if _, err := os.Stat(image.dir); err == nil {
		return image, nil
	}
	work, err := os.MkdirTemp(dir, "work")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	cmd := exec.CommandContext(ctx, "sh", "-c", imageScript)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "SUITE="+suite, "MIRROR="+mirror, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // mmdebstrap cleans up
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make a Debian system with mmdebstrap %s %s: %w\n%s", suite, mirror, err, out)
	}
	// Of two that build at once the first wins.
	if err := os.Rename(work, image.dir); err != nil {
		if _, statErr := os.Stat(image.dir); statErr != nil {
			return nil, err
		}
	}
	return image, nil
}

// Run boots the image, and has each boot run the file "script" of dir, in which every file
// of dir is. It returns the output of all boots when the machine is off, or when ctx ends,
// with an error then; the console of the kernel, too. What the machine writes is dropped.
func (i *Image) Run(ctx context.Context, dir string) (output, console string, err error) {
	work, err := os.MkdirTemp("", "machine")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(work)
	payload, serial := filepath.Join(work, "payload.tar"), filepath.Join(work, "console")
	if out, err := exec.CommandContext(ctx, "tar", "-C", dir, "-cf", payload, ".").CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("tar: %w: %s", err, out)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", i.arguments(payload, serial)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	text, _ := os.ReadFile(serial) // only for who reads of a failure
	return strings.ReplaceAll(out.String(), "\r", ""), string(text), err
}

func (i *Image) arguments(payload, serial string) []string {
	return []string{
		// A CPU without the instructions whose modules load slowly.
		"-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64,-svm", "-M", "q35", "-smp", "2", "-m", "1024",
		"-nodefaults", "-no-user-config", "-display", "none",
		"-kernel", filepath.Join(i.dir, "vmlinuz"), "-initrd", filepath.Join(i.dir, "initrd"),
		"-append", "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 cryptomgr.notests panic=-1 mitigations=off nokaslr net.ifnames=0 random.trust_cpu=on tsc=reliable",
		"-serial", "file:" + serial,
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=out,signal=off", "-device", "virtconsole,chardev=out",
		// Writes go to a temporary file, which stays over reboots.
		"-drive", "if=virtio,format=raw,snapshot=on,file=" + filepath.Join(i.dir, "disk.raw"),
		"-drive", "if=virtio,format=raw,readonly=on,file=" + payload,
	}
}

//go:build e2e

package packages

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// user is that of the Dockerfile.
const user = 65532

// TestContainer builds the image of the Dockerfile, whose first stage is a directory with
// what that makes: no registry is asked for its base. A container of it, without root,
// capabilities, or anything to write but /data, serves.
func TestContainer(t *testing.T) {
	t.Parallel()
	buildah, runc := harness.Program(t, "buildah", "buildah"), harness.Program(t, "runc", "runc")
	if os.Getuid() != 0 {
		harness.Missing(t, "building and running containers here needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	root, err := kit.ModuleRoot()
	harness.Must(t, err)
	dir := t.TempDir()
	harness.Must(t, os.Chmod(filepath.Dir(dir), 0o755)) // the container's user passes
	harness.Must(t, os.Chmod(dir, 0o755))

	built := filepath.Join(dir, "build")
	harness.Must(t, os.MkdirAll(filepath.Join(built, "out", "data"), 0o755))
	harness.Must(t, os.MkdirAll(filepath.Join(built, "src", "conf", "examples"), 0o755))
	harness.Run(ctx, t, "dpkg-deb", "--extract", packageOf(t, ".deb"), filepath.Join(dir, "deb"))
	harness.Must(t, os.Rename(filepath.Join(dir, "deb", "usr", "bin", "odx"), filepath.Join(built, "out", "odx")))
	harness.Run(ctx, t, "cp", filepath.Join(root, "conf/examples/container.yaml"), filepath.Join(built, "src/conf/examples"))

	store := []string{"--root", filepath.Join(dir, "images"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
	run := func(args ...string) string {
		return strings.TrimSpace(harness.Run(ctx, t, buildah, append(store[:len(store):len(store)], args...)...))
	}
	run("bud", "--isolation", "chroot", "--build-context", "build="+built, "--file", filepath.Join(root, "Dockerfile"), "--tag", "odx", built)
	var image struct{ OCIv1 struct{ Config imageConfig } }
	harness.Must(t, json.Unmarshal([]byte(run("inspect", "--type", "image", "odx")), &image))
	config := image.OCIv1.Config
	if config.User != fmt.Sprintf("%d:%d", user, user) || config.StopSignal != "SIGTERM" || config.Volumes["/data"] == nil {
		t.Fatalf("the image has %+v", config)
	}
	rootfs := run("mount", run("from", "odx"))

	// A new volume begins with what the image has there.
	data := filepath.Join(dir, "data")
	harness.Run(ctx, t, "cp", "-a", filepath.Join(rootfs, "data"), data)
	portal, err := kit.FreePortal()
	harness.Must(t, err)
	yaml := filepath.Join(data, "odx.yaml")
	text, err := os.ReadFile(yaml)
	harness.Must(t, err)
	harness.Must(t, os.WriteFile(yaml, bytes.ReplaceAll(text, []byte("0.0.0.0:3260"), []byte(portal)), 0o644))

	bundle := filepath.Join(dir, "bundle")
	harness.Must(t, os.Mkdir(bundle, 0o755))
	spec, err := json.Marshal(runtimeSpec(rootfs, data, append(config.Entrypoint, config.Cmd...)))
	harness.Must(t, err)
	harness.Must(t, os.WriteFile(filepath.Join(bundle, "config.json"), spec, 0o644))
	name := fmt.Sprintf("odx-test-%d", os.Getpid())
	state := []string{"--root", filepath.Join(dir, "runc")}
	var log bytes.Buffer
	container := exec.CommandContext(ctx, runc, append(state, "run", "--bundle", bundle, name)...)
	container.Stdout, container.Stderr = &log, &log
	harness.Must(t, container.Start())
	ended := make(chan error, 1)
	go func() { ended <- container.Wait() }()
	defer exec.Command(runc, append(state, "delete", "--force", name)...).Run()

	iscsiLs := harness.Program(t, "iscsi-ls", "libiscsi-bin")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for listed := false; !listed; {
		select {
		case err := <-ended:
			t.Fatalf("the container has ended: %v\n%s", err, log.String())
		case <-tick.C:
		}
		out, err := exec.CommandContext(ctx, iscsiLs, "-s", "iscsi://"+portal).CombinedOutput()
		listed = err == nil && strings.Count(string(out), "Lun:") == 2
	}
	harness.Run(ctx, t, runc, append(state, "exec", name, "/odx", "status", "--ready", "--config", "/data/odx.yaml")...)
	harness.Run(ctx, t, runc, append(state, "kill", name, config.StopSignal)...)
	if err := <-ended; err != nil {
		t.Errorf("after %s: %v\n%s", config.StopSignal, err, log.String())
	}
}

// imageConfig is what the image says of its containers.
type imageConfig struct {
	User            string
	Entrypoint, Cmd []string
	Volumes         map[string]any
	StopSignal      string
}

// runtimeSpec is a container as docker run --read-only --cap-drop ALL --network host makes
// one (OCI runtime specification).
func runtimeSpec(rootfs, data string, args []string) map[string]any {
	type object = map[string]any
	return object{
		"ociVersion": "1.0.2",
		"process": object{"user": object{"uid": user, "gid": user}, "args": args, "cwd": "/", "env": []string{"PATH=/"},
			"noNewPrivileges": true, "capabilities": object{}},
		"root": object{"path": rootfs, "readonly": true},
		"mounts": []object{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/data", "type": "bind", "source": data, "options": []string{"bind", "rw"}},
		},
		"linux": object{"namespaces": []object{{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}}},
	}
}

//go:build e2e

package copies

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

var incrementals = flag.Int("incrementals", 3, "how many incremental streams TestIncrementals sends")

// store is a directory with a configuration, and a store that is served or not.
type store struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

const storeConfig = `# two disks
data_dir: store
portals: ["PORTAL"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: data, size: 24MiB}  # the one that matters
      - {lun: 1, volume: more, size: 8MiB}
`

// path is the PATH with odx.
func path(t *testing.T) string {
	t.Helper()
	binary, err := kit.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(dir, "odx")); err != nil {
		t.Fatal(err)
	}
	return dir + ":" + os.Getenv("PATH")
}

func aStore(t *testing.T, config string) *store {
	t.Helper()
	s := &store{t: t, dir: t.TempDir()}
	if config != "" {
		portal, err := kit.FreePortal()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, "odx.yaml"), []byte(strings.Replace(config, "PORTAL", portal, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// run runs a script in the directory, and returns what it prints.
func (s *store) run(path, script string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), "PATH="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// serve serves the store until stop, and returns the URL of its first LUN.
func (s *store) serve(path string) (url string) {
	s.t.Helper()
	s.cmd = exec.CommandContext(context.WithoutCancel(s.t.Context()), "bash", "-c", "exec odx serve >serve.out 2>serve.log")
	s.cmd.Dir, s.cmd.Env = s.dir, append(os.Environ(), "PATH="+path)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.stop)
	first := regexp.MustCompile(`iscsi://\S+/0\b`)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		out, _ := os.ReadFile(filepath.Join(s.dir, "serve.out"))
		if url = first.FindString(string(out)); url != "" {
			return url
		}
	}
	log, _ := os.ReadFile(filepath.Join(s.dir, "serve.log"))
	s.t.Fatalf("not served: %s", log)
	return ""
}

func (s *store) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(os.Interrupt)
	_ = s.cmd.Wait()
	s.cmd = nil
}

// commands returns the blocks of shell commands below a heading of docs/backup.md.
func commands(t *testing.T, heading string) (blocks []string) {
	t.Helper()
	root, err := kit.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "backup.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/backup.md has no heading %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1) {
		blocks = append(blocks, m[1])
	}
	if blocks == nil {
		t.Fatalf("no commands below %q", heading)
	}
	return blocks
}

// TestBackupGuide does what docs/backup.md says: a store is backed up while it is served,
// changed, and backed up again; another machine restores it, and an initiator finds the same
// disk with the same content and the same serial number.
func TestBackupGuide(t *testing.T) {
	harness.Program(t, "qemu-img", "qemu-utils")
	harness.Program(t, "iscsi-inq", "libiscsi-bin")
	harness.Program(t, "age-keygen", "age")
	odx, backups := path(t), t.TempDir()
	here := func(script string) string { return strings.ReplaceAll(script, "/srv/", backups+"/") }
	a := aStore(t, storeConfig)
	urlA := a.serve(odx)
	a.run(odx, "head -c 20000000 /dev/urandom >r && odx copy --force ./r data && odx file put r images/r.raw")
	a.run(odx, "odx store backup "+backups+"/backup")
	a.run(odx, "odx volume snapshot data before && head -c 3000000 /dev/urandom >r && odx copy --force ./r data && sleep 1")
	for _, block := range commands(t, "Make a backup") {
		a.run(odx, here(block))
	}

	b := aStore(t, "")
	for _, block := range commands(t, "Restore") {
		b.run(odx, here(block))
	}
	config, err := os.ReadFile(filepath.Join(b.dir, "odx.yaml"))
	if err != nil || !strings.Contains(string(config), "# the one that matters") || !strings.Contains(string(config), "identity:") {
		t.Errorf("the restored configuration: %v\n%s", err, config)
	}
	portal, err := kit.FreePortal()
	if err != nil {
		t.Fatal(err)
	}
	b.run(odx, `sed -i 's/portals: .*/portals: ["`+portal+`"]/' odx.yaml`)
	urlB := b.serve(odx)
	for lun := range 2 {
		u, v := strings.TrimSuffix(urlA, "0")+fmt.Sprint(lun), strings.TrimSuffix(urlB, "0")+fmt.Sprint(lun)
		a.run(odx, "qemu-img compare -f raw -F raw "+u+" "+v)
		serial := "iscsi-inq -e 1 -c 128 "
		if x, y := a.run(odx, serial+u), a.run(odx, serial+v); x != y || !strings.Contains(x, "Serial") {
			t.Errorf("LUN %d has the serial number\n%s, had\n%s", lun, y, x)
		}
	}
	for _, name := range []string{"before", "file:images/r.raw"} {
		a.run(odx, "rm -f x && odx copy --raw "+name+" ./x")
		b.run(odx, "rm -f x && odx copy --raw "+name+" ./x && cmp x "+a.dir+"/x")
	}
	if out := b.run(odx, "odx store check"); !strings.Contains(out, "is sound") {
		t.Error(out)
	}
	for _, block := range commands(t, "Single snapshots") {
		b.run(odx, block)
	}
	b.run(odx, "odx copy data ./d && odx copy data-of-monday ./m && qemu-img compare -f raw -F raw d m")
}

// TestIncrementals sends the changes of a random history from one store to another, one
// stream after the other; after each, qemu-img finds no difference, and in the end both
// stores are sound. A stream has what changed and 2 % at most.
func TestIncrementals(t *testing.T) {
	harness.Program(t, "qemu-img", "qemu-utils")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	odx := path(t)
	a, b := aStore(t, storeConfig), aStore(t, strings.ReplaceAll(storeConfig, "volume: data", "volume: own"))
	a.serve(odx)
	b.serve(odx)
	a.run(odx, "head -c 20000000 /dev/urandom >r && odx copy --force ./r data && odx volume snapshot data s0")
	a.run(odx, "odx send s0 -o s.odx && rm r")
	b.run(odx, "odx receive data -f "+a.dir+"/s.odx")
	for i := 1; i <= *incrementals; i++ {
		changed := 0
		var script strings.Builder
		script.WriteString("rm -f d s.odx; odx copy data ./d\n")
		for range 1 + rnd.IntN(20) {
			n := 1 + rnd.IntN(60)
			at := rnd.IntN(24<<20/4096 - n)
			from := "urandom"
			if rnd.IntN(4) == 0 {
				from = "zero"
			} else {
				changed += n * 4096 // at most: ranges can overlap
			}
			fmt.Fprintf(&script, "dd if=/dev/%s of=d bs=4096 seek=%d count=%d conv=notrunc status=none\n", from, at, n)
		}
		fmt.Fprintf(&script, "odx copy --force ./d data && odx volume snapshot data s%d && odx send --compress none -i s%d s%[1]d -o s.odx\n", i, i-1)
		a.run(odx, script.String())
		info, err := os.Stat(filepath.Join(a.dir, "s.odx"))
		if err != nil {
			t.Fatal(err)
		}
		if most := int64(changed)*102/100 + 2048; info.Size() > most {
			t.Errorf("%d: a stream of %d bytes, for at most %d changed ones", i, info.Size(), changed)
		}
		b.run(odx, "odx receive data -f "+a.dir+"/s.odx && rm -f x y && odx copy data ./x && odx copy s"+fmt.Sprint(i)+" ./y")
		a.run(odx, "qemu-img compare -f raw -F raw d "+b.dir+"/x && qemu-img compare -f raw -F raw d "+b.dir+"/y")
		if rnd.IntN(5) == 0 {
			b.stop()
			b.serve(odx)
		}
	}
	for _, s := range []*store{a, b} {
		if out := s.run(odx, "odx store check"); !strings.Contains(out, "is sound") {
			t.Error(out)
		}
	}
}

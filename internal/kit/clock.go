package kit

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// building is held while an odx with another clock is built.
var building sync.Mutex

// BinaryAhead builds the odx command with a clock that is ahead of that of the machine, and
// returns its path. Go asks the kernel for the time without a system call, so neither a
// preloaded library nor a namespace can give a process another clock: the function of Go's
// library that reads it is replaced when odx is linked. Only package time is compiled for
// that. Go's own build would compile all that imports it, which is everything, although what
// it exports is the same; the linker makes sure that it is.
func BinaryAhead(ahead time.Duration) (path string, err error) {
	building.Lock()
	defer building.Unlock()
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	dir, err := CacheDir("ahead-" + strings.ReplaceAll(runtime.Version()+"-"+ahead.String(), " ", "-"))
	if err != nil {
		return "", err
	}
	overlay, err := clockOverlay(dir, ahead)
	if err != nil {
		return "", err
	}
	goTool := func(args ...string) (string, error) {
		cmd := exec.Command("go", args...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("go %s: %w\n%s", args[0], err, &stderr)
		}
		return string(out), err
	}
	// -trimpath: otherwise what the package exports says in which directory the file is.
	const file = `{{with .Export}}packagefile {{$.ImportPath}}={{.}}{{end}}`
	clock, err := goTool("list", "-export", "-trimpath", "-overlay="+overlay, "-f", file, "time")
	if err != nil {
		return "", err
	}
	packages, err := goTool("list", "-export", "-trimpath", "-deps", "-f", `{{if ne .ImportPath "time"}}`+file+`{{end}}`, "./cmd/odx")
	if err != nil {
		return "", err
	}
	main, err := goTool("list", "-export", "-trimpath", "-f", "{{.Export}}", "./cmd/odx")
	if err != nil {
		return "", err
	}
	own := filepath.Join(dir, fmt.Sprintf("odx.%d", os.Getpid()))
	config := own + ".importcfg"
	if err := os.WriteFile(config, []byte(clock+packages), 0o644); err != nil {
		return "", err
	}
	defer os.Remove(config)
	if _, err := goTool("tool", "link", "-importcfg="+config, "-buildmode=exe", "-o", own, strings.TrimSpace(main)); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "odx")
	return path, os.Rename(own, path)
}

// clockOverlay writes what go build -overlay takes, with a package time whose clock is ahead.
func clockOverlay(dir string, ahead time.Duration) (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(out)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	const reads = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(text), reads) != 1 {
		return "", fmt.Errorf("%s of %s reads the clock in another way than is known here", source, runtime.Version())
	}
	// On the same line: what the package exports says at which line it is.
	changed := strings.Replace(string(text), reads, strings.TrimSuffix(reads, "\n")+fmt.Sprintf("; sec += %d\n", int64(ahead/time.Second)), 1)
	replaced := filepath.Join(dir, "time.go")
	if err := os.WriteFile(replaced, []byte(changed), 0o644); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{source: replaced}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o644)
}

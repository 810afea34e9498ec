//go:build e2e

package peers

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"odx/internal/kit/harness"
)

// putBytes is how much one request writes, at most.
const putBytes = 4 << 20

// TestFileToLUN: a disk image that curl puts on A becomes, by a token that A gives over
// HTTP, a LUN of B, which qemu-img compares with the image.
func TestFileToLUN(t *testing.T) {
	const size = 32
	curl := harness.Program(t, "curl", "curl")
	qemu := harness.Program(t, "qemu-img", "qemu-utils")
	c := servers(t, size*mib, "a", "b")
	image := filepath.Join(t.TempDir(), "disk.img")
	data := make([]byte, size*mib)
	random(data[:20*mib], 1) // the rest are zeros
	harness.Must(t, os.WriteFile(image, data, 0o600))

	first := c.Servers[0]
	post := func(path, body string, into any) {
		t.Helper()
		out := harness.Run(t.Context(), t, curl, first.Curl(path, "--header", "Content-Type: application/json", "--data", body)...)
		harness.Must(t, json.Unmarshal([]byte(out), into))
	}
	var scratch struct {
		Name string `json:"name"`
	}
	post("/v1/files/disk.img/start", fmt.Sprintf(`{"size_bytes": %d}`, len(data)), &scratch)
	piece := filepath.Join(t.TempDir(), "piece")
	for off := 0; off < len(data); off += putBytes {
		harness.Must(t, os.WriteFile(piece, data[off:off+putBytes], 0o600))
		harness.Run(t.Context(), t, curl, first.Curl(fmt.Sprintf("/v1/volumes/%s/data?offset=%d", url.PathEscape("file:"+scratch.Name), off), "--upload-file", piece)...)
	}
	post("/v1/files/disk.img/finish", fmt.Sprintf(`{"scratch": %q}`, scratch.Name), &scratch)
	var answer struct {
		Token string `json:"token"`
	}
	post("/v1/files/disk.img/token", "{}", &answer)
	token, err := base64.StdEncoding.DecodeString(answer.Token)
	harness.Must(t, err)

	b := newDisk(t, c.Servers[1], 1)
	b.spend(token, 0, data)
	b.same()
	harness.Run(t.Context(), t, qemu, "compare", "-f", "raw", "-F", "raw", image, c.Servers[1].URL(1))
	for _, s := range c.Servers {
		sound(t, s)
	}
}

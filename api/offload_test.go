package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/backstore"
	"odx/blockdev"
	"odx/target"
	"odx/tokens"
)

// TestTokenCopy: a token stands for the data as it was, and is gone when it was
// revoked.
func TestTokenCopy(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, s *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		fill(t, s, 1<<20)
		if _, err := a.CreateVolume(ctx, "dst", 32<<20); err != nil {
			t.Fatal(err)
		}
		made, err := a.CreateToken(ctx, admin.TokenRequest{Volume: "src", Offset: 4096, Length: 1 << 20, Priority: 3, InactivitySeconds: 90})
		if err != nil {
			t.Fatal(err)
		}
		if len(made.Token) != 512 || made.Length != 1<<20 || made.Volume != "src" || made.Bytes != 1<<20 || made.Priority != 3 || made.Inactivity != 90 || made.Expires == nil {
			t.Errorf("made %+v", made)
		}
		if err := a.WriteVolume(ctx, "src", make([]byte, 8192), 4096); err != nil {
			t.Fatal(err)
		}
		n, err := a.WriteToken(ctx, admin.TokenWrite{Token: made.Token, TokenOffset: 512, Volume: "dst", Offset: 1 << 20})
		if want := int64(1<<20 - 512); err != nil || n.Bytes+n.Remaining != want {
			t.Errorf("wrote %+v, %v", n, err)
		}
		for n.Remaining > 0 {
			done := 1<<20 - 512 - n.Remaining
			if n, err = a.WriteToken(ctx, admin.TokenWrite{Token: made.Token, TokenOffset: 512 + done, Volume: "dst", Offset: 1<<20 + done}); err != nil || n.Bytes == 0 {
				t.Fatalf("went on with %+v, %v", n, err)
			}
		}
		got := make([]byte, 1<<20-512)
		if err := a.ReadVolume(ctx, "dst", got, 1<<20); err != nil || !bytes.Equal(got, content(1 << 20)[512:]) {
			t.Errorf("the copy: %v, equal %v", err, bytes.Equal(got, content(1 << 20)[512:]))
		}
		if list, err := a.Tokens(ctx); err != nil || len(list) != 1 || list[0].ID != made.ID || list[0].Uses == 0 {
			t.Errorf("tokens %+v, %v", list, err)
		}
		if one, err := a.Token(ctx, made.ID); err != nil || one.ID != made.ID {
			t.Errorf("token %+v, %v", one, err)
		}
		if err := a.DeleteToken(ctx, made.ID); err != nil {
			t.Error(err)
		}
		if _, err := a.WriteToken(ctx, admin.TokenWrite{Token: made.Token, Volume: "dst"}); !errors.Is(err, tokens.ErrRevoked) {
			t.Errorf("revoked token: %v", err)
		}
	})
}

// TestData: bytes go in and out over several requests, zeros are known.
func TestData(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, _ *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		want := content(2*maxData + 8192)
		if err := a.WriteVolume(ctx, "src", want, 16384); err != nil {
			t.Fatal(err)
		}
		if err := a.ZeroVolume(ctx, "src", 20480, 4096); err != nil {
			t.Error(err)
		}
		clear(want[4096:8192])
		if err := a.FlushVolume(ctx, "src"); err != nil {
			t.Error(err)
		}
		got := make([]byte, len(want))
		if err := a.ReadVolume(ctx, "src", got, 16384); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read back: %v, equal %v", err, bytes.Equal(got, want))
		}
		for off, want := range map[int64][2]int64{
			0:               {16384, 4096},
			17000:           {17000, 20480 - 17000},
			20480:           {24576, 2*maxData + 8192 - 8192},
			3 * maxData:     {0, 0},
			64 << 20:        {0, 0},
			2*maxData + 512: {2*maxData + 512, 16384 + 8192 - 512},
		} {
			start, length, err := a.NextData(ctx, "src", off)
			if err != nil || [2]int64{start, length} != want {
				t.Errorf("data from %d on: %d, %d (%v), want %v", off, start, length, err, want)
			}
		}
	})
}

func TestOffloadErrors(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, _ *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		made, err := a.CreateToken(ctx, admin.TokenRequest{Volume: "src", Length: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		forged := bytes.Clone(made.Token)
		forged[300] ^= 1
		create := func(r admin.TokenRequest) error { _, err := a.CreateToken(ctx, r); return err }
		write := func(r admin.TokenWrite) error { _, err := a.WriteToken(ctx, r); return err }
		for name, tt := range map[string]struct{ err, want error }{
			"no volume":         {create(admin.TokenRequest{Volume: "none"}), backstore.ErrNotFound},
			"beyond the end":    {create(admin.TokenRequest{Volume: "src", Offset: 64 << 20, Length: 512}), blockdev.ErrRange},
			"part of a block":   {create(admin.TokenRequest{Volume: "src", Length: 100}), blockdev.ErrRange},
			"odd type":          {create(admin.TokenRequest{Volume: "src", Type: 0x12345678}), tokens.ErrUnsupportedType},
			"long timeout":      {create(admin.TokenRequest{Volume: "src", InactivitySeconds: 1 << 30}), tokens.ErrTimeout},
			"huge timeout":      {create(admin.TokenRequest{Volume: "src", InactivitySeconds: 1 << 62}), blockdev.ErrInvalid},
			"short token":       {write(admin.TokenWrite{Token: make([]byte, 511), Volume: "src"}), blockdev.ErrInvalid},
			"forged token":      {write(admin.TokenWrite{Token: forged, Volume: "src"}), tokens.ErrCorrupt},
			"past the token":    {write(admin.TokenWrite{Token: made.Token, TokenOffset: 1 << 20, Volume: "src"}), tokens.ErrOffset},
			"outside":           {write(admin.TokenWrite{Token: made.Token, Volume: "src", Offset: 64 << 20, Length: 512}), blockdev.ErrRange},
			"read outside":      {a.ReadVolume(ctx, "src", make([]byte, 512), 64<<20), blockdev.ErrInvalid},
			"write outside":     {a.WriteVolume(ctx, "src", make([]byte, 512), 64<<20-1), blockdev.ErrInvalid},
			"zeros outside":     {a.ZeroVolume(ctx, "src", 0, 65<<20), blockdev.ErrInvalid},
			"no data of it":     {a.ReadVolume(ctx, "none", make([]byte, 512), 0), backstore.ErrNotFound},
			"hidden":            {a.FlushVolume(ctx, ".hidden"), backstore.ErrNotFound},
			"unknown token":     {a.DeleteToken(ctx, made.ID+1), tokens.ErrUnknown},
			"unknown to others": {func() error { _, err := a.Token(ctx, made.ID+1); return err }(), tokens.ErrUnknown},
		} {
			if !errors.Is(tt.err, tt.want) {
				t.Errorf("%s: %v, want %v", name, tt.err, tt.want)
			}
		}
	})
}

// TestOffloadRoutes: what a program that is not ours relies on.
func TestOffloadRoutes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, 8192)
	_, client := serve(t, dir, s)
	status, body := request(t, client, http.MethodPost, "/v1/tokens", `{"volume": "src", "offset": 4096, "length": 4096}`)
	var made v1.MadeToken
	if err := json.Unmarshal([]byte(body), &made); err != nil || status != http.StatusCreated {
		t.Fatalf("%d %s (%v)", status, body, err)
	}
	token := base64.StdEncoding.EncodeToString(made.Token)
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/tokens/write", fmt.Sprintf(`{"token": %q, "volume": "src", "offset": 0}`, token), 200, `{"bytes":4096,"remaining":0}`},
		{"GET", "/v1/volumes/src/data?offset=0&length=32", "", 200, "0" + strings.Repeat(" ", 31)},
		{"PUT", "/v1/volumes/src/data?offset=512", "some bytes", 204, ""},
		{"GET", "/v1/volumes/src/data?offset=510&length=12", "", 200, "  some bytes"},
		{"DELETE", "/v1/volumes/src/data?offset=0&length=4096", "", 204, ""},
		{"GET", "/v1/volumes/src/next-data?offset=0", "", 200, `{"offset":4096,"length":8192}`},
		{"POST", "/v1/volumes/src/flush", "", 204, ""},
		{"GET", "/v1/volumes/src/data?offset=0&length=5000000", "", 400, `{"kind":"invalid","error":"invalid argument: 5000000 bytes in one request; ask for 0 to 4194304"}`},
		{"GET", "/v1/volumes/src/data?offset=x&length=5", "", 400, `{"kind":"invalid","error":"invalid argument: offset=\"x\" in the query is not a number of bytes"}`},
		{"GET", "/v1/tokens/xyz", "", 400, `{"kind":"invalid","error":"invalid argument: token identifier \"xyz\": want 16 hexadecimal digits"}`},
		{"DELETE", "/v1/tokens/" + made.ID, "", 204, ""},
		{"GET", "/v1/tokens", "", 200, "[]"},
	} {
		status, body := request(t, client, tt.method, tt.path, tt.body)
		if got := strings.TrimSuffix(body, "\n"); status != tt.status || got != tt.want {
			t.Errorf("%s %s: %d\n%s\nwant %d\n%s", tt.method, tt.path, status, got, tt.status, tt.want)
		}
	}
}

func TestRoutesAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range slices.Concat(routes, offloadRoutes, fileRoutes) {
		key := r.method + " " + r.path
		if seen[key] || r.summary == "" || r.status/100 != 2 || r.do == nil {
			t.Errorf("route %s is not whole", key)
		}
		seen[key] = true
	}
}

// TestKindsOfTokens: a hash token copies without a record, a checksum proves the
// copy, and what a token stands for can be read.
func TestKindsOfTokens(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, s *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		fill(t, s, 1<<20)
		made, err := a.CreateToken(ctx, admin.TokenRequest{Volume: "src", Offset: 4096, Length: 1 << 20, Providers: []string{"data", "hash", "checksum"}})
		if err != nil || len(made.Others) != 2 || made.Others[0].Provider != "hash" || made.Others[1].Provider != "checksum" {
			t.Fatalf("made %+v, %v", made, err)
		}
		hash, proof := made.Others[0].Token, made.Others[1].Token
		if list, err := a.Tokens(ctx); err != nil || len(list) != 1 {
			t.Errorf("%d records, %v", len(list), err)
		}
		if _, err := a.CreateVolume(ctx, "dst", 4<<20); err != nil {
			t.Fatal(err)
		}
		write := admin.TokenWrite{Token: hash, Volume: "dst", Offset: 1 << 20}
		if n, err := a.WriteToken(ctx, write); err != nil || n.Bytes != 1<<20 {
			t.Errorf("hash token: %+v, %v", n, err)
		}
		for off, want := range map[int64]bool{1 << 20: true, 1<<20 + 4096: false} {
			if v, err := a.VerifyToken(ctx, admin.TokenWrite{Token: proof, Volume: "dst", Offset: off}); err != nil || v.Match != want {
				t.Errorf("checksum of the bytes at %d: %+v, %v", off, v, err)
			}
		}
		p := make([]byte, 100)
		want := content(1 << 20)[1<<20-60:]
		if n, err := a.ReadToken(ctx, (*tokens.Token)(hash), p, 1<<20-60); err != nil || n != 60 || !bytes.Equal(p[:n], want) {
			t.Errorf("read %d bytes: %v", n, err)
		}
		if err := a.RevokeToken(ctx, (*tokens.Token)(hash)); err != nil {
			t.Error(err)
		}
		if _, err := a.WriteToken(ctx, write); !errors.Is(err, tokens.ErrRevoked) {
			t.Errorf("revoked hash token: %v", err)
		}
		if m, err := a.CreateToken(ctx, admin.TokenRequest{Volume: "src", Length: 4096, Skip: 2}); err != nil || m.Type != tokens.RODTypeChecksum || len(m.Others) != 0 {
			t.Errorf("all but two: %+v, %v", m, err)
		}
		if _, err := a.CreateToken(ctx, admin.TokenRequest{Volume: "src", Providers: []string{"none"}}); !errors.Is(err, blockdev.ErrInvalid) {
			t.Errorf("unknown provider: %v", err)
		}
	})
}

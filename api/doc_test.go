package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// specification reads docs/openapi.yaml.
func specification(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestSpecificationListsEveryRoute: no more and no fewer than are answered, with
// the same words.
func TestSpecificationListsEveryRoute(t *testing.T) {
	var want, got []string
	roles := map[string]string{}
	for _, r := range allRoutes() {
		want = append(want, r.method+" "+r.path)
		roles[r.method+" "+r.path] = r.role.String()
	}
	doc := specification(t)
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			got = append(got, method+" "+path)
			if role := op.Extensions["x-role"]; role != roles[method+" "+path] {
				t.Errorf("%s %s: x-role is %v, the route needs %s", method, path, role, roles[method+" "+path])
			}
			if op.Summary == "" || op.Responses.Default() == nil {
				t.Errorf("%s %s: no summary, or no word about errors", method, path)
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("docs/openapi.yaml has\n%s\nanswered are\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// example is a request and its answer in docs/api.md.
type example struct {
	method, path, body string
	status             string
	answer             string
}

var exampleBlock = regexp.MustCompile("(?s)```http\n(.*?)\n```")

func examples(t *testing.T) []example {
	t.Helper()
	text, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var list []example
	for _, m := range exampleBlock.FindAllStringSubmatch(string(text), -1) {
		request, answer, ok := strings.Cut(m[1], "\n\n")
		if !ok {
			t.Fatalf("no answer in\n%s", m[1])
		}
		var e example
		first, body, _ := strings.Cut(request, "\n")
		e.method, e.path, _ = strings.Cut(first, " ")
		e.body = body
		e.status, e.answer, _ = strings.Cut(answer, "\n")
		list = append(list, e)
	}
	return list
}

// TestExamplesOfTheDocumentation runs docs/api.md, and holds every request and
// answer against docs/openapi.yaml.
func TestExamplesOfTheDocumentation(t *testing.T) {
	// Lines of JSON, and YAML, are text to the validator.
	for _, text := range []string{"application/x-ndjson", yamlType} {
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.RegisteredBodyDecoder("text/plain"))
	}
	dir := t.TempDir()
	// However full the disk is, it is healthy.
	s := openWith(t, dir, "[{lun: 0, volume: src, size: 64MiB}]\nstore: {soft_threshold: 0}")
	fill(t, s, 8192)
	serves := serving(t, s.Admin())
	serves.Live = newModelLive(t, serves.Audit) // of its own
	client := serveSocket(t, dir, NewServer(serves))
	router, err := gorillamux.NewRouter(specification(t))
	if err != nil {
		t.Fatal(err)
	}
	list := examples(t)
	if len(list) < 10 {
		t.Fatalf("%d examples", len(list))
	}
	var made struct{ Token, ID, Name string }
	for _, e := range list {
		replace := strings.NewReplacer("TOKEN", made.Token, "/ID", "/"+made.ID, "SCRATCH", made.Name)
		e.path, e.body = replace.Replace(e.path), replace.Replace(e.body)
		status, body := exchange(t, client, router, e)
		if fmt.Sprint(status) != e.status || !matches(e.answer, body) {
			t.Errorf("%s %s: %d\n%s\nthe documentation says %s\n%s", e.method, e.path, status, body, e.status, e.answer)
		}
		if e.path == "/v1/tokens" || strings.HasSuffix(e.path, "/start") {
			if err := json.Unmarshal([]byte(body), &made); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// exchange sends a request and validates it and the answer.
func exchange(t *testing.T, c *Client, router routers.Router, e example) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), e.method, "http://odx"+e.path, strings.NewReader(e.body))
	if err != nil {
		t.Fatal(err)
	}
	switch req.Header.Set("Content-Type", "application/json"); {
	case strings.HasPrefix(e.path, "/v1/config"):
		req.Header.Set("Content-Type", yamlType)
	case e.method == http.MethodPut:
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	route, params, err := router.FindRoute(req)
	if err != nil {
		t.Fatalf("%s %s: %v", e.method, e.path, err)
	}
	input := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route, Options: &openapi3filter.Options{
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, // the socket has none
	}}
	if err := openapi3filter.ValidateRequest(t.Context(), input); err != nil {
		t.Errorf("%s %s is not what the specification wants: %v", e.method, e.path, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: resp.StatusCode, Header: resp.Header,
		Body: io.NopCloser(bytes.NewReader(body)),
	}); err != nil {
		t.Errorf("the answer to %s %s is not what the specification says: %v", e.method, e.path, err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

// matches compares an answer with the documentation's, where … stands for anything, {…}
// for an object with at most objects of scalars in it, and blanks after colons and commas do not count.
func matches(want, got string) bool {
	if want == "" || want[0] != '{' && want[0] != '[' {
		return want == got
	}
	got = strings.NewReplacer("\n,", ",", "\n]", "]").Replace(got) // lists are sent an entry a line
	pattern := regexp.QuoteMeta(strings.NewReplacer(`": `, `":`, `, "`, `,"`, `, {`, `,{`).Replace(want))
	pattern = strings.ReplaceAll(pattern, `\{…\}`, `\{(?:[^{}]|\{[^{}]*\})*\}`)
	pattern = strings.ReplaceAll(pattern, `"…"`, `"(?:[^"\\]|\\.)*"`)
	pattern = strings.ReplaceAll(pattern, "…", `[^"]*`)
	return regexp.MustCompile("^" + pattern + "$").MatchString(got)
}

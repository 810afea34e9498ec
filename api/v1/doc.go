// Package v1 has the JSON of version 1: the requests to /v1 and their responses
// (docs/openapi.yaml), and what odx prints with --json. It has types only. A field that
// is renamed or removed here breaks clients. One that is added to a request has
// omitempty or omitzero: older servers refuse unknown keys. The rest of odx has its own
// types, which package api converts, so that their changes do not reach the wire;
// durable records have types of their own, too (docs/formats.md).
//
// Times are RFC 3339, sizes and offsets are bytes, identifiers are hexadecimal.
package v1
